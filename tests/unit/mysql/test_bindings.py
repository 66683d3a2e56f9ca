"""Bindings: another service gets an account of its own, finds it in its environment, and loses it again."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from tests.unit.web.fake_agent import WebHarness

from conpaas.core import errors
from conpaas.testing import harness

from .fake_agent import MySQLHarness

PHP, GENERIC, HELLO = 7, 8, 9
SOURCE = "service 1"


class Peer:
    """Another service of the application, as `BaseManager` offers it to others."""

    def __init__(self, kind: str, *, accepts: bool = True) -> None:
        self.type, self.accepts_variables = kind, accepts
        self.idle = True
        self.works = True
        self.finishes = True
        self.given: dict[str, dict[str, str]] = {}
        self.wanted: tuple[str, dict[str, str]] | None = None
        self.taken = 0

    def variables_from(self, source: str) -> dict[str, str]:
        return dict(self.given.get(source, {}))

    def take_variables(self, source: str, variables: Mapping[str, str], caller: str) -> dict[str, Any]:
        if not self.idle:
            raise errors.WrongState("The service is busy with another request; try again when that has finished.")
        if not self.works:
            raise errors.OperationFailed("The service cannot be changed.")
        self.taken += 1
        if not self.finishes:
            self.idle, self.wanted = False, (source, dict(variables))
            return {"operation": "op-7"}
        self.given[source] = dict(variables)
        return {}

    def finish(self, *, done: bool) -> None:
        """The operation that take_variables began is done, or undone."""
        assert self.wanted is not None
        if done:
            self.given[self.wanted[0]] = self.wanted[1]
        self.idle, self.wanted = True, None


class Bound(MySQLHarness):
    """A mysql service with others beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.others = {PHP: Peer("php"), GENERIC: Peer("generic"), HELLO: Peer("helloworld", accepts=False)}
        self.manager.peers = self.others.get

    def bindings(self) -> list[dict[str, Any]]:
        return list(self.call("list_bindings")["bindings"])

    @property
    def php(self) -> Peer:
        return self.others[PHP]

    @property
    def variables(self) -> dict[str, str]:
        return self.php.variables_from(f"service {self.service_id}")


@pytest.fixture
def made() -> Iterator[Bound]:
    with Bound() as bound:
        bound.start()
        yield bound
        bound.watch()


class TestBinding:
    def test_a_service_gets_an_account_and_finds_it_in_its_environment(self, made: Bound) -> None:
        assert made.call("bind", service=PHP) == {"database": "php7", "user": "php7"}
        assert made.world.users["php7"] == {"php7"}
        assert "php7" in made.world.databases
        (member,) = made.nodes
        told = made.variables
        assert (told["MYSQL_HOST"], told["MYSQL_PORT"], told["MYSQL_IP"]) == (member.ip, "3306", member.ip)
        assert (told["MYSQL_READ_HOST"], told["MYSQL_READ_PORT"]) == (member.ip, "3306")
        assert (told["MYSQL_DATABASE"], told["MYSQL_USER"]) == ("php7", "php7")
        assert told["MYSQL_URL"] == f"mysql://php7:{told['MYSQL_PASSWORD']}@{member.ip}:3306/php7"
        assert len(told["MYSQL_PASSWORD"]) >= 24

    def test_the_list_tells_no_password(self, made: Bound) -> None:
        made.call("bind", service=PHP, database="blog", prefix="DB")
        assert made.bindings() == [{"service": PHP, "database": "blog", "user": "php7", "prefix": "DB", "given": True}]
        assert set(made.variables) == {
            *(f"DB_{name}" for name in ("HOST", "PORT", "READ_HOST", "READ_PORT", "DATABASE", "USER", "PASSWORD", "URL")),
            "MYSQL_IP",
        }

    def test_once_more_changes_nothing(self, made: Bound) -> None:
        made.call("bind", service=PHP, database="blog")
        before = made.variables
        made.call("bind", service=PHP)
        assert (made.variables, made.php.taken, len(made.bindings())) == (before, 1, 1)

    def test_two_services_have_two_accounts(self, made: Bound) -> None:
        made.call("bind", service=PHP, database="shared")
        made.call("bind", service=GENERIC, database="shared")
        assert {one["user"] for one in made.bindings()} == {"php7", "generic8"}
        passwords = {one.variables_from(SOURCE)["MYSQL_PASSWORD"] for one in (made.others[PHP], made.others[GENERIC])}
        assert len(passwords) == 2

    def test_what_a_manager_remembers_outlives_it(self, made: Bound) -> None:
        made.call("bind", service=PHP)
        made.restart()
        made.manager.peers = made.others.get
        assert [(one["service"], one["given"]) for one in made.bindings()] == [(PHP, True)]

    @pytest.mark.parametrize(
        ("asked", "text"),
        [
            ({"service": HELLO}, "Services of type 'helloworld' take no variables from other services."),
            ({"service": 55}, "There is no other service 55 in this application."),
            ({"service": 1}, "There is no other service 1 in this application."),
            ({"service": PHP, "prefix": "my-sql"}, "must be capital letters"),
            ({"service": PHP, "database": "mysql"}, "mysql"),
            ({"service": PHP, "database": "a'b; DROP"}, "cannot be"),
        ],
    )
    def test_what_cannot_be_is_refused(self, made: Bound, asked: dict[str, Any], text: str) -> None:
        before = dict(made.world.users)
        with pytest.raises(errors.ConPaaSError, match=text):
            made.call("bind", **asked)
        assert (made.bindings(), made.world.users) == ([], before)

    def test_a_service_that_does_not_run_has_no_accounts_to_give(self) -> None:
        with Bound() as bound, pytest.raises(errors.ConPaaSError, match="state"):
            bound.call("bind", service=PHP)


