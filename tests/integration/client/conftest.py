"""A stub Director and a stub manager on real TLS, and a home directory for the command line."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flask
import pytest

from conpaas.core import errors, expose, params, rpc
from conpaas.core.https import identity, server, x509

ADDRESS = "127.17.3.1"
MANAGER_ADDRESS = "127.17.3.2"
UID, AID = 7, 1
PASSWORD = "secret word"


class Authority:
    """A CA, and directories with credentials that it signed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.key, self.certificate = x509.new_ca()
        self.pem = x509.certificate_pem(self.certificate)

    def issue(self, dn: dict[str, object], san: tuple[str, ...] = ()) -> dict[str, str]:
        key = x509.new_key()
        certificate = x509.issue(self.key, self.certificate, key.public_key(), dn, days=30, san=san)
        return {"cert.pem": certificate, "key.pem": x509.key_pem(key), "ca_cert.pem": self.pem}

    def credentials(self, name: str, dn: dict[str, object], san: tuple[str, ...] = ()) -> identity.Credentials:
        directory = self.root / name
        directory.mkdir()
        for file, text in self.issue(dn, san).items():
            (directory / file).write_text(text)
        return identity.Credentials.from_dir(directory)


@dataclasses.dataclass
class Record:
    """What the stub servers know and what was asked of them."""

    applications: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    services: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    states: dict[int, str] = dataclasses.field(default_factory=dict)
    nodes: dict[int, int] = dataclasses.field(default_factory=dict)
    requests: list[tuple[str, dict[str, Any]]] = dataclasses.field(default_factory=list)
    operations: dict[str, list[dict[str, Any]]] = dataclasses.field(default_factory=dict)
    codes: dict[str, tuple[str, bytes]] = dataclasses.field(default_factory=dict)
    current: str | None = None
    log: str = "line 1\nline 2\nline 3\n"
    garbage: str | None = None
    manager_port: int = 0
    script: dict[str, str] = dataclasses.field(default_factory=lambda: dict.fromkeys(SCRIPTS, "NEVER STARTED"))

    def named(self, method: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.requests if name == method]


SCRIPTS = ("init.sh", "notify.sh", "run.sh", "interrupt.sh", "cleanup.sh")


RESOURCE = {"rid": 1, "vmid": "vm-1", "app_id": AID, "ip": MANAGER_ADDRESS, "role": "manager", "cloud": "iaas"}


