"""The whole session of ConPaaS 2's command line, replayed as it sends it, against a real platform; each field that it reads is looked at.

The web front-end's is in `test_classic_frontend`.
"""

from __future__ import annotations

import contextlib
import io
import pathlib
import tarfile
import urllib.request
import zipfile
from collections.abc import Iterator
from typing import Any

import pymysql
import pytest

from tests.support import classic, wire
from tests.support import platform as platforms

pytestmark = pytest.mark.usefixtures("platform")

SCRIPTS = ("init.sh", "notify.sh", "run.sh", "interrupt.sh", "cleanup.sh")
APPLICATION_FIELDS = {"aid", "name", "manager", "cloud", "status", "uid"}
STARTUP = b"#!/bin/bash\necho started by hand > $VM_ROOT/root/by-hand\n"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[platforms.Platform]:
    with platforms.platform(tmp_path_factory.mktemp("classic"), 91) as made:
        yield made


@pytest.fixture
def client(platform: platforms.Platform, tmp_path: pathlib.Path) -> classic.PythonClient:
    made = classic.PythonClient((f"127.{platform.net}.255.1", 5555), wire.context(None), "alice")
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

    def __init__(self, client: classic.PythonClient, name: str) -> None:
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
        path = f"/startapp/{self.aid}"
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
        counts = {"count": 1}
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
        assert self.zero("remove_nodes", service_id=self.sid, nodes={"count": 1})["state"] in ("ADAPTING", "RUNNING")
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


def test_a_classic_client_goes_through_its_whole_session(platform: platforms.Platform, client: classic.PythonClient) -> None:
    assert client.director("/available_clouds", post=False)[0] == "default"
    assert {"generic", "helloworld"} <= set(client.director("/available_services", post=False))
    credit = client.director("/user_credit", post=False)
    session = Session(client, "walk")
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


ACTIVE = "Invalid arguments (Cannot remove the active code version)"
FIGURES = ("request_rate", "error_rate", "throughput", "response_time")
PHP_SETTINGS = {  # what the front-end's form sends: six settings, all as text
    "max_execution_time": "60",
    "memory_limit": "256M",
    "upload_max_filesize": "8M",
    "post_max_size": "16M",
    "disable_functions": "pcntl_fork, pcntl_exec",
    "display_errors": "On",
}
SITE_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAcrNzPLUAoqXbWnMXtEL4Cy2hSUDCZEFEZ2OZVaMcnr alice@example.org"