class TestFollowing:
    def test_a_busy_service_gets_its_variables_when_it_has_time(self, made: Bound) -> None:
        made.php.idle = False
        assert "busy" in made.call("bind", service=PHP)["pending"]
        assert not made.bindings()[0]["given"]
        made.pass_time(30)
        assert made.php.taken == 0
        made.php.idle = True
        made.pass_time(30)
        assert made.bindings()[0]["given"]

    def test_a_service_that_refuses_is_not_asked_all_the_time(self, made: Bound) -> None:
        made.php.works = False
        made.call("bind", service=PHP)
        made.php.works = True
        made.pass_time(30)
        assert made.php.taken == 0

    def test_when_the_address_changes_the_variables_follow(self, made: Bound) -> None:
        made.call("bind", service=PHP)
        before = made.variables
        made.add_nodes({"mysql": 1, "glb": 1})
        made.pass_time(10)
        (balancer,) = [one for one in made.nodes if one.role == "glb"]
        after = made.variables
        assert (after["MYSQL_HOST"], after["MYSQL_PORT"], after["MYSQL_READ_PORT"]) == (balancer.ip, "8010", "8011")
        assert after["MYSQL_PASSWORD"] == before["MYSQL_PASSWORD"]

    def test_a_replaced_member_is_followed(self, made: Bound) -> None:
        made.add_nodes({"mysql": 2})
        made.call("bind", service=PHP)
        gone = next(one for one in made.nodes if one.ip == made.variables["MYSQL_HOST"])
        made.kill_node(gone)
        made.pass_time(120)
        assert made.variables["MYSQL_HOST"] in {one.ip for one in made.nodes} - {gone.ip}

    def test_a_second_change_of_address_is_followed_as_soon_as_the_first(self, made: Bound) -> None:
        made.call("bind", service=PHP)
        made.add_nodes({"glb": 1})
        made.pass_time(10)
        (lost,) = [one for one in made.nodes if one.role == "glb"]
        assert made.variables["MYSQL_HOST"] == lost.ip
        made.kill_node(lost)
        made.pass_time(120)
        (heir,) = [one for one in made.nodes if one.role == "glb"]
        assert (made.variables["MYSQL_HOST"], heir.ip != lost.ip) == (heir.ip, True)

    def test_variables_that_were_undone_are_not_tried_all_the_time(self, made: Bound) -> None:
        made.php.finishes = False
        made.call("bind", service=PHP)
        for _ in range(3):
            if not made.php.idle:
                made.php.finish(done=False)
            made.pass_time(20)
        assert made.php.taken == 2

    def test_an_account_that_could_not_be_made_is_made_later(self, made: Bound) -> None:
        made.world.refuse["create_user"] = 1
        with pytest.raises(errors.ConPaaSError, match="by order"):
            made.call("bind", service=PHP)
        assert made.variables == {}, "no variables without an account"
        made.pass_time(10)
        assert made.world.users["php7"] == {"php7"}
        assert made.bindings()[0]["given"]


