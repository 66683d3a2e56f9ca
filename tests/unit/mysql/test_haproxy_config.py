"""What HAProxy is given to read."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import subprocess

import pytest

from conpaas.core import errors
from conpaas.services.mysql import spec
from conpaas.services.mysql.agent import balancer
from conpaas.services.mysql.workload import haproxy, haproxy_config

A = spec.Member("a", "10.0.0.1")
B = spec.Member("b.2", "10.0.0.2", 3307)
SIX = spec.Member("six", "fd00::3")
HOST = haproxy_config.Host(("10.0.0.9",), 8010, 8011, 1000, 2, pathlib.Path("/var/lib/empty"))


def text(*members: spec.Member, host: haproxy_config.Host = HOST, health_port: int = 9200) -> str:
    return haproxy_config.render(host, members, health_port)[0]


def section(name: str, of: str) -> str:
    return re.search(rf"^{name}\n(.*?)(?=^\S|\Z)", of, re.MULTILINE | re.DOTALL)[1]  # type: ignore[index]


@pytest.mark.parametrize("members", [(), (A,), (A, B, SIX), tuple(spec.Member(f"n{at}", f"10.0.1.{at}") for at in range(1, 60))])
def test_haproxy_itself_finds_it_right(members: tuple[spec.Member, ...], tmp_path: pathlib.Path):
    host = dataclasses.replace(HOST, addresses=("127.64.255.1", "::1"), log_all=len(members) == 1)
    (tmp_path / "c.cfg").write_text(text(*members, host=host))
    (tmp_path / haproxy_config.STATE_FILE).write_text(haproxy_config.state(members, 9200))
    done = subprocess.run(["/usr/sbin/haproxy", "-c", "-f", "c.cfg"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "missing" not in done.stderr
    assert "ignored" not in done.stderr


def test_the_first_writes_and_the_others_wait():
    rw = section("listen rw", text(B, A))
    assert "server b.2 10.0.0.2:3307 id 1 check\n" in rw
    assert "server a 10.0.0.1:3306 id 2 check backup\n" in rw
    assert rw.index("server b.2:last") > rw.index("server a ")
    ro = section("listen ro", text(B, A))
    assert "check backup" not in ro
    assert "balance leastconn" in ro


def test_addresses_of_ipv6_are_in_brackets():
    shown = text(SIX, host=dataclasses.replace(HOST, addresses=("fd00::9",)))
    assert "bind [fd00::9]:8010 " in shown
    assert "server six [fd00::3]:3306 " in shown


def test_the_proof_is_of_everything():
    proofs = {
        haproxy_config.render(HOST, (A, B), 9200)[1],
        haproxy_config.render(HOST, (B, A), 9200)[1],
        haproxy_config.render(HOST, (A,), 9200)[1],
        haproxy_config.render(HOST, (A, B), 9201)[1],
        haproxy_config.render(dataclasses.replace(HOST, log_all=True), (A, B), 9200)[1],
    }
    assert len(proofs) == 5
    shown, proof = haproxy_config.render(HOST, (A, B), 9200)
    assert f'description "{proof}"' in shown


def test_a_name_that_is_more_than_a_name_is_refused():
    with pytest.raises(errors.InvalidArgument):
        text(host=dataclasses.replace(HOST, user="root\n    stats socket /tmp/x", group="root"))


def test_only_errors_are_logged_unless_asked():
    assert "option dontlog-normal" in text(A)
    assert "option dontlog-normal" not in text(A, host=dataclasses.replace(HOST, log_all=True))


# States


def test_who_is_not_known_is_down():
    rows = [line.split() for line in haproxy_config.state((A, SIX), 9200).splitlines()[2:]]
    assert [(row[1], row[3], row[5], row[6]) for row in rows] == [
        (backend, name, "0", "0") for backend in ("rw", "ro", "any") for name in ("a", "six")
    ]


def test_states_are_taken_over_by_name_and_address():
    before = haproxy_config.state((A, B, SIX), 9200).replace(" 0 0 1 1 0 1 0 0 ", " 2 0 1 1 77 15 3 2 ")
    known = haproxy_config.parse_state(before)
    assert {(one.backend, one.name, one.address) for one in known} >= {("rw", "six", "[fd00::3]:3306"), ("any", "b.2", "10.0.0.2:3307")}
    moved = spec.Member("a", "10.0.0.99")
    rows = [line.split() for line in haproxy_config.state((SIX, B, moved), 9200, known, drained={"b.2"}).splitlines()[2:]]
    of_rw = {row[3]: row for row in rows if row[1] == "rw"}
    assert [(of_rw[name][5], of_rw[name][6]) for name in ("six", "b.2", "a")] == [("2", "0"), ("2", "8"), ("0", "0")]
    assert of_rw["six"][2] == "1", "numbers are those of the new configuration"


def test_what_is_said_of_members_is_understood():
    states = {
        "UP": "up",
        "UP 1/2": "up",
        "DOWN": "down",
        "DOWN 1/2": "down",
        "NOLB": "out",
        "DRAIN": "drained",
        "MAINT": "down",
        "": "down",
    }
    for said, meant in states.items():
        assert haproxy.Row("rw", "a", {"status": said}).state == meant
    assert haproxy.Row("rw", "a", {"scur": "7", "smax": ""}).number("scur") == 7
    assert haproxy.Row("rw", "a", {"smax": ""}).number("smax") == haproxy.Row("rw", "a", {}).number("x") == 0


# Classic addresses, the writer


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("10.0.0.1", spec.Member("node-10.0.0.1", "10.0.0.1")),
        ("10.0.0.1:3306", spec.Member("node-10.0.0.1", "10.0.0.1")),
        ("10.0.0.1:3307", spec.Member("node-10.0.0.1-3307", "10.0.0.1", 3307)),
        ("fd00::1", spec.Member("node-fd00--1", "fd00::1")),
        ("[fd00::1]", spec.Member("node-fd00--1", "fd00::1")),
        ("[fd00::1]:3307", spec.Member("node-fd00--1-3307", "fd00::1", 3307)),
    ],
)
def test_classic_addresses(said: str, meant: spec.Member):
    assert balancer.member_at(said) == meant


@pytest.mark.parametrize(
    "said", ["", "db.example.org", "10.0.0.1:", "10.0.0.1:x", "10.0.0.1:0", "10.0.0.1:99999", "10.0.0.1 x", "[fd00::1]x"]
)
def test_other_things_are_no_addresses(said: str):
    with pytest.raises(errors.InvalidArgument):
        balancer.member_at(said)


def test_the_writer_is_a_member():
    with pytest.raises(errors.InvalidArgument, match="The writer c is not among the members"):
        spec.BalancerConfig(1, (A, B), writer="c")
    assert spec.BalancerConfig.from_dict(spec.BalancerConfig(1, (A, B), writer="a").to_dict()).writer == "a"
