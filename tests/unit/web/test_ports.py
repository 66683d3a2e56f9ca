"""Which port a daemon gets, and who serves."""

from __future__ import annotations

import os
import pathlib
import socket

import pytest

from conpaas.core import config, errors, file, paths
from conpaas.services.webservers.agent import ports, web_user

ADDRESS = "127.61.251.1"


@pytest.fixture
def notes(tmp_path: pathlib.Path) -> file.Notes:
    return file.Notes(tmp_path / "notes.json")


@pytest.mark.parametrize(
    ("address", "private", "wanted"),
    [
        (ADDRESS, "127.61.251.2", ADDRESS),
        ("192.0.2.7", "127.61.251.2", "127.61.251.2"),  # a router before the machine has the address that the world knows
        ("192.0.2.7", "", None),
    ],
)
def test_inner_daemons_listen_on_one_address_of_this_machine(address: str, private: str, wanted: str | None):  # D4
    found = ports.inner_address(address, config.Config({"agent": {"MY_IP": address, "PRIVATE_IP": private}}))
    assert found == wanted or (wanted is None and found not in ("0.0.0.0", "::"))


def test_the_wanted_port_if_it_is_free(notes: file.Notes):
    assert ports.Ports(notes, shared=True).choose("proxy", 8090, ADDRESS) == 8090


def test_the_next_free_one_on_a_shared_machine_and_it_stays(notes: file.Notes, tmp_path: pathlib.Path):
    with socket.create_server((ADDRESS, 8090)), socket.create_server((ADDRESS, 8091)):
        assert ports.Ports(notes, shared=True).choose("proxy", 8090, ADDRESS) == 8092
    assert ports.Ports(file.Notes(tmp_path / "notes.json"), shared=True).choose("proxy", 8090, ADDRESS) == 8092
    assert ports.Ports(notes, shared=True).choose("web", 8090, ADDRESS) == 8090, "each daemon has its own"


def test_a_remembered_port_that_others_took_is_replaced_and_its_own_is_not(notes: file.Notes):
    chooser = ports.Ports(notes, shared=True)
    with socket.create_server((ADDRESS, 8090)):
        assert chooser.choose("proxy", 8090, ADDRESS, held=[8090]) == 8090
        assert chooser.choose("proxy", 8090, ADDRESS) == 8091
    assert chooser.choose("proxy_tls", 8091, ADDRESS, taken=8091) == 8092


def test_on_a_machine_of_its_own_another_port_is_no_way_out(notes: file.Notes):
    chooser = ports.Ports(notes, shared=False)
    assert chooser.choose("proxy", 8090, ADDRESS) == 8090
    with socket.create_server((ADDRESS, 8090)), pytest.raises(errors.OperationFailed, match=r"8090 .* Address already in use") as caught:
        chooser.choose("proxy", 8090, ADDRESS)
    assert caught.value.hint


def test_addresses_of_this_machine_are_known():
    assert ports.is_local(ADDRESS)
    assert not ports.is_local("192.0.2.1")


def test_the_root_directory_tells_whether_the_machine_is_shared(tmp_path: pathlib.Path):
    assert ports.is_shared(paths.Paths.under(tmp_path))
    assert not ports.is_shared(paths.Paths.under(pathlib.Path("/")))


def test_who_serves_depends_on_who_may_reach_the_files(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    settings = config.Config({"agent": {}, "web": {"WEB_USER": "www-data"}})
    closed, reached = paths.Paths.under(tmp_path / "closed"), paths.Paths.under(pathlib.Path("/"))
    closed.create()
    (tmp_path / "closed").chmod(0o700)
    if os.geteuid() == 0:
        assert web_user.choose(closed, settings) is None
        assert web_user._why_not("www-data", pathlib.Path("/var")) == ""
        assert "there is no user nobody-here" in web_user._why_not("nobody-here", pathlib.Path("/var"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert web_user.choose(reached, settings) is None