class TestUnbinding:
    def test_variables_and_account_go_and_the_database_stays(self, made: Bound) -> None:
        made.call("bind", service=PHP)
        made.call("unbind", service=PHP)
        assert (made.variables, made.bindings()) == ({}, [])
        assert "php7" not in made.world.users
        assert "php7" in made.world.databases

    def test_bound_again_the_password_is_another(self, made: Bound) -> None:
        made.call("bind", service=PHP)
        before = made.variables["MYSQL_PASSWORD"]
        made.call("unbind", service=PHP)
        made.call("bind", service=PHP)
        assert made.variables["MYSQL_PASSWORD"] != before

    def test_the_account_stays_while_programs_may_still_use_it(self, made: Bound) -> None:
        made.call("bind", service=PHP)
        made.php.finishes = False
        assert made.call("unbind", service=PHP) == {"operation": "op-7"}
        made.pass_time(5)
        assert "php7" in made.world.users
        made.php.finish(done=True)
        made.pass_time(5)
        assert "php7" not in made.world.users
        assert made.bindings() == []

    def test_variables_that_could_not_be_taken_keep_their_account(self, made: Bound) -> None:
        made.call("bind", service=PHP)
        made.php.finishes = False
        made.call("unbind", service=PHP)
        made.php.finish(done=False)
        made.pass_time(5)
        assert made.php.taken == 3, "it is tried once more"
        assert "php7" in made.world.users

    def test_a_busy_service_is_made_up_for(self, made: Bound) -> None:
        made.call("bind", service=PHP)
        made.php.idle = False
        assert "busy" in made.call("unbind", service=PHP)["pending"]
        made.php.idle = True
        made.pass_time(10)
        assert (made.variables, made.bindings(), "php7" in made.world.users) == ({}, [], False)

    def test_who_has_none(self, made: Bound) -> None:
        with pytest.raises(errors.ConPaaSError, match="The service 7 has no account here"):
            made.call("unbind", service=PHP)

    def test_a_service_that_is_removed_has_no_account_any_more(self, made: Bound) -> None:
        made.call("bind", service=PHP)
        del made.others[PHP]
        made.pass_time(10)
        assert (made.bindings(), "php7" in made.world.users) == ([], False)

    def test_when_the_databases_are_removed_nobody_looks_for_them(self, made: Bound) -> None:
        made.call("bind", service=PHP)
        php = made.php
        source = f"service {made.service_id}"
        assert php.variables_from(source)
        made.stop()
        made.remove()
        assert php.variables_from(source) == {}


