"""A manager's real process, agents and a Director over real mutual TLS; only the cloud is simulated."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flask
import pytest

from conpaas.core import errors, expose, node, paths, rpc
from conpaas.core.https import client, identity, server, x509
from conpaas.testing import simulation

NETWORK = "127.12"
MANAGER = (f"{NETWORK}.255.2", 9443)
DIRECTOR = (f"{NETWORK}.255.1", 9555)
AGENT_PORT = 9556
UID, AID = 7, 3
DEADLINE = 60.0


def until(condition: Callable[[], Any], what: str) -> Any:
    """Poll until `condition()` is true and return what it gave."""
    end = time.monotonic() + DEADLINE
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {DEADLINE:.0f} s: {what}"
        time.sleep(0.02)
    return value


class Agent:
    """What the helloworld service needs of an agent."""

    def __init__(self, one: node.ServiceNode) -> None:
        self.node = one

    @expose.expose("GET")
    def check_process(self) -> None:
        """Answer."""

    @expose.expose("POST")
    def startup(self) -> None:
        """Start."""

    @expose.expose("GET")
    def get_helloworld(self) -> dict[str, str]:
        """Answer the text."""
        return {"result": f"hello from {self.node.vmid}"}


class World:
    """Certificates, a Director, agents, and the manager's process, which can be killed and started again."""

    until = staticmethod(until)

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.faults = directory / "faults"
        self._key, self._ca = x509.new_ca()
        self._agents: dict[str, server.HttpsServer] = {}
        self._agent_credentials = self.credentials("agent", f"{NETWORK}.0.0")
        self.director = simulation.SimulatedDirector(self._start_agent, NETWORK)
        self._director_server = server.HttpsServer(DIRECTOR, self._director_app(), self.credentials("frontend", DIRECTOR[0]))
        self._director_server.start_in_thread()
        self.user = client.RpcClient(self.credentials("user", "user"), identity.expect_manager(UID, AID))
        self.process: subprocess.Popen[bytes] | None = None
        self.config = self._write_config()

    def credentials(self, role: str, host: str) -> identity.Credentials:
        directory = self.directory / "certs" / role
        directory.mkdir(parents=True)
        self._write_certificate(directory, role, host)
        return identity.Credentials.from_dir(directory)

    def _write_certificate(self, directory: pathlib.Path, role: str, host: str) -> None:
        key = x509.new_key()
        subject = x509.Subject(role=role, cn=host, uid=UID, aid=AID)
        san = [host] if host[:1].isdigit() else []
        (directory / "cert.pem").write_text(x509.issue(self._key, self._ca, key.public_key(), subject, san=san))
        (directory / "key.pem").write_text(x509.key_pem(key))
        (directory / "ca_cert.pem").write_text(x509.certificate_pem(self._ca))

    def _start_agent(self, one: node.ServiceNode, service_id: int, context: Mapping[str, str]) -> Agent:
        agent = Agent(one)
        application = rpc.RpcApplication()
        application.register(0, agent)
        wsgi = server.rpc_wsgi(application, identity.agent_callers(UID, AID, False))
        self._agents[one.id] = server.HttpsServer((one.ip, AGENT_PORT), wsgi, self._agent_credentials)
        self._agents[one.id].start_in_thread()
        return agent

    def stop_agent(self, node_id: str) -> None:
        self._agents.pop(node_id).stop()

    def _director_app(self) -> flask.Flask:
        app = flask.Flask("director")

        def answered(act: Callable[[Mapping[str, str]], Any]) -> Any:
            try:
                return flask.jsonify(act(flask.request.form))
            except errors.RemoteError as error:
                return flask.jsonify({"error": str(error)})

        def create(form: Mapping[str, str]) -> Any:
            made = self.director.create_nodes(
                form["request"], json.loads(form["nodes_info"]), int(form["service_id"]), form["service_type"], json.loads(form["context"])
            )
            return [one.to_dict() for one in made]

        def remove(form: Mapping[str, str]) -> Any:
            gone = [node.ServiceNode.from_dict(values) for values in json.loads(form["nodes"])]
            self.director.remove_nodes(gone, form["request"])
            for one in gone:
                with contextlib.suppress(KeyError):
                    self.stop_agent(one.id)
            return {}

        actions = {
            "/create_nodes": create,
            "/remove_nodes": remove,
            "/credit": lambda form: {"credit": self.director.credit()},
            "/callback/revoked_certificates": lambda form: {"serials": self.director.revoked_certificates()},
            "/callback/claim_domain": lambda form: self.director.claim_domain(form["domain"], int(form["service_id"])) or {},
            "/callback/release_domain": lambda form: self.director.release_domain(form["domain"], int(form["service_id"])) or {},
            "/list_nodes": lambda form: [entry.to_dict() for entry in self.director.list_nodes()],
        }
        for path, act in actions.items():
            app.add_url_rule(path, path, lambda act=act: answered(act), methods=["POST"])
        return app

    def _write_config(self) -> pathlib.Path:
        where = paths.Paths.under(self.directory / "manager", daemon="cpsmanager")
        where.create()
        self._write_certificate(where.certs, "manager", MANAGER[0])
        values = {
            "USER_ID": UID,
            "APP_ID": AID,
            "MY_IP": MANAGER[0],
            "DEPLOYMENT_NAME": "test",
            "DIRECTOR_URL": f"https://{DIRECTOR[0]}:{DIRECTOR[1]}",
            "AGENT_PORT": AGENT_PORT,
            "MANAGER_PORT": MANAGER[1],
            "HEALTH_INTERVAL": 0.2,
            "NODE_LOST_AFTER": 1,
            "GIT_HOME": self.directory / "git",
            **where.to_config(),
        }
        path = self.directory / "config.cfg"
        path.write_text("[manager]\n" + "".join(f"{key} = {value}\n" for key, value in values.items()))
        return path

    # The manager

    def start(self) -> None:
        environment = {**os.environ, "CONPAAS_FAULTS": str(self.faults)}
        with (self.directory / "manager.out").open("ab") as out:
            command = [sys.executable, "-m", "conpaas.core.manager_daemon", "-c", str(self.config)]
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
        until(self._answers, f"the manager answers; it said: {(self.directory / 'manager.out').read_text()}")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "manager.out").read_text()
        with contextlib.suppress(errors.Unreachable):
            self.user.get(MANAGER, "check_process")
            return True
        return False

    def call(self, method: str, target: int = 0, /, **params: Any) -> Any:
        return self.user.post(MANAGER, method, target, params)

    def get(self, method: str, target: int = 0, /, **params: Any) -> Any:
        return self.user.get(MANAGER, method, target, params)

    def state(self) -> str:
        return str(self.get("get_service_info", 1)["state"])

    def await_state(self, state: str) -> None:
        until(lambda: self.state() == state, f"the service is {state}; its history: {self.get('get_service_history', 1)}")

    def await_end(self, operation_id: str) -> dict[str, Any]:
        def ended() -> Any:
            told = self.get("get_operation", operationId=operation_id)["operation"]
            return told if told["status"] not in ("RUNNING", "UNDOING") else None

        found: dict[str, Any] = until(ended, f"operation {operation_id} ends")
        return found

    def await_death(self) -> None:
        assert self.process is not None
        assert self.process.wait(DEADLINE) == -signal.SIGKILL

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(DEADLINE)
        self.user.close()
        self._director_server.stop()
        for one in self._agents.values():
            one.stop()


@pytest.fixture
def world(tmp_path: pathlib.Path) -> Iterator[World]:
    """Everything but a started manager."""
    one = World(tmp_path)
    try:
        yield one
    finally:
        one.close()
