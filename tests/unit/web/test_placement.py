"""Where roles go: the classic rules, and what holds whatever happens."""

from __future__ import annotations

import collections

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conpaas.core import errors
from conpaas.services.webservers.manager import placement
from conpaas.services.webservers.manager.placement import Placed, Shape

LABELS = ("proxy", "web", "backend", "proxyweb", "proxybackend", "proxybackendweb")

clusters = st.lists(st.sampled_from(LABELS), min_size=1, max_size=9).map(
    lambda labels: [Placed(f"n{number}", label) for number, label in enumerate(labels)]
)


def nodes(*labels: str) -> list[Placed]:
    return [Placed(f"n{number}", label) for number, label in enumerate(labels, 1)]


def settled(*labels: str) -> list[str]:
    return list(placement.settle(nodes(*labels)).values())


class TestSettling:
    @pytest.mark.parametrize(
        ("given_labels", "wanted"),
        [
            (("proxy",), ["proxybackendweb"]),
            (("proxybackendweb", "backend"), ["proxyweb", "backend"]),
            (("proxyweb", "backend", "web", "backend"), ["proxy", "backend", "web", "backend"]),
            (("proxy", "web"), ["proxybackend", "web"]),
            (("proxy", "web", "backend", "proxy"), ["proxy", "web", "backend", "proxy"]),
            (("proxy", "proxy"), ["proxybackendweb", "proxy"]),
            (("web", "backend"), ["proxyweb", "backend"]),
            (("web", "web", "backend"), ["proxy", "web", "backend"]),
            (("backend", "backend"), ["proxyweb", "backend"]),
            (("node",), ["proxybackendweb"]),
        ],
    )
    def test_examples(self, given_labels: tuple[str, ...], wanted: list[str]) -> None:
        assert settled(*given_labels) == wanted

    def test_nobody_relies_on_a_node_that_is_silent(self) -> None:
        here = nodes("proxy", "backend", "web")
        assert placement.settle(here, {"n2"}) == {"n1": "proxybackend", "n2": "backend", "n3": "web"}
        assert placement.settle(nodes("proxy", "proxy", "backend", "web"), {"n1", "n3"})["n2"] == "proxybackend"

    @given(clusters)
    def test_each_role_is_played_and_at_most_one_node_packs(self, here: list[Placed]) -> None:
        labels = placement.settle(here)
        played = collections.Counter(role for label in labels.values() for role in placement.roles_of(label))
        assert set(played) == {"proxy", "web", "backend"}
        packing = [key for key, label in labels.items() if len(placement.roles_of(label)) > 1]
        assert len(packing) <= 1
        assert list(labels) == [one.id for one in here]

    @given(clusters)
    def test_it_is_stable(self, here: list[Placed]) -> None:
        labels = placement.settle(here)
        assert placement.settle([Placed(key, label) for key, label in labels.items()]) == labels

    @given(clusters)
    def test_no_node_changes_what_it_is_for_unless_no_proxy_is_left(self, here: list[Placed]) -> None:
        labels = placement.settle(here)
        changed = [one.id for one in here if placement.base_of(labels[one.id]) != one.base]
        assert len(changed) == (0 if any(one.base == "proxy" for one in here) else 1)

    @given(clusters, st.sets(st.integers(0, 8)))
    def test_each_role_has_somebody_who_answers(self, here: list[Placed], numbers: set[int]) -> None:
        silent = {f"n{number}" for number in numbers}
        answering = [one for one in here if one.id not in silent]
        labels = placement.settle(here, silent)
        if answering and any(one.base == "proxy" for one in answering):
            played = {role for one in answering for role in placement.roles_of(labels[one.id])}
            assert played == {"proxy", "web", "backend"}

    @given(clusters)
    def test_adding_and_taking_away_again_gives_the_same(self, here: list[Placed]) -> None:
        before = placement.settle(here)
        packed = [Placed(key, label) for key, label in before.items()]
        after = placement.settle([*packed, Placed("new1", "web"), Placed("new2", "backend")])
        back = placement.settle([Placed(key, label) for key, label in after.items() if not key.startswith("new")])
        assert back == before


