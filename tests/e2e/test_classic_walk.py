"""The whole session of ConPaaS 2's clients, replayed as they send it, against a real platform; each field that they read is looked at."""

from __future__ import annotations

import io
import pathlib
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import classic, wire
from tests.support import platform as platforms

pytestmark = pytest.mark.usefixtures("platform")

SCRIPTS = ("init.sh", "notify.sh", "run.sh", "interrupt.sh", "cleanup.sh")
APPLICATION_FIELDS = {"aid", "name", "manager", "cloud", "status", "uid"}
STARTUP = b"#!/bin/bash\necho started by hand > $VM_ROOT/root/by-hand\n"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[platforms.Platform]:
    with platforms.platform(tmp_path_factory.mktemp("classic"), 91, director={"TRUST_FRONTEND": "yes"}) as made:
        yield made


@pytest.fixture(params=["python", "php"])
def client(platform: platforms.Platform, request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> classic.Client:
    address = (f"127.{platform.net}.255.1", 5555)
    made: classic.Client
    if request.param == "python":
        made = classic.PythonClient(address, wire.context(None), "alice")
    else:
        made = classic.PhpClient(address, wire.of_directory(platform.state / "certs"), "alice")
    made.sign_in(platform.passwords["alice"], tmp_path / "certs")
    return made


def archive(message: str) -> bytes:
    """A code version whose run.sh leaves a message."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name in SCRIPTS:
            text = f"#!/bin/bash\necho {message} {name} $1\n".encode()
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(text), 0o755
            tar.addfile(member, io.BytesIO(text))
    return packed.getvalue()


class Session:
    """One application on its way through a classic client; each method is one part of the documented session."""

    def __init__(self, client: classic.Client, name: str) -> None:
        self.client = client
        self.name = name
        self.aid = 0
        self.sid = 0
        self.manager = ""

    def listed(self) -> dict[str, Any]:
        found: list[dict[str, Any]] = self.client.director("/listapp", post=False)
        return next(one for one in found if one["name"] == self.name)

    def state(self) -> str:
        info = self.client.get(self.manager, self.sid, "get_service_info")
        assert info["type"] == "generic"
        return str(info["state"])

    def settle(self, state: str = "RUNNING") -> None:
        """Poll as these clients do, and as they do give up on ERROR."""
        reached = platforms.until(lambda: (now := self.state()) in (state, "ERROR") and now, f"the service is {state}")
        assert reached == state

    def nodes(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = self.client.get(self.manager, self.sid, "list_nodes")
        return found

    def every_node(self) -> list[str]:
        return [one for ids in self.nodes().values() for one in ids]

    def zero(self, method: str, **params: Any) -> Any:
        """A POST to the application manager."""
        return self.client.post(self.manager, 0, method, params)

    def application(self) -> None:
        created = self.client.director("/createapp", {"name": self.name})
        assert created["name"] == self.name
        self.aid = created["aid"]
        assert self.listed().keys() >= APPLICATION_FIELDS
        assert (self.listed()["manager"], self.listed()["status"]) == (None, "INIT")
        path = f"/startapp/{self.aid}" if isinstance(self.client, classic.PythonClient) else f"/startapp/{self.aid}/default"
        assert self.client.director(path) == {}
        with pytest.raises(classic.ClassicError, match="Application already started"):
            self.client.director(path)
        platforms.until(lambda: self.listed()["status"] in ("RUNNING", "ERROR"), "the application has started")
        assert self.listed()["status"] == "RUNNING"
        self.manager = self.listed()["manager"]

    def service(self) -> None:
        with pytest.raises(classic.ClassicError, match="Unknown service type 'nonsense'"):
            self.client.director("/add/nonsense", {"appid": self.aid})
        self.sid = self.client.director("/add/generic", {"appid": self.aid})["service"]["sid"]
        for path in ("/list", f"/list/{self.aid}"):
            entry = next(one for one in self.client.director(path, post=False) if one["application"]["name"] == self.name)
            assert entry["service"].items() >= {"sid": self.sid, "type": "generic", "application_id": self.aid}.items()
            assert entry["service"]["name"]
        assert self.client.director("/rename", {"app_id": self.aid, "service_id": self.sid, "name": "worker"}) is True
        assert self.state() == "INIT"

    def start(self) -> None:
        reply = self.zero("start_service", service_id=self.sid, cloud="default")
        assert reply["state"] in ("PROLOGUE", "RUNNING")
        self.settle()
        assert list(self.nodes()) == ["master", "node"]
        (master,) = self.every_node()
        node = self.client.get(self.manager, self.sid, "get_node_info", {"serviceNodeId": master})["serviceNode"]
        assert (node["id"], node["cloud"], node["role"]) == (master, "iaas", "master")
        assert master == f"{node['cloud']}{node['vmid']}"
        assert all(entry["filename"] and entry["description"] for entry in node["logs"])
        with pytest.raises(classic.ClassicError, match="Wrong service state: was expecting one of"):
            self.zero("start_service", service_id=self.sid, cloud="default")

    def startup_script(self) -> None:
        with pytest.raises(classic.ClassicError, match="No startup script"):
            self.client.get(self.manager, 0, "get_startup_script", {"sid": self.sid})
        files = {"script": ("/home/alice/startup.sh", STARTUP)}
        assert self.client.upload(self.manager, 0, "upload_startup_script", {"sid": str(self.sid)}, files)["filename"]
        assert self.client.get(self.manager, 0, "get_startup_script", {"sid": self.sid}) == STARTUP.decode()

    def more_nodes(self) -> None:
        counts = self.client.add_nodes_counts()
        reply = self.zero("add_nodes", service_id=self.sid, nodes=counts, cloud="default")
        assert reply["state"] in ("ADAPTING", "RUNNING")
        self.settle()
        assert len(self.nodes()["node"]) == 1
        with pytest.raises(classic.ClassicError, match="Need a positive value for at least one role"):
            self.zero("add_nodes", service_id=self.sid, nodes={"count": 0}, cloud="default")
        with pytest.raises(classic.ClassicError, match="Wrong node type 'backend' for service type 'generic'"):
            self.zero("add_nodes", service_id=self.sid, nodes={"backend": 1}, cloud="default")

    def versions(self) -> dict[str, dict[str, Any]]:
        found = self.client.get(self.manager, self.sid, "list_code_versions")["codeVersions"]
        assert all({"codeVersionId", "filename", "description", "time"} <= version.keys() for version in found)
        return {version["codeVersionId"]: version for version in found}

    def code(self) -> None:
        content = archive(self.name)
        files = {"code": ("/home/alice/v1.tar.gz", content)}
        version = self.client.upload(self.manager, self.sid, "upload_code_version", {"description": ""}, files)["codeVersionId"]
        assert version.startswith("code-")
        assert "current" not in self.versions()[version]
        assert self.versions()[version]["filename"] == "v1.tar.gz"
        self.client.post(self.manager, self.sid, "enable_code", {"codeVersionId": version})
        self.settle()
        assert [key for key, value in self.versions().items() if "current" in value] == [version]
        got = self.client.get(self.manager, self.sid, "download_code_version", {"codeVersionId": version})
        assert got == content
        self.client.post(self.manager, self.sid, "delete_code_version", {"codeVersionId": "code-default"})
        assert set(self.versions()) == {version}

    def script_status(self) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = self.client.get(self.manager, self.sid, "get_script_status")["agents"]
        assert sorted(found) == sorted(self.every_node())
        assert all(list(status) == list(SCRIPTS) for status in found.values())
        return found

    def scripts(self) -> None:
        assert {status["run.sh"] for status in self.script_status().values()} == {"NEVER STARTED"}
        reply = self.client.post(self.manager, self.sid, "execute_script", {"command": "run", "parameters": "one 'two three'"})
        assert reply["state"] in ("RUNNING", "ADAPTING")
        ended = "STOPPED (return code 0)"
        platforms.until(lambda: {status["run.sh"] for status in self.script_status().values()} == {ended}, "run.sh ended everywhere")

    def volumes(self) -> None:
        agent = self.every_node()[0]
        reply = self.zero("create_volume", volumeName="data", volumeSize=8, agentId=agent)
        assert reply["service_id"] == self.sid
        self.settle()
        (volume,) = self.zero("list_volumes", service_id=self.sid)["volumes"]
        wanted = {"vol_name": "data", "vol_size": 8, "vm_id": agent, "cloud": "iaas", "service_id": self.sid}
        assert volume.items() >= wanted.items()
        info = self.client.get(self.manager, 0, "get_app_info")
        assert info["volumes"] == ["data"]
        assert sorted(info["nodes"]) == sorted(self.every_node())
        assert info["states"].keys() == {"0", str(self.sid)}
        assert self.zero("delete_volume", volumeName="data")["service_id"] == self.sid
        self.settle()
        assert self.zero("list_volumes", service_id=self.sid)["volumes"] == []

    def logs(self) -> None:
        for sid in (0, self.sid):
            assert self.client.get(self.manager, sid, "get_manager_log")["log"]
        for agent in self.every_node():
            assert self.client.get(self.manager, self.sid, "get_agent_log", {"agentId": agent})["log"]
            node = self.client.get(self.manager, self.sid, "get_node_info", {"serviceNodeId": agent})["serviceNode"]
            for entry in node["logs"]:
                asked = {"agentId": agent, "filename": entry["filename"]}
                assert "log" in self.client.get(self.manager, self.sid, "get_agent_log", asked)
        history = self.client.get(self.manager, self.sid, "get_service_history")["state_log"]
        assert all(entry["state"] and entry["time"] > 1e9 and "reason" in entry for entry in history)
        assert [entry["state"] for entry in history][:3] == ["INIT", "PROLOGUE", "RUNNING"]

    def resources(self) -> None:
        found = [one for one in self.client.director("/list_resources") if one["app_id"] == self.aid]
        assert len(found) == 1 + len(self.every_node())
        assert all({"rid", "app_id", "vmid", "ip", "role", "cloud"} <= resource.keys() for resource in found)
        assert {resource["cloud"] for resource in found} == {"default"}

    def fewer_nodes(self) -> None:
        assert self.zero("remove_nodes", service_id=self.sid, nodes=self.client.add_nodes_counts())["state"] in ("ADAPTING", "RUNNING")
        self.settle()
        assert len(self.every_node()) == 1

    def end(self) -> None:
        assert self.zero("stop_service", service_id=self.sid)["state"] in ("EPILOGUE", "STOPPED")
        self.settle("STOPPED")
        assert self.nodes() == {}
        self.client.director("/remove", {"app_id": self.aid, "service_id": self.sid})
        assert self.client.director(f"/list/{self.aid}", post=False) == []
        self.client.director(f"/stopapp/{self.aid}")
        assert (self.listed()["status"], self.listed()["manager"]) == ("STOPPED", None)
        self.client.director(f"/deleteapp/{self.aid}")
        assert self.name not in [one["name"] for one in self.client.director("/listapp", post=False)]


def test_a_classic_client_goes_through_its_whole_session(platform: platforms.Platform, client: classic.Client) -> None:
    assert client.director("/available_clouds", post=False)[0] == "default"
    assert {"generic", "helloworld"} <= set(client.director("/available_services", post=False))
    credit = client.director("/user_credit", post=False)
    session = Session(client, f"walk of {type(client).__name__}")
    session.application()
    session.service()
    session.start()
    session.startup_script()
    session.more_nodes()
    session.code()
    session.scripts()
    session.volumes()
    session.logs()
    session.resources()
    session.fewer_nodes()
    session.end()
    assert client.director("/user_credit", post=False) == credit - 3
    assert platform.vms() == []


def test_the_front_end_opens_its_pages(platform: platforms.Platform) -> None:
    """What the front-end fetches with its own certificate, before anybody has signed in."""
    client = classic.PhpClient((f"127.{platform.net}.255.1", 5555), wire.of_directory(platform.state / "certs"), "alice")

    def page(path: str) -> str:
        request = classic.head(f"GET {path} HTTP/1.1", f"Host: 127.{platform.net}.255.1:5555", "Accept: */*")
        with wire.connect(client.director_address, client.frontend) as connection:
            connection.sendall(request)
            reply = wire.read_reply(connection)
        assert reply.status == 200
        return reply.text

    assert page("/version")[0].isdigit()
    assert page("/support_external_idp") == page("/support_openid") == "False"
    assert {page(f"/debug_level/{kind}").isdigit() for kind in ("js", "ajax", "php", "python")} == {True}
    user = client.director("/login", {"username": "alice", "password": platform.passwords["alice"]})
    assert {"uid", "username", "fname", "lname", "email", "affiliation", "password", "credit", "created"} <= user.keys()
    assert client.director("/login", {"username": "alice", "password": "wrong"}) is False


def test_the_command_line_signs_in_wrongly(platform: platforms.Platform) -> None:
    client = classic.PythonClient((f"127.{platform.net}.255.1", 5555), wire.context(None), "alice")
    with pytest.raises(classic.ClassicError, match="User authentication failed"):
        client.director("/getcerts", {"username": "alice", "password": "wrong"})
