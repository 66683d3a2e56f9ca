"""Nobody reads or changes what is another's: every endpoint and RPC, read from the declarations, called with every wrong certificate.

What is another's is compared before and after; a refusal is one reply, without a traceback and without a word of what it protects.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import io
import json
import pathlib
import re
import secrets
import sqlite3
import ssl
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509 as library
from cryptography.hazmat.primitives import hashes, serialization

from conpaas.core import expose, params, services
from conpaas.core.application import ApplicationManager
from conpaas.core.https import x509
from tests.support import consistency, directory, tenants, wire
from tests.support import platform as platforms

STRANGER = "mallory"
KINDS = ("helloworld", "generic")
SECRET = "alices-own-words"


class World:
    """Alice with an application (and another one beside it), and a stranger with one."""

    def __init__(self, platform: platforms.Platform) -> None:
        self.platform = platform
        self.director = (f"127.{platform.net}.255.1", 5555)
        platform.add_user(STRANGER)
        self.app = tenants.deploy(platform, "alice", SECRET, KINDS)
        self.beside = tenants.deploy(platform, "alice", "beside", ("helloworld",))
        self.strange = tenants.deploy(platform, STRANGER, "strange", KINDS)
        self.uid = int(platform.data("user", "get_config")["uid"])
        self.callers = self._callers()

    def _callers(self) -> dict[str, ssl.SSLContext]:
        platform, scratch = self.platform, self.platform.directory / "thief"
        stranger = int(platform.data("user", "get_config", user=STRANGER)["uid"])
        alice = {"uid": self.uid, "aid": 0}
        here = {"uid": self.uid, "aid": self.app.aid}
        return {
            "nobody": wire.context(tenants.ca_of(platform)),
            "foreign authority, as alice": tenants.forged(platform, scratch, "alice", role="user", cn="alice", **alice),
            "foreign authority, as the Director": tenants.forged(platform, scratch, "director", role="director", cn="CA"),
            "foreign authority, as the manager": tenants.forged(platform, scratch, "manager", role="manager", cn="CA", **here),
            "expired, of alice": tenants.expired(platform, scratch, "old-alice", role="user", cn="alice", **alice),
            "expired, of the manager": tenants.expired(platform, scratch, "old-manager", role="manager", cn="ConPaaS", **here),
            "the other user": tenants.of_user(platform, STRANGER),
            "the other user, called CA": tenants.genuine(platform, scratch, "ca", role="user", cn="CA", uid=stranger, aid=0),
            "somebody called CA": tenants.genuine(platform, scratch, "bare-ca", role="", cn="CA"),
            "an agent of the other user": tenants.of_vm(platform, _any(self.strange.nodes["generic"]), "agent"),
            "the manager of the other user": tenants.of_vm(platform, self.strange.manager, "manager"),
            "an agent of alice's other application": tenants.of_vm(platform, _any(self.beside.nodes["helloworld"]), "agent"),
            "the manager of alice's other application": tenants.of_vm(platform, self.beside.manager, "manager"),
            "the Director's listening certificate": wire.of_directory(platform.state / "certs"),
        }

    @functools.cached_property
    def own_agent(self) -> ssl.SSLContext:
        return tenants.of_vm(self.platform, _any(self.app.nodes["generic"]), "agent")

    @functools.cached_property
    def own_manager(self) -> ssl.SSLContext:
        return tenants.of_vm(self.platform, self.app.manager, "manager")

    @functools.cached_property
    def alice(self) -> ssl.SSLContext:
        return tenants.of_user(self.platform, "alice")

    def ask(self, tls: ssl.SSLContext, service_id: int, method: str, verb: str = "GET", /, **arguments: Any) -> Any:
        reply = wire.exchange((self.app.manager, tenants.MANAGER_PORT), tls, wire.call(verb, service_id, method, arguments))
        assert reply.status == 200, reply
        return reply.json

    def snapshot(self) -> dict[str, Any]:
        """All that alice has, as she sees it."""
        seen: dict[str, Any] = {}
        for sid in (0, *self.app.sids.values()):
            for method in ("list_operations", "get_service_history"):
                seen[f"{sid} {method}"] = self.ask(self.alice, sid, method)["result"]
        generic = self.app.sids["generic"]
        for method in ("list_code_versions", "list_authorized_keys", "get_time_limits", "list_runs"):
            seen[method] = self.ask(self.alice, generic, method)["result"]
        seen["string"] = self.ask(self.alice, self.app.sids["helloworld"], "get_string")["result"]
        seen["info"] = self.ask(self.alice, 0, "get_app_info")["result"]
        seen["script"] = self.ask(self.alice, 0, "get_startup_script", sid=generic).get("error")
        seen["volumes"] = self.ask(self.alice, 0, "list_volumes", "POST")["result"]
        with consistency.database(self.platform) as database:
            for table, mine in (("application", "user_id"), ("ledger", "uid"), ("user", "uid")):
                seen[table] = database.execute(f"SELECT * FROM {table} WHERE {mine} = ?", (self.uid,)).fetchall()
            for table, mine in (("service", "application_id"), ("resource", "app_id"), ("volume", "app_id")):
                seen[table] = database.execute(f"SELECT * FROM {table} WHERE {mine} = ?", (self.app.aid,)).fetchall()
        return seen

    def argument(self, param: params.Param, sid: int) -> Any:
        """A value with which the call would have an effect, if only it were allowed."""
        node = _first(self.app.nodes["generic"])
        vmid = node.removeprefix("iaas")
        known = {
            "service_id": sid or self.app.sids["generic"],
            "sid": self.app.sids["generic"],
            "cloud": "default",
            "nodes": {"node": 1},
            "nodeIds": [node],
            "nodeId": node,
            "agentId": node,
            "serviceNodeId": node,
            "service_type": "generic",
            "codeVersionId": "code-default",
            "command": "run",
            "volumeName": "theirs",
            "volumeSize": 8,
            "limits": {"run": 7},
            "string": "stolen",
            "aid": self.app.aid,
            "app_id": self.app.aid,
            "appid": self.app.aid,
            "vmid": vmid,
            "vm_id": vmid,
            "nodes_info": json.dumps([{"role": "node", "cloud": "default"}]),
            "request": secrets.token_hex(8),
            "username": "alice",
            "size": "8",
            "serial": "1",
            "csr": x509.make_csr(x509.new_key(), "x"),
        }
        if isinstance(param.type, params.Upload):
            return b"#!/bin/sh\nexit 0\n"
        return known.get(param.name, 1 if isinstance(param.type, params.Integer) else "stolen")

    def arguments(self, declared: tuple[params.Param, ...], sid: int = 0) -> dict[str, Any]:
        chosen = {param.name: self.argument(param, sid) for param in declared if param.required or param.name in {"app_id", "aid", "appid"}}
        if {"nodes", "nodes_info"} & chosen.keys() and "service_type" not in chosen and "service_id" not in chosen:
            chosen["nodes"] = json.dumps([{"vmid": self.argument(params.Param("vmid", params.Text()), 0), "cloud_name": "iaas"}])
        return chosen


def _first(nodes: dict[str, str]) -> str:
    return next(iter(nodes))


def _any(nodes: dict[str, str]) -> str:
    return next(iter(nodes.values()))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with platforms.platform(tmp_path_factory.mktemp("isolation"), 92) as made:
        yield World(made)


def rpcs(kind: str) -> list[expose.Exposed]:
    """The calls that a manager of this kind takes; of `application`, service 0."""
    owner = ApplicationManager if kind == "application" else services.registry.get(kind).load_manager()
    return list(expose.exposed_methods(owner).values())


def assert_refused(reply: wire.Reply, what: str) -> None:
    """Turned away in the handshake, or by one reply with one sentence."""
    assert reply.status in (0, 401, 403), f"{what}: {reply}"
    assert "Traceback" not in reply.text
    assert SECRET not in reply.text
    if reply.status == 403:
        assert reply.json["error"]
        assert "internal error" not in reply.text


@pytest.mark.parametrize("kind", ["application", *KINDS])
def test_no_wrong_certificate_opens_a_manager(world: World, kind: str) -> None:
    sid = world.app.sids.get(kind, 0)
    before = world.snapshot()
    callers = {**world.callers, "an agent of the application itself": world.own_agent}
    for exposed in rpcs(kind):
        for name, tls in callers.items():
            request = wire.call(exposed.verb, sid, exposed.name, world.arguments(exposed.params, sid))
            reply = wire.exchange((world.app.manager, tenants.MANAGER_PORT), tls, request)
            assert_refused(reply, f"{exposed.name} by {name}")
    assert world.snapshot() == before


def test_the_owner_may_read_what_the_others_may_not(world: World) -> None:
    """Without this, a manager that refuses everybody would pass."""
    for kind in ("application", *KINDS):
        sid = world.app.sids.get(kind, 0)
        node = _first(world.app.nodes.get(kind, world.app.nodes["generic"]))
        for exposed in rpcs(kind):
            if exposed.verb != "GET":
                continue
            known = {"agentId": node, "serviceNodeId": node, "operationId": "none", "run": "none", "sid": sid, "method": "get_machines"}
            arguments = {param.name: known[param.name] for param in exposed.params if param.required}
            reply = wire.exchange((world.app.manager, tenants.MANAGER_PORT), world.alice, wire.call("GET", sid, exposed.name, arguments))
            assert reply.status == 200, f"{exposed.name}: {reply}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["/", "/metrics", "/health", "/nothing"])
def test_no_wrong_certificate_opens_an_agent(world: World, kind: str, path: str) -> None:
    agent = (_any(world.app.nodes[kind]), tenants.AGENT_PORT)
    callers = {**world.callers, "alice herself": world.alice}
    exposed = list(expose.exposed_methods(services.registry.get(kind).load_agent()).values())
    for name, tls in callers.items():
        if path != "/":
            request = f"GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n".encode()
            assert_refused(wire.exchange(agent, tls, request), f"{path} by {name}")
            continue
        for one in exposed:
            request = wire.call(one.verb, 0, one.name, world.arguments(one.params))
            assert_refused(wire.exchange(agent, tls, request), f"{one.name} by {name}")
    healthy = wire.exchange(agent, world.own_manager, wire.call("GET", 0, "check_process"))
    assert healthy.status == 200


def marks(world: World) -> set[str]:
    """Words that occur only in what belongs to alice."""
    vms = [vm["vmid"] for vm in world.platform.vms() if vm["ip"] in {world.app.manager, *_addresses(world.app)}]
    return {SECRET, world.app.manager, "alice@example.org", *vms, *_addresses(world.app)}


def _addresses(app: tenants.Application) -> set[str]:
    return {ip for nodes in app.nodes.values() for ip in nodes.values()}


def rejected(reply: wire.Reply) -> bool:
    """Whether the Director turned a request down: by its certificate, or because there is no such thing for this caller."""
    if reply.status in (0, 400, 401, 403, 404, 405):
        return True
    return reply.json is False or (isinstance(reply.json, dict) and "error" in reply.json)


@pytest.mark.parametrize("rule", directory.RULES)
def test_no_wrong_certificate_opens_the_director(world: World, rule: str) -> None:
    entry = directory.entry(rule)
    if entry.name in ("download", "new_user"):
        return  # anybody may have the code; accounts are of nobody yet
    callers = dict(world.callers)
    callers["an agent of the application itself"] = world.own_agent
    if entry.auth in ("user", "operator"):
        callers["the manager of the application itself"] = world.own_manager
    if entry.auth in ("manager", "operator"):
        callers["alice herself"] = world.alice
    if entry.name == "session_end":  # it is for everybody, and revokes the certificate that calls
        callers = {name: tls for name, tls in callers.items() if not name.startswith("the other user")}
    before, words = world.snapshot(), marks(world)
    arguments = world.arguments(entry.params)
    if entry.auth == "password":
        arguments |= {"username": "alice", "password": "stolen"}
    for name, tls in callers.items():
        reply = wire.exchange(
            world.director,
            tls,
            wire.form(directory.address(entry, aid=world.app.aid, service_type="generic", cloud="default", kind="js"), arguments),
        )
        sent = json.dumps(arguments)
        leaked = {word for word in words if word in reply.text and word not in sent}
        assert not leaked, f"{rule} tells {name} about {leaked}"
        assert "Traceback" not in reply.text
        assert "internal error" not in reply.text, f"{rule} by {name}: {reply.text}"
        if entry.auth in ("manager", "operator") or (entry.auth == "user" and not name.startswith("the other user")):
            # The managers of others pass as managers, of their own application only.
            own = entry.auth == "manager" and name.startswith("the manager of") and not ({"app_id", "aid"} & arguments.keys())
            assert own or rejected(reply), f"{rule} lets {name} in: {reply}"
    assert world.snapshot() == before


def test_a_node_cannot_get_another_certificate(world: World) -> None:
    csr = x509.make_csr(x509.new_key(), "CA")
    for tls in (world.own_agent, world.callers["the other user"], world.alice, world.callers["the Director's listening certificate"]):
        assert_refused(wire.exchange(world.director, tls, wire.form("/ca/get_cert.php", {"csr": csr})), "get_cert.php")
    issued = wire.exchange(world.director, world.own_manager, wire.form("/ca/get_cert.php", {"csr": csr}))
    who = x509.read_identity(issued.text)
    assert (who.role, who.uid, who.aid) == ("agent", world.uid, world.app.aid)


def plant_token(world: World, aid: int, minutes: int) -> str:
    """A token as the Director would have given it to a VM, good for so many minutes more."""
    token = secrets.token_urlsafe(32)
    expires = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) + datetime.timedelta(minutes=minutes)
    row = (hashlib.sha256(token.encode()).hexdigest(), "agent", world.uid, aid, "test", expires.isoformat(" "))
    with sqlite3.connect(world.platform.state / "director.db", timeout=30) as database:
        database.execute("INSERT INTO enrolment (token_hash, role, uid, aid, vm, expires) VALUES (?, ?, ?, ?, ?, ?)", row)
    return token


def lying_csr() -> str:
    """A request whose subject asks to be the Director."""
    subject = x509.Subject(role="director", cn="CA", uid=1, aid=1).name()
    made = library.CertificateSigningRequestBuilder().subject_name(subject).sign(x509.new_key(), hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def test_a_token_is_good_once_and_only_for_what_it_was_made_for(world: World) -> None:
    nobody = world.callers["nobody"]

    def enrol(token: str, csr: str) -> wire.Reply:
        return wire.exchange(world.director, nobody, wire.form("/ca/enroll", {"token": token, "csr": csr}))

    token, first, other = plant_token(world, world.app.aid, 10), lying_csr(), lying_csr()
    answer = enrol(token, first)
    who = x509.read_identity(answer.text)
    assert (who.role, who.uid, who.aid) == ("agent", world.uid, world.app.aid)
    assert enrol(token, first).body == answer.body
    assert_refused(enrol(token, other), "a used token")
    assert_refused(enrol(plant_token(world, world.app.aid, -1), other), "an expired token")
    for guess in ("", "x", token[:-1], token + "x", "../" + token, secrets.token_urlsafe(32), "x" * 5000, "\x00"):
        assert not enrol(guess, other).text.startswith("-----BEGIN")
    for junk in ("", "x", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", answer.text):
        reply = enrol(plant_token(world, world.app.aid, 10), junk)
        assert not reply.text.startswith("-----BEGIN CERTIFICATE-----")
        assert "internal error" not in reply.text


def test_the_tokens_on_the_disks_of_vms_are_spent(world: World) -> None:
    """User-data lies on the disk of a VM; the token in it must be worth nothing to whoever reads it there later."""
    found = 0
    for vm in world.platform.vms():
        user_data = (world.platform.directory / "cloud" / "vms" / vm["vmid"] / "user-data").read_text()
        for token in re.findall(r"printf '%s' '?([\w-]{40,50})'? >token", user_data):
            found += 1
            reply = wire.exchange(world.director, world.callers["nobody"], wire.form("/ca/enroll", {"token": token, "csr": lying_csr()}))
            assert_refused(reply, "a spent token")
    assert found == len(world.platform.vms())


TRICKS = (
    "../../etc/passwd",
    "/etc/passwd",
    "..",
    ".",
    "",
    "cpsagent.log/../../../etc/passwd",
    "\x00",
    "a" * 5000,
    "%2e%2e%2fpasswd",
    "*",
    "~root",
)


def test_names_of_vms_are_no_paths(world: World) -> None:
    mine = _first(world.app.nodes["generic"]).removeprefix("iaas")
    theirs = _first(world.strange.nodes["generic"]).removeprefix("iaas")
    for vmid in (*TRICKS, mine, f"{theirs}/../{mine}", f"../vms/{mine}", f"{mine}/", f" {mine}", "999999999999999999999999"):
        for cloud in ("default", "iaas", "..", "../iaas", "nowhere"):
            request = wire.form("/console_log", {"vmid": vmid, "cloud": cloud})
            reply = wire.exchange(world.director, world.callers["the other user"], request)
            assert rejected(reply), f"console_log of {vmid!r} on {cloud!r}: {reply}"
            assert "internal error" not in reply.text, f"console_log of {vmid!r} on {cloud!r}"
    reply = wire.exchange(world.director, world.callers["the other user"], wire.form("/console_log", {"vmid": theirs}))
    assert reply.json["vmid"] == theirs


@pytest.mark.parametrize("trick", TRICKS)
def test_names_of_files_are_no_paths(world: World, trick: str) -> None:
    generic = world.app.sids["generic"]
    node, ip = next(iter(world.app.nodes["generic"].items()))

    def refused(verb: str, service_id: int, method: str, /, **arguments: Any) -> None:
        found = world.ask(world.alice, service_id, method, verb, **arguments)
        assert "error" in found, f"{method}: {found}"
        assert "internal error" not in found["error"]
        assert "Traceback" not in found["error"]
        assert len(found["error"]) < 1000

    refused("GET", generic, "get_agent_log", agentId=node, filename=trick)
    refused("GET", 0, "get_agent_log", agentId=node, filename=trick)
    refused("GET", generic, "get_agent_log", agentId=trick)
    refused("GET", generic, "get_script_output", agentId=node, run=trick)
    refused("GET", generic, "get_script_output", agentId=node, script=trick)
    refused("GET", generic, "download_code_version", codeVersionId=trick)
    refused("POST", generic, "delete_code_version", codeVersionId=trick)
    refused("POST", generic, "enable_code", codeVersionId=trick)
    refused("GET", 0, "get_startup_script", sid=trick)
    refused("UPLOAD", 0, "upload_startup_script", sid=trick, script=b"#!/bin/sh\n")
    refused("POST", 0, "create_volume", volumeName=trick, volumeSize=8, agentId=node)
    refused("POST", 0, "add_service", service_type=trick)
    for method, arguments in (("get_log", {"filename": trick}), ("get_script_output", {"run": trick})):
        reply = wire.exchange((ip, tenants.AGENT_PORT), world.own_manager, wire.call("GET", 0, method, arguments))
        assert "error" in reply.json, f"{method} of the agent: {reply}"
        assert "internal error" not in reply.text


def test_an_uploaded_name_is_no_path(world: World, tmp_path: pathlib.Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("run.sh"))
    boundary = "b0undary"
    name = "../../../../tmp/evil.tar.gz"
    parts = (("service_id", str(world.app.sids["generic"])), ("method", "upload_code_version"))
    body = b"".join(f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode() for key, value in parts)
    body += f'--{boundary}\r\nContent-Disposition: form-data; name="code"; filename="{name}"\r\n\r\n'.encode()
    body += packed.getvalue() + f"\r\n--{boundary}--\r\n".encode()
    head = f"POST / HTTP/1.1\r\nHost: m\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
    request = f"{head}Content-Type: multipart/form-data; boundary={boundary}\r\n\r\n".encode() + body
    manager = (world.app.manager, tenants.MANAGER_PORT)
    version = wire.exchange(manager, world.alice, request).json["result"]["codeVersionId"]
    listed = world.ask(world.alice, world.app.sids["generic"], "list_code_versions")["result"]["codeVersions"]
    assert next(one["filename"] for one in listed if one["codeVersionId"] == version) == "evil.tar.gz"
    got = wire.exchange(
        manager, world.alice, wire.call("GET", world.app.sids["generic"], "download_code_version", {"codeVersionId": version})
    )
    assert got.headers["content-disposition"].endswith('filename="evil.tar.gz"')
    world.platform.run("cps-generic", "download_code", SECRET, str(world.app.sids["generic"]), "-v", version, cwd=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["evil.tar.gz"]


def test_certificates_of_a_stopped_application_open_nothing_any_more(world: World) -> None:
    """Last, as it ends alice's other application: the keys its VMs had are worth nothing at the Director from then on."""
    manager = world.callers["the manager of alice's other application"]
    assert wire.exchange(world.director, manager, wire.form("/credit", {})).json["credit"] > 0
    world.platform.cps("--yes", "application", "stop", "beside")
    assert rejected(wire.exchange(world.director, manager, wire.form("/credit", {})))
    assert rejected(wire.exchange(world.director, manager, wire.form("/ca/get_cert.php", {"csr": lying_csr()})))
    consistency.assert_consistent(world.platform)