class TestTakingVariables:
    """What services do with variables that others give them."""

    @pytest.mark.parametrize("kind", ["php", "generic"])
    def test_those_of_a_service_that_is_gone_are_forgotten(self, kind: str) -> None:
        """It was removed while this one was busy."""
        with WebHarness() if kind == "php" else harness.Harness("generic") as other:
            other.start()
            there, gone = "service 1", "service 55"
            other.manager.take_variables(there, {"MYSQL_HOST": "10.0.0.8"}, "")
            other.settle()
            other.manager.take_variables(gone, {"MYSQL_HOST": "10.0.0.9"}, "")
            other.settle()
            assert other.manager.variables_from(gone)
            other.pass_time(30)
            assert (other.manager.variables_from(gone), other.manager.variables_from(there)) == ({}, {"MYSQL_HOST": "10.0.0.8"})

    def test_a_php_site_has_them_on_its_backends_and_tells_only_their_names(self) -> None:
        with WebHarness() as web:
            web.start()
            web.manager.take_variables("service 4", {"MYSQL_HOST": "10.0.0.9", "MYSQL_PASSWORD": "hidden"}, "")
            web.settle()
            assert web.manager.site.configuration.backend_settings().environment["MYSQL_HOST"] == "10.0.0.9"
            assert web.call("get_environment")["given"] == {"service 4": ["MYSQL_HOST", "MYSQL_PASSWORD"]}
            assert "hidden" not in str(web.call("get_environment"))

    def test_what_the_user_set_goes_before_what_was_given(self) -> None:
        with WebHarness() as web:
            web.manager.take_variables("service 4", {"MYSQL_HOST": "10.0.0.9"}, "")
            web.call("set_environment", environment={"MYSQL_HOST": "10.0.0.1"})
            assert web.manager.site.configuration.backend_settings().environment["MYSQL_HOST"] == "10.0.0.1"

    def test_what_is_taken_away_is_gone(self) -> None:
        with WebHarness() as web:
            web.start()
            for given in ({"MYSQL_HOST": "10.0.0.9"}, {}, {}):
                web.manager.take_variables("service 4", given, "")
                web.settle()
            assert web.manager.variables_from("service 4") == {}
            assert web.call("get_environment")["given"] == {}

    @pytest.mark.parametrize("kind", ["php", "generic"])
    def test_startup_scripts_find_the_address_and_no_secret(self, kind: str, tmp_path: pathlib.Path) -> None:
        with WebHarness() if kind == "php" else harness.Harness("generic") as other:
            script = tmp_path / "startup.sh"
            script.write_text("#!/bin/bash\necho $MYSQL_IP\n")
            given = {"MYSQL_IP": "10.0.0.9", "MYSQL_PASSWORD": "hidden"}
            other.manager.take_variables(other.manager.source_of(other.service_id), given, "")
            other.start()
            assert other.director.startup_scripts == [""]
            other.call("upload_startup_script", 0, script=script, sid=other.service_id)
            other.add_nodes({other.manager.get_default_role(): 1})
            assert other.director.startup_scripts[1:] == ["export MYSQL_IP=10.0.0.9\n#!/bin/bash\necho $MYSQL_IP\n"]

    @pytest.mark.parametrize("name", ["1X", "A B", "A=B", ""])
    def test_names_that_cannot_be_are_refused(self, name: str) -> None:
        with WebHarness() as web, pytest.raises(errors.InvalidArgument):
            web.manager.take_variables("service 4", {name: "x"}, "")
        with harness.Harness("generic") as generic, pytest.raises(errors.InvalidArgument):
            generic.manager.take_variables("service 4", {name: "x"}, "")

    def test_a_generic_service_keeps_them_by_source(self) -> None:
        with harness.Harness("generic") as generic:
            generic.manager.take_variables("service 4", {"MYSQL_HOST": "10.0.0.9"}, "")
            generic.manager.take_variables("service 5", {"OTHER_HOST": "10.0.0.8"}, "")
            generic.restart()
            assert generic.manager.variables_from("service 4") == {"MYSQL_HOST": "10.0.0.9"}
            generic.manager.take_variables("service 4", {}, "")
            assert generic.manager.variables_from("service 4") == {}
            assert generic.manager.variables_from("service 5") == {"OTHER_HOST": "10.0.0.8"}


def test_a_user_that_somebody_made_is_not_taken_over() -> None:
    with Bound() as made:
        made.start()
        made.call("create_user", user=f"php{PHP}", password="somebody's own", databases=[])
        with pytest.raises(errors.RemoteError, match=f"There is a user 'php{PHP}' already"):
            made.call("bind", service=PHP)
        assert made.call("list_bindings") == {"bindings": []}


class TestManifests:
    def test_a_manifest_binds_and_tells_what_is_bound(self, made: Bound) -> None:
        wanted = [{"service": PHP, "database": "shop"}, {"service": GENERIC, "database": "shop", "prefix": "DB"}]
        for _ in range(2):
            made.call("apply_manifest", fields={"Bindings": wanted})
        assert made.call("export_manifest")["fields"]["Bindings"] == [{"prefix": "MYSQL", **wanted[0]}, wanted[1]]
        assert "DB_HOST" in made.others[GENERIC].variables_from(SOURCE)

    @pytest.mark.parametrize(
        ("wanted", "text"),
        [
            ([{"service": PHP}, {"service": 55}], "There is no other service 55"),
            ([{"service": PHP}, {"service": PHP, "color": "red"}], "Unexpected parameters"),
            ([{"database": "shop"}], "service"),
            ("x", "should be list"),
        ],
    )
    def test_none_is_made_unless_all_are_right(self, made: Bound, wanted: Any, text: str) -> None:
        with pytest.raises(errors.ConPaaSError, match=text):
            made.call("apply_manifest", fields={"Bindings": wanted})
        assert made.bindings() == []