class WebSession(Session):
    """The way of a site in PHP or Java."""

    def __init__(self, client: classic.PythonClient, name: str, kind: str) -> None:
        super().__init__(client, name)
        self.kind = kind

    def ask(self, method: str, **params: Any) -> Any:
        """A GET of the service's own manager."""
        return self.client.get(self.manager, self.sid, method, params or None)

    def tell(self, method: str, **params: Any) -> Any:
        """A POST to the service's own manager."""
        return self.client.post(self.manager, self.sid, method, params)

    def refused(self, text: str, method: str, **params: Any) -> None:
        with pytest.raises(classic.ClassicError) as caught:
            self.tell(method, **params)
        assert text in str(caught.value)  # D13: never blank

    def state(self) -> str:
        info = self.ask("get_service_info")
        assert info["type"] == self.kind.upper()
        return str(info["state"])

    def enable(self, version: str) -> None:
        self.tell(f"update_{self.kind}_configuration", codeVersionId=version)
        self.settle()
        assert [key for key, value in self.versions().items() if "current" in value] == [version]
        assert self.ask("get_configuration")["codeVersionId"] == version

    def site(self) -> bytes:
        """What a visitor gets at the first proxy, as the front-end's link leads there."""
        node = self.ask("get_node_info", serviceNodeId=self.nodes()["proxy"][0])["serviceNode"]
        with urllib.request.urlopen(f"http://{node['ip']}/", timeout=10) as answer:
            return bytes(answer.read())

    def added(self) -> None:
        self.sid = self.client.director(f"/add/{self.kind}", {"appid": self.aid})["service"]["sid"]
        assert self.state() == "INIT"
        assert self.nodes() == {}, "classic clients take anything else for a service that runs"
        assert list(self.versions()) == ["code-default"]
        assert self.versions()["code-default"]["description"] == "Initial version"
        if self.kind == "php":
            told = self.ask("get_configuration")
            assert (told["codeVersionId"], told["cdn"], told["autoscaling"]) == ("code-default", False, False)
            assert sorted(told["phpconf"]) == sorted([*PHP_SETTINGS, "log_errors"])
            assert all(isinstance(value, str) for value in told["phpconf"].values())

    def started(self) -> None:
        assert self.zero("start_service", service_id=self.sid, cloud="default")["state"] in ("PROLOGUE", "RUNNING")
        self.settle()
        (one,) = set(self.every_node())
        assert self.nodes() == {"proxy": [one], "web": [one], "backend": [one]}
        node = self.ask("get_node_info", serviceNodeId=one)["serviceNode"]
        wanted = {"id": one, "cloud": "iaas", "role": "proxybackendweb", "weightWeb": 100, "weightBackend": 100}
        assert node.items() >= {**wanted, **dict.fromkeys(("isRunningProxy", "isRunningWeb", "isRunningBackend"), True)}.items()
        assert one == f"{node['cloud']}{node['vmid']}"
        assert all({"filename", "description", "path"} <= entry.keys() for entry in node["logs"])
        backend = ["fpm-access.log", "fpm-error.log"] if self.kind == "php" else ["access_log.txt", "catalina.out"]
        names = [entry["filename"] for entry in node["logs"]]
        nginx = [f"nginx-{server}-{what}.log" for server in ("proxy", "static") for what in ("access", "error")]
        assert [name for name in names if name in ("cpsagent.log", *nginx, *backend)] == ["cpsagent.log", *nginx, *backend]
        assert b"Welcome to ConPaaS!" in self.site()

    def code(self) -> None:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as packed:
            packed.writestr("index.html", f"page of {self.name}")
        with pytest.raises(classic.ClassicError, match=r"^Invalid arguments \(Invalid archive format\)"):
            self.client.upload(self.manager, self.sid, "upload_code_version", {"description": ""}, {"code": ("x.zip", b"no archive")})
        files = {"code": ("C:\\fakepath\\site.zip", content.getvalue())}
        version = self.client.upload(self.manager, self.sid, "upload_code_version", {"description": "mine"}, files)["codeVersionId"]
        assert next(iter(self.versions())) == version, "newest first"
        assert self.versions()[version].items() >= {"filename": "site.zip", "description": "mine"}.items()
        self.enable(version)
        assert self.site() == f"page of {self.name}".encode()
        assert self.ask("download_code_version") == content.getvalue(), "the active one unless told otherwise"
        assert self.ask("download_code_version", codeVersionId="code-default")
        with pytest.raises(classic.ClassicError, match=r"^Invalid arguments \(Invalid codeVersionId\)"):
            self.ask("download_code_version", codeVersionId="code-nothing")
        self.refused(ACTIVE, "delete_code_version", codeVersionId=version)
        self.refused("code-nothing", f"update_{self.kind}_configuration", codeVersionId="code-nothing")
        self.enable("code-default")
        self.tell("delete_code_version", codeVersionId=version)
        assert list(self.versions()) == ["code-default"]

    def settings(self) -> None:
        if self.kind == "java":
            assert self.ask("get_configuration")["codeVersionId"] == "code-default"
            self.refused("Missing the mandatory parameter 'codeVersionId'.", "update_java_configuration")
            return
        self.tell("update_php_configuration", phpconf=PHP_SETTINGS)
        self.settle()
        assert self.ask("get_configuration")["phpconf"].items() >= PHP_SETTINGS.items()
        nothing = 'Missing argument "at least one of "codeVersionId" or "phpconf""'
        self.refused(nothing, "update_php_configuration")
        self.refused('Unexpected arguments phpconf attribute "extension"', "update_php_configuration", phpconf={"extension": "x.so"})
        for name, value in (("memory_limit", "-1"), ("display_errors", "Only"), ("disable_functions", "")):
            self.refused("Invalid arguments", "update_php_configuration", phpconf={"max_execution_time": "5", name: value})
        self.refused("Unexpected parameters: ", "update_php_configuration", nonsense="x")
        assert self.ask("get_configuration")["phpconf"].items() >= PHP_SETTINGS.items()
        assert self.tell("cdn_enable", enable=False, address="")["cdn"] is False

    def keys(self) -> None:
        assert self.ask("list_authorized_keys")["authorizedKeys"] == []
        outcome = self.client.upload(self.manager, self.sid, "upload_authorized_key", {}, {"key": ("id.pub", f"{SITE_KEY}\n".encode())})
        assert outcome["outcome"] == "1 keys added to authorized_keys"
        assert [" ".join(key.split()[:2]) for key in self.ask("list_authorized_keys")["authorizedKeys"]] == [" ".join(SITE_KEY.split()[:2])]

    def grows(self) -> None:
        (first,) = set(self.every_node())
        for wrong, text in (
            ({"proxy": 1}, "Cannot add more proxy servers without at least one stand-alone 'web' node and one stand-alone 'backend' node"),
            ({"proxyweb": 1}, "Wrong node type 'proxyweb' for service type 'web'"),
            ({"proxy": 0, "web": 0, "backend": 0}, "Need a positive value for at least one role"),
        ):
            with pytest.raises(classic.ClassicError) as caught:
                self.zero("add_nodes", service_id=self.sid, nodes=wrong, cloud="default")
            assert text in str(caught.value)
        assert self.zero("add_nodes", service_id=self.sid, nodes={"count": 1}, cloud="default")["state"] in ("ADAPTING", "RUNNING")
        self.settle()
        (second,) = self.nodes()["backend"]
        assert self.nodes() == {"proxy": [first], "web": [first], "backend": [second]}
        told = {one: self.ask("get_node_info", serviceNodeId=one)["serviceNode"]["role"] for one in (first, second)}
        assert told == {first: "proxyweb", second: "backend"}
        assert self.site()
        self.tell("update_nodes_weight", web={}, backend={second: 300})
        self.settle()
        self.tell("update_nodes_weight", backend={second: "200"})
        self.settle()
        assert self.ask("get_node_info", serviceNodeId=second)["serviceNode"]["weightBackend"] == 200
        self.refused("Invalid arguments (The web node ID does not exist)", "update_nodes_weight", web={second: 1}, backend={})
        plan = [{"from_cloud": "default", "vmid": "0", "to_cloud": "default"}]
        self.refused("Unknown node from cloud default with VM identifier 0", "migrate_nodes", migration_plan=plan, delay=0)

    def watched(self) -> None:
        figures = self.ask("get_service_performance")
        assert all(isinstance(figures[name], int | float) for name in FIGURES)
        self.logs()
        assert [key for key in self.ask("get_service_history")["state_log"][0]] == ["time", "state", "reason"]

    def shrinks(self) -> None:
        (first,) = self.nodes()["proxy"]
        for wrong, role in (({"proxy": 1}, "proxy"), ({"web": 1}, "web"), ({"backend": 2}, "backend")):
            with pytest.raises(classic.ClassicError, match=f"Not enough '{role}' nodes will be left"):
                self.zero("remove_nodes", service_id=self.sid, nodes=wrong)
        assert self.zero("remove_nodes", service_id=self.sid, nodes={"backend": 1})["state"] in ("ADAPTING", "RUNNING")
        self.settle()
        assert self.nodes() == {"proxy": [first], "web": [first], "backend": [first]}
        assert b"Welcome to ConPaaS!" in self.site()