class StubDirector:
    """The endpoints that the client calls, with classic replies."""

    def __init__(self, record: Record, authority: Authority) -> None:
        self.record, self.authority = record, authority
        self.app = flask.Flask("stub")
        self.app.add_url_rule("/<path:path>", view_func=self.answer, methods=["GET", "POST"])
        self.anybody: dict[str, Callable[[dict[str, Any]], Any]] = {
            "ca.pem": lambda _: flask.Response(authority.pem, content_type="application/x-pem-file"),
            "getcerts": self.getcerts,
            "new_user": lambda fields: {"username": fields["username"], "password": ""},
            "version": lambda _: flask.Response("3.0.0"),
            "available_clouds": lambda _: ["default", "ec2"],
            "available_services": lambda _: ["helloworld", "generic"],
        }
        self.user: dict[str, Callable[..., Any]] = {
            "listapp": lambda _: record.applications,
            "list": lambda _: [{"service": s, "application": record.applications[0]} for s in record.services],
            "list_resources": lambda _: [
                {"rid": 1, "vmid": "vm-1", "app_id": AID, "ip": MANAGER_ADDRESS, "role": "manager", "cloud": "iaas"}
            ],
            "user_config": lambda _: {"uid": UID, "username": "bob", "email": "bob@example.org", "credit": 50},
            "user_credit": lambda _: 50,
            "createapp": self.createapp,
            "startapp": self.startapp,
            "deleteapp": lambda _, aid: record.applications.pop(int(aid) - 1) and {},
            "add": self.add,
            "remove": lambda _: {},
            "rename": lambda _: {},
        }

    def answer(self, path: str) -> flask.Response:
        name, *rest = path.split("/")
        fields = dict(flask.request.values.items())
        self.record.requests.append((name, fields))
        try:
            if name in self.anybody:
                reply = self.anybody[name](fields)
            elif self._is_user():
                reply = self.user[name](fields, *rest)
            else:
                reply = False
        except errors.ConPaaSError as error:
            reply = {"error": str(error)}
        if isinstance(reply, flask.Response):
            return reply
        body = self.record.garbage if self.record.garbage is not None else json.dumps(reply)
        return flask.Response(body, content_type="application/json")

    @staticmethod
    def _is_user() -> bool:
        peer = flask.request.environ.get("conpaas.peer")
        return peer is not None and peer.role == "user" and peer.uid == UID

    def getcerts(self, fields: dict[str, Any]) -> Any:
        if fields.get("password") != PASSWORD:
            raise errors.Unauthenticated("User authentication failed")
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for name, text in self.authority.issue({"role": "user", "CN": "bob", "UID": UID}).items():
                archive.writestr(name, text)
        return flask.Response(packed.getvalue(), content_type="application/zip")

    def createapp(self, fields: dict[str, Any]) -> Any:
        if any(a["name"] == fields["name"] for a in self.record.applications):
            raise errors.InvalidArgument(f'Application name "{fields["name"]}" is already taken')
        self.record.applications.append(application(len(self.record.applications) + 1, fields["name"]))
        return self.record.applications[-1]

    def startapp(self, _: dict[str, Any], aid: str, cloud: str = "default") -> Any:
        running = {"status": "RUNNING", "manager": MANAGER_ADDRESS, "manager_port": self.record.manager_port, "cloud": "iaas"}
        self.record.applications[int(aid) - 1].update(running)
        return {}

    def add(self, _: dict[str, Any], service_type: str) -> Any:
        sid = len(self.record.services) + 1
        self.record.services.append({"sid": sid, "name": f"New {service_type} service", "type": service_type, "application_id": AID})
        self.record.states[sid] = "INIT"
        return {"service": self.record.services[-1], "application": self.record.applications[0]}


def application(aid: int, name: str) -> dict[str, Any]:
    return {"aid": aid, "name": name, "uid": UID, "status": "INIT", "manager": None, "vmid": None, "cloud": None}


Int, Text = params.Integer, params.Text


class StubApplicationManager:
    """Service 0: operations end at the second look."""

    def __init__(self, record: Record) -> None:
        self.record = record

    def _begin(self, kind: str, sid: int, state: str, **fields: Any) -> dict[str, Any]:
        self.record.requests.append((kind, {"service_id": sid, **fields}))
        number = f"op{len(self.record.requests)}"
        running = {"id": number, "kind": kind, "status": "RUNNING", "steps": [{"name": "create_nodes", "status": "running"}]}
        self.record.operations[number] = [running, {**running, "status": "DONE"}]
        self.record.states[sid] = state
        return {"state": "PROLOGUE", "operation": number, "service_id": sid}

    @expose.expose("GET")
    def get_app_info(self) -> Any:
        states = {"0": "RUNNING", **{str(sid): state for sid, state in self.record.states.items()}}
        return {"states": states, "nodes": ["iaasvm-1"], "volumes": []}

    @expose.expose("GET", params.Param("operationId", Text()))
    def get_operation(self, operation_id: str) -> Any:
        looks = self.record.operations[operation_id]
        return looks.pop(0) if len(looks) > 1 else looks[0]

    @expose.expose("POST", params.Param("service_id", Int()), params.Param("cloud", Text()))
    def start_service(self, service_id: int, cloud: str) -> Any:
        self.record.nodes[service_id] = 1
        return self._begin("start_service", service_id, "RUNNING", cloud=cloud)

    @expose.expose("POST", params.Param("service_id", Int()))
    def stop_service(self, service_id: int) -> Any:
        return self._begin("stop_service", service_id, "STOPPED")

    @expose.expose("POST", params.Param("service_id", Int()), params.Param("nodes", params.Mapping()), params.Param("cloud", Text()))
    def add_nodes(self, service_id: int, nodes: dict[str, int], cloud: str) -> Any:
        if self.record.states[service_id] != "RUNNING":
            raise errors.WrongState("Wrong service state: was expecting one of ['RUNNING'] but current state is 'INIT'")
        self.record.nodes[service_id] += sum(nodes.values())
        return self._begin("add_nodes", service_id, "RUNNING", nodes=nodes)

    @expose.expose("POST", params.Param("service_id", Int()), params.Param("nodes", params.Mapping()))
    def remove_nodes(self, service_id: int, nodes: dict[str, int]) -> Any:
        answer = self._begin("remove_nodes", service_id, "RUNNING", nodes=nodes)
        looks = self.record.operations[answer["operation"]]
        looks[-1].update(status="UNDONE", error="node iaasvm-1 would not go")
        return answer

    @expose.expose("POST", params.Param("volumeName", Text()), params.Param("volumeSize", Int()), params.Param("agentId", Text()))
    def create_volume(self, volume_name: str, volume_size: int, agent_id: str) -> Any:
        return {"service_id": 2}

    @expose.expose("POST", params.Param("service_id", Int(), 0))
    def list_volumes(self, service_id: int) -> Any:
        return {"volumes": [{"vol_name": "data", "vol_size": 64, "vm_id": "vm-1", "cloud": "iaas", "service_id": 2}]}

    @expose.expose("UPLOAD", params.Param("script", params.Upload()), params.Param("sid", Text()))
    def upload_startup_script(self, script: params.UploadedFile, sid: str) -> Any:
        with script.open() as file:
            self.record.requests.append(("upload_startup_script", {"sid": sid, "text": file.read()}))
        return {"filename": "/x"}

    @expose.expose("GET", params.Param("offset", Int(), 0), params.Param("limit", Int(), 1 << 20))
    def get_manager_log(self, offset: int, limit: int) -> Any:
        whole = self.record.log.encode()
        part = whole[offset : offset + limit]
        return {"log": part.decode(), "offset": offset + len(part), "size": len(whole)}