class TestChecks:
    def test_a_second_proxy_needs_stand_alone_nodes(self) -> None:
        text = "Cannot add more proxy servers without at least one stand-alone 'web' node and one stand-alone 'backend' node"
        for labels, roles in (
            (("proxybackendweb",), {"proxy": 1}),
            (("proxyweb", "backend"), {"proxy": 1, "backend": 1}),
        ):
            with pytest.raises(errors.InvalidArgument) as caught:
                placement.check_add(nodes(*labels), roles)
            assert str(caught.value) == text
        placement.check_add(nodes("proxybackendweb"), {"proxy": 1, "web": 1, "backend": 1})
        placement.check_add(nodes("proxybackendweb"), {"backend": 3})

    @pytest.mark.parametrize(
        ("labels", "roles", "missing"),
        [
            (("proxybackendweb",), {"proxy": 1}, "proxy"),
            (("proxybackendweb",), {"web": 1}, "web"),
            (("proxybackendweb",), {"backend": 1}, "backend"),
            (("proxyweb", "backend"), {"backend": 2}, "backend"),
            (("proxy", "web", "backend", "proxy"), {"web": 1}, "web"),
            (("proxy", "web", "backend", "proxy"), {"backend": 1}, "backend"),
            (("proxy", "web", "backend", "proxy"), {"proxy": 2}, "proxy"),
        ],
    )
    def test_too_few_would_be_left(self, labels: tuple[str, ...], roles: dict[str, int], missing: str) -> None:
        with pytest.raises(errors.InvalidArgument) as caught:
            placement.check_remove(nodes(*labels), roles)
        assert str(caught.value) == f"Not enough '{missing}' nodes will be left"

    def test_the_last_stand_alone_nodes_may_go_with_the_second_proxy(self) -> None:
        placement.check_remove(nodes("proxy", "web", "backend", "proxy"), {"proxy": 1, "web": 1, "backend": 1})

    @given(clusters, st.dictionaries(st.sampled_from(["proxy", "web", "backend"]), st.integers(1, 3), min_size=1))
    def test_what_is_allowed_can_be_done_and_leaves_the_primary(self, here: list[Placed], roles: dict[str, int]) -> None:
        try:
            placement.check_remove(here, roles)
        except errors.InvalidArgument:
            return
        chosen = placement.victims(here, roles)
        assert len(chosen) == len(set(chosen)) == sum(roles.values())
        placement.check_victims(here, chosen)
        left = [one for one in here if one.id not in chosen]
        if any(one.base == "proxy" for one in here):
            assert placement.primary(left) == placement.primary(here)

    def test_victims_are_the_newest(self) -> None:
        here = nodes("proxy", "backend", "web", "backend", "proxy", "backend")
        assert placement.victims(here, {"backend": 2}) == ["n6", "n4"]
        assert placement.victims(here, {"proxy": 1}) == ["n5"]
        with pytest.raises(errors.InvalidArgument, match="n1 cannot be removed"):
            placement.check_victims(here, ["n1"])


class TestShapes:
    @pytest.mark.parametrize(
        ("shape", "wanted"),
        [
            (Shape(1, 0, 0), {"proxy": 1}),
            (Shape(1, 0, 2), {"proxy": 1, "backend": 2}),
            (Shape(1, 2, 0), {"proxy": 1, "web": 2}),
            (Shape(2, 0, 0), {"proxy": 2, "web": 1, "backend": 1}),
            (Shape(2, 1, 3), {"proxy": 2, "web": 1, "backend": 3}),
        ],
    )
    def test_a_start_brings_the_same_shape_again(self, shape: Shape, wanted: dict[str, int]) -> None:
        assert shape.starting_nodes() == wanted

    def test_a_start_leaves_no_role_out(self) -> None:
        assert settled("proxy", "web", "web") == ["proxybackend", "web", "web"]  # D20

    def test_a_replacement_does_what_the_promoted_node_did(self) -> None:
        left = [Placed("n3", "proxyweb"), Placed("n2", "backend")]
        assert placement.replacements(left, [Placed("n4", "proxy")], Shape(1, 1, 1)) == {"n4": "web"}
        assert placement.replacements(nodes("proxy", "web"), [Placed("n4", "backend")], Shape(1, 1, 1)) == {"n4": "backend"}
        assert placement.replacements([], [Placed("n4", "proxy")], Shape(1, 0, 0)) == {"n4": "proxy"}

    @given(clusters, st.lists(st.sampled_from(["proxy", "web", "backend"]), max_size=4))
    def test_replacements_all_get_a_role(self, here: list[Placed], bases: list[str]) -> None:
        new = [Placed(f"r{number}", base) for number, base in enumerate(bases)]
        found = placement.replacements(here, new, Shape(2, 2, 2))
        assert set(found) == {one.id for one in new}
        assert set(found.values()) <= {"proxy", "web", "backend"}