@pytest.mark.parametrize("kind", ["php", "java"])
def test_a_classic_client_runs_a_site(platform: platforms.Platform, client: classic.PythonClient, kind: str) -> None:
    session = WebSession(client, f"{kind} site", kind)
    session.application()
    session.added()
    session.startup_script()
    session.started()
    session.code()
    session.settings()
    session.keys()
    session.grows()
    session.watched()
    session.shrinks()
    session.end()
    assert platform.vms() == []


MYSQL_DUMP = (
    "CREATE DATABASE blog; USE blog;\nCREATE TABLE posts (id INT PRIMARY KEY, text VARCHAR(20));\nINSERT INTO posts VALUES (1, 'moin');\n"
)
LOADS = ("loads", "selects", "inserts", "deletes", "updates")
MEANS = ("meanLoad", "meanSelect", "meanInsert", "meanDelete", "meanUpdate")


class DatabaseSession(WebSession):
    """The way of a MySQL service."""

    def state(self) -> str:
        info = self.ask("get_service_info")
        assert info["type"] == "mysql"
        return str(info["state"])

    def query(self, statement: str, password: str = "classic words") -> list[tuple[Any, ...]]:
        """As the front-end tells users to connect: to port 8010 of the first load balancer, or to 3306 of the first member."""
        role, port = ("glb", 8010) if self.nodes()["glb"] else ("mysql", 3306)
        node = self.ask("get_node_info", serviceNodeId=self.nodes()[role][0])["serviceNode"]
        login = {"host": node["ip"], "port": port, "user": "mysqldb", "password": password.encode()}
        with contextlib.closing(pymysql.connect(**login)) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def added(self) -> None:
        self.sid = self.client.director("/add/mysql", {"appid": self.aid})["service"]["sid"]
        assert self.state() == "INIT"
        assert self.nodes() == {}

    def started(self) -> None:
        assert self.zero("start_service", service_id=self.sid, cloud="default")["state"] in ("PROLOGUE", "RUNNING")
        self.settle()
        (one,) = self.every_node()
        assert self.nodes() == {"mysql": [one], "glb": []}
        node = self.ask("get_node_info", serviceNodeId=one)["serviceNode"]
        assert node.items() >= {"id": one, "cloud": "iaas", "role": "mysql", "isNode": True, "isGlb_node": False}.items()
        assert one == f"{node['cloud']}{node['vmid']}"
        assert {"cpsagent.log", "mysql.log"} <= {entry["filename"] for entry in node["logs"]}

    def password(self) -> None:
        self.refused("Password too short", "set_password", user="mysqldb", password="short")
        self.refused("Failed to set new password: ", "set_password", user="nobody", password="classic words")
        self.tell("set_password", user="mysqldb", password="classic words")
        assert self.query("SELECT 1") == [(1,)]

    def dumps(self) -> None:
        name = "C:\\fakepath\\blog.sql"
        self.client.upload(self.manager, self.sid, "load_dump", {}, {"mysqldump_file": (name, MYSQL_DUMP.encode())})
        assert self.query("SELECT text FROM blog.posts") == [("moin",)]
        with pytest.raises(classic.ClassicError, match=r"^Could not upload mysqldump_file: "):
            self.client.upload(self.manager, self.sid, "load_dump", {}, {"mysqldump_file": (name, b"nonsense;")})
        dump = self.ask("sqldump")
        assert "CREATE TABLE `posts`" in dump and "moin" in dump

    def grows(self) -> None:
        wanted = {"count": 1, "glb": 1}
        with pytest.raises(classic.ClassicError, match="Wrong node type 'backend' for service type 'mysql'"):
            self.zero("add_nodes", service_id=self.sid, nodes={"backend": 1}, cloud="default")
        assert self.zero("add_nodes", service_id=self.sid, nodes=wanted, cloud="default")["state"] in ("ADAPTING", "RUNNING")
        self.settle()
        assert {role: len(ids) for role, ids in self.nodes().items()} == {"mysql": 2, "glb": 1}
        node = self.ask("get_node_info", serviceNodeId=self.nodes()["glb"][0])["serviceNode"]
        assert node.items() >= {"role": "glb", "isNode": False, "isGlb_node": True}.items()
        assert self.query("SELECT text FROM blog.posts") == [("moin",)]

    def watched(self) -> None:
        figures = self.ask("getMeanLoad")
        assert all(len(figures[name]) == 2 and all(isinstance(one, str) for one in figures[name]) for name in LOADS)
        assert all(isinstance(figures[name], float) for name in MEANS)
        assert all(isinstance(self.ask("get_service_performance")[name], int | float) for name in FIGURES)
        assert self.ask("setMySqlParams", variable="max_connections", value="200")
        self.settle()
        self.logs()

    def shrinks(self) -> None:
        with pytest.raises(classic.ClassicError, match="Requesting to delete 2 mysql nodes while only 1 can be removed"):
            self.zero("remove_nodes", service_id=self.sid, nodes={"mysql": 2})
        assert self.zero("remove_nodes", service_id=self.sid, nodes={"mysql": 1, "glb": 1})["state"] in ("ADAPTING", "RUNNING")
        self.settle()
        assert {role: len(ids) for role, ids in self.nodes().items()} == {"mysql": 1, "glb": 0}
        assert self.query("SELECT text FROM blog.posts") == [("moin",)]


def test_a_classic_client_runs_a_database(platform: platforms.Platform, client: classic.PythonClient) -> None:
    session = DatabaseSession(client, "database", "mysql")
    session.application()
    session.added()
    session.startup_script()
    session.started()
    session.password()
    session.dumps()
    session.grows()
    session.watched()
    session.shrinks()
    session.end()
    assert platform.vms() == []


def test_the_command_line_signs_in_wrongly(platform: platforms.Platform) -> None:
    client = classic.PythonClient((f"127.{platform.net}.255.1", 5555), wire.context(None), "alice")
    with pytest.raises(classic.ClassicError, match="User authentication failed"):
        client.director("/getcerts", {"username": "alice", "password": "wrong"})