class StubServiceManager:
    """A service's own manager."""

    def __init__(self, record: Record, sid: int, service_type: str) -> None:
        self.record, self.sid, self.type = record, sid, service_type

    @expose.expose("GET")
    def get_service_info(self) -> Any:
        return {"state": self.record.states[self.sid], "type": self.type}

    @expose.expose("GET")
    def list_nodes(self) -> Any:
        return {"node": [f"iaasvm-{number + 1}" for number in range(self.record.nodes.get(self.sid, 0))]}

    @expose.expose("GET", params.Param("serviceNodeId", Text()))
    def get_node_info(self, service_node_id: str) -> Any:
        number = int(service_node_id.rpartition("-")[2])
        if number > 2:
            raise errors.NotFound("no such node")
        logs = [{"filename": "cpsagent.log", "description": "Agent log", "path": "/var/log/cpsagent.log"}]
        node = {"id": service_node_id, "ip": f"127.17.4.{number}", "vmid": f"vm-{number}", "cloud": "iaas", "role": "node", "logs": logs}
        return {"serviceNode": node}

    @expose.expose("GET")
    def get_service_history(self) -> Any:
        return {"state_log": [{"time": 0.0, "state": "INIT", "reason": ""}, {"time": 60.0, "state": "RUNNING", "reason": "started"}]}

    @expose.expose("GET")
    def get_helloworld(self) -> Any:
        return {"helloworld": "Received hello from iaasvm-1"}

    @expose.expose("GET")
    def list_code_versions(self) -> Any:
        versions = [{"codeVersionId": code, "filename": name, "description": ""} for code, (name, _) in self.record.codes.items()]
        for version in versions:
            if version["codeVersionId"] == self.record.current:
                version["current"] = True
        return {"codeVersions": versions}

    @expose.expose("UPLOAD", params.Param("code", params.Upload()), params.Param("description", Text(), ""))
    def upload_code_version(self, code: params.UploadedFile, description: str) -> Any:
        with code.open() as file:
            self.record.codes["code-abc123"] = (code.filename, file.read())
        return {"codeVersionId": "code-abc123"}

    @expose.expose("GET", params.Param("codeVersionId", Text(), ""))
    def download_code_version(self, code_version_id: str) -> Any:
        path = Path(os.environ["STUB_SCRATCH"]) / "code"
        path.write_bytes(self.record.codes[code_version_id][1])
        return rpc.FileDownload("../../../etc/evil name.zip", path)

    @expose.expose("POST", params.Param("codeVersionId", Text()))
    def enable_code(self, code_version_id: str) -> Any:
        self.record.current = code_version_id
        return {}

    @expose.expose("POST", params.Param("command", Text()), params.Param("parameters", Text(), ""))
    def execute_script(self, command: str, parameters: str) -> Any:
        self.record.script[f"{command}.sh"] = parameters or "STOPPED (return code 0)"
        return {"state": "RUNNING"}

    @expose.expose("GET")
    def get_script_status(self) -> Any:
        return {"agents": {"iaasvm-1": self.record.script}}


@dataclasses.dataclass
class Platform:
    """The stub servers of one test, and a way to run commands against them."""

    record: Record
    authority: Authority
    url: str
    home: Path

    def run(self, program: str, *args: str, given: str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a program in a process of its own, as a user would, in the home directory."""
        environment = {"HOME": str(self.home), "PATH": os.environ["PATH"], "COLUMNS": "200", "TZ": "UTC"} | variables
        name = program.removeprefix("cps-")
        code = f"from conpaas.client import main; raise SystemExit(main.{'main' if name == 'tools' else 'main_' + name}())"
        if program == "cpsclient":
            code = "from conpaas.client import classic; raise SystemExit(classic.main())"
        command = [sys.executable, "-c", code, *args]
        return subprocess.run(command, env=environment, cwd=self.home, input=given, capture_output=True, text=True, timeout=60, check=False)

    def ok(self, program: str, *args: str, given: str | None = None) -> str:
        """Run a program that has to succeed; what it printed."""
        done = self.run(program, *args, given=given)
        assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
        return done.stdout

    def login(self) -> None:
        self.ok("cps-tools", "login", self.url, "--username", "bob", "--password-stdin", "--yes", given=PASSWORD + "\n")

    def running_services(self) -> None:
        """An application that runs with a helloworld (1) and a generic service (2)."""
        self.record.applications.append(
            application(1, "shop")
            | {"status": "RUNNING", "manager": MANAGER_ADDRESS, "manager_port": self.record.manager_port, "cloud": "iaas"}
        )
        for sid, kind in ((1, "helloworld"), (2, "generic")):
            self.record.services.append({"sid": sid, "name": f"my {kind}", "type": kind, "application_id": AID})
            self.record.states[sid] = "RUNNING"
            self.record.nodes[sid] = 1


@contextlib.contextmanager
def serving(*servers: server.HttpsServer) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for one in servers:
            one.start_in_thread()
            stack.callback(one.stop)
        yield


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def director_credentials(authority: Authority) -> identity.Credentials:
    return authority.credentials("director", {"role": "frontend", "CN": ADDRESS}, (ADDRESS,))


@pytest.fixture(scope="session")
def manager_credentials(authority: Authority) -> identity.Credentials:
    return authority.credentials("manager", {"role": "manager", "CN": "manager", "UID": UID, "serviceLocator": AID})


@pytest.fixture
def platform(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    authority: Authority,
    director_credentials: identity.Credentials,
    manager_credentials: identity.Credentials,
) -> Iterator[Platform]:
    """Both servers on free ports, and an empty home directory."""
    monkeypatch.setenv("STUB_SCRATCH", str(tmp_path))
    record = Record()
    director = server.HttpsServer((ADDRESS, 0), StubDirector(record, authority).app, director_credentials, "optional")
    app = rpc.RpcApplication()
    app.register(0, StubApplicationManager(record))
    app.register(1, StubServiceManager(record, 1, "helloworld"))
    app.register(2, StubServiceManager(record, 2, "generic"))
    manager = server.HttpsServer((MANAGER_ADDRESS, 0), server.rpc_wsgi(app, identity.manager_callers(UID, AID)), manager_credentials)
    with serving(director, manager):
        record.manager_port = manager.port
        home = tmp_path / "home"
        home.mkdir()
        yield Platform(record, authority, f"https://{ADDRESS}:{director.port}", home)
