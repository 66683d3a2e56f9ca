"""Nonsense over the wire, to the real manager, agent and Director: one reply that names the thing, and the service goes on."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import pathlib
import random
import socket
import ssl
import tarfile
import urllib.parse
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest

from conpaas.core import expose, params, services
from conpaas.core.application import ApplicationManager
from conpaas.director import endpoint
from tests.support import consistency, directory, tenants, wire
from tests.support import platform as platforms

APP = "target"
KINDS = ("helloworld", "generic")
PEERS = ("manager", "agent", "director")
PATIENCE = 25.0
"""Seconds within which a server answers or gives a connection up. Its own limits are below."""

PROMPTLY = 5.0
"""Seconds that a well-behaved client waits while others do not behave."""


class Targets:
    """One application, and how to reach each kind of server with a certificate that it accepts."""

    def __init__(self, platform: platforms.Platform) -> None:
        self.platform = platform
        self.app = tenants.deploy(platform, "alice", APP, KINDS)
        self.agents = {kind: next(iter(self.app.nodes[kind].values())) for kind in KINDS}
        alice = tenants.of_user(platform, "alice")
        self.peers: dict[str, tuple[wire.Address, ssl.SSLContext]] = {
            "manager": ((self.app.manager, tenants.MANAGER_PORT), alice),
            "agent": ((self.agents["generic"], tenants.AGENT_PORT), tenants.of_vm(platform, self.app.manager, "manager")),
            "director": ((f"127.{platform.net}.255.1", 5555), alice),
        }

    def process(self, peer: str) -> int:
        if peer == "director":
            assert self.platform.process is not None
            return self.platform.process.pid
        address = self.peers[peer][0][0]
        return consistency.daemon_of(self.platform, address, peer)

    def works(self, peer: str) -> bool:
        """Whether a well-behaved client is served, soon."""
        address, tls = self.peers[peer]
        request = b"GET /version HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
        if peer != "director":
            request = wire.call("GET", 0, "check_process")
        return wire.exchange(address, tls, request, PROMPTLY).status == 200

    def states(self) -> dict[str, str]:
        found: dict[str, str] = self.ask("get_app_info", 0)["states"]
        return found

    def versions(self) -> list[str]:
        found = self.ask("list_code_versions", self.app.sids["generic"])["codeVersions"]
        return [version["codeVersionId"] for version in found]

    def ask(self, method: str, sid: int) -> dict[str, Any]:
        address, tls = self.peers["manager"]
        found: dict[str, Any] = wire.exchange(address, tls, wire.call("GET", sid, method)).json["result"]
        return found


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Targets]:
    with platforms.platform(tmp_path_factory.mktemp("input"), 93) as made:
        yield Targets(made)


@pytest.fixture(autouse=True)
def _nothing_breaks(targets: Targets) -> Iterator[None]:
    """After each test all servers work, in the same processes, without having complained or grown."""
    before = {peer: targets.process(peer) for peer in PEERS}
    sizes = {peer: consistency.memory(pid) for peer, pid in before.items()}
    states = targets.states()
    yield
    assert all(targets.works(peer) for peer in PEERS)
    assert {peer: targets.process(peer) for peer in PEERS} == before
    grown = {peer: consistency.memory(pid) - sizes[peer] for peer, pid in before.items()}
    assert max(grown.values()) < 64, f"grew by so many MB: {grown}"
    assert targets.states() == states
    assert consistency.complaints(targets.platform) == []


# Parameters

NOTHING = 999_999
WRONG: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 10**40, -(2**63) - 1, 2**63),
    *("", " ", "x", "\x00", "\ud800", "é" * 70_000, "../.."),
    *([], [[]], [None], {}, {"x": {}}, {"": -1}),
)


def harmless(param: params.Param) -> Any:
    """A value of the right type that leads to nothing, as there is nothing of that name."""
    if isinstance(param.type, params.Upload):
        return b"nothing"
    if param.name == "dev_name":
        return "../nothing"
    if isinstance(param.type, params.Integer):
        return NOTHING
    if isinstance(param.type, params.Mapping):
        return {}
    if isinstance(param.type, params.Choice):
        return next(iter(param.type.values))
    return "nothing"


def nonsense(declared: tuple[params.Param, ...]) -> Iterator[dict[str, Any]]:
    """Arguments of which one is missing, wrong or unknown."""
    usual = {param.name: harmless(param) for param in declared if param.required}
    yield {**usual, "unknown": 1}
    for param in declared:
        if param.required:
            yield {name: value for name, value in usual.items() if name != param.name}
        for value in WRONG:
            yield {**usual, param.name: value}


def assert_plain(reply: wire.Reply, what: str) -> None:
    """One reply that a person can read."""
    assert 200 <= reply.status < 500, f"{what}: {reply}"
    assert "Traceback" not in reply.text, what
    assert "internal error" not in reply.text, f"{what}: {reply.text[:300]}"
    assert len(reply.body) < 100_000, what


def bombard(address: wire.Address, tls: ssl.SSLContext, sid: int, exposed: expose.Exposed) -> None:
    """Every kind of nonsense for one method, over one connection that stays open."""
    with wire.connect(address, tls) as connection:
        for arguments in nonsense(exposed.params):
            if arguments.get("dev_name") == "x":
                continue  # a device of a right name would be waited for
            files = {name: value for name, value in arguments.items() if isinstance(value, bytes)}
            if exposed.verb == "UPLOAD" or files:
                fields = {name: value if isinstance(value, bytes) else json.dumps(value) for name, value in arguments.items()}
                request = wire.call("UPLOAD", sid, exposed.name, fields)
            else:
                request = wire.call(exposed.verb, sid, exposed.name, arguments)
            if len(request.partition(b"\r\n\r\n")[0]) > 60_000:
                continue  # a head that is too long is another test
            connection.sendall(request.replace(b"Connection: close\r\n", b"", 1))
            assert_plain(wire.read_reply(connection), f"{exposed.name} {str(arguments)[:200]}")


@pytest.mark.parametrize("kind", ["application", *KINDS])
def test_a_manager_takes_no_wrong_parameters(targets: Targets, kind: str) -> None:
    address, tls = targets.peers["manager"]
    owner = ApplicationManager if kind == "application" else services.registry.get(kind).load_manager()
    for exposed in expose.exposed_methods(owner).values():
        if kind == "application" or exposed.name not in ("set_string", "stopall"):
            bombard(address, tls, targets.app.sids.get(kind, 0), exposed)


@pytest.mark.parametrize("kind", KINDS)
def test_an_agent_takes_no_wrong_parameters(targets: Targets, kind: str) -> None:
    tls = targets.peers["agent"][1]
    for exposed in expose.exposed_methods(services.registry.get(kind).load_agent()).values():
        bombard((targets.agents[kind], tenants.AGENT_PORT), tls, 0, exposed)


def test_the_director_takes_no_wrong_parameters(targets: Targets) -> None:
    for rule in directory.RULES:
        entry = directory.entry(rule)
        # What is made to be called with any text is left out, and a password more or less is the throttle's business.
        if entry.name not in ("new_user", "createapp") and entry.auth != "password":
            pester_director(targets, entry)


def pester_director(targets: Targets, entry: endpoint.Endpoint) -> None:
    address, tls = targets.peers["director"]
    manager = tenants.of_vm(targets.platform, targets.app.manager, "manager")
    caller = manager if entry.auth == "manager" else tls
    with contextlib.ExitStack() as opened:
        connection = opened.enter_context(wire.connect(address, caller))
        for aid in (str(NOTHING), "0", str(10**30), str(2**63)) if "aid>" in entry.rule or "<appid>" in entry.rule else ("",):
            path = directory.address(entry, aid=aid, service_type="generic", cloud="nowhere", kind="js")
            for arguments in nonsense(entry.params):
                fields = {name: value if isinstance(value, str | bytes) else json.dumps(value) for name, value in arguments.items()}
                fields = {name: value for name, value in fields.items() if value != "\ud800"}
                connection.sendall(wire.form(path, fields).replace(b"Connection: close\r\n", b"", 1))
                reply = wire.read_reply(connection)
                assert_plain(reply, f"{path} {str(arguments)[:200]}")
                if reply.headers.get("connection") == "close":
                    connection = opened.enter_context(wire.connect(address, caller))


# Requests


def _post(body: bytes, *headers: str, length: int | None = None) -> bytes:
    kind = [] if any(one.lower().startswith("content-type") for one in headers) else ["Content-Type: application/json"]
    lines = [
        "POST / HTTP/1.1",
        "Host: x",
        "Connection: close",
        f"Content-Length: {len(body) if length is None else length}",
        *kind,
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _head(*headers: str) -> bytes:
    lines = ["POST / HTTP/1.1", "Host: x", "Content-Type: application/json", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def _get(query: str, *headers: str) -> bytes:
    return "\r\n".join(
        [f"GET /?{query} HTTP/1.1", "Host: x", "Connection: close", "Content-Type: application/json", *headers, "", ""]
    ).encode()


CALL = {"service_id": 0, "method": "check_process", "id": 1, "params": {}}
FORM = "Content-Type: multipart/form-data; boundary=xyz"
JUNK: dict[str, bytes] = {
    "broken JSON": _post(b'{"service_id": 0,'),
    "no JSON": _post(b"hello"),
    "a list": _post(b"[1, 2]"),
    "null": _post(b"null"),
    "NaN": _post(b'{"service_id": NaN, "method": "check_process", "id": 1}'),
    "not UTF-8": _post(b'{"service_id": "\xff\xfe"}'),
    "deep": _post(b'{"service_id": 0, "method": "check_process", "id": 1, "params": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "deep objects": _post(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "a huge number": _post(b'{"service_id": ' + b"9" * 5000 + b', "method": "check_process", "id": 1}'),
    "params of a wrong type": _post(json.dumps({**CALL, "params": "x"}).encode()),
    "a method that is a list": _post(json.dumps({**CALL, "method": ["x"]}).encode()),
    "a service that is an object": _post(json.dumps({**CALL, "service_id": {}}).encode()),
    "a negative service": _post(json.dumps({**CALL, "service_id": -1}).encode()),
    "an unknown service": _post(json.dumps({**CALL, "service_id": 77}).encode()),
    "an unknown method": _post(json.dumps({**CALL, "method": "__init__"}).encode()),
    "no id": _post(json.dumps({"service_id": 0, "method": "check_process"}).encode()),
    "no length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n",
    "a length that is no number": _post(b"{}", "Content-Length: x"),
    "two lengths": _post(b"{}", "Content-Length: 3"),
    "a negative length": _post(b"", length=-5),
    "chunks of no size": _head("Transfer-Encoding: chunked") + b"zz\r\n{}\r\n0\r\n\r\n",
    "chunks and a length": _post(b"{}", "Transfer-Encoding: chunked"),
    "JSON of 20 MB announced": _post(b"{}", length=20 << 20),
    "an upload of 1 PB announced": _post(b"--xyz\r\n", FORM, length=1 << 50),
    "a form without boundary": _post(b"--xyz--\r\n", "Content-Type: multipart/form-data"),
    "a form that is none": _post(b"hello", FORM),
    "a form without end": _post(b'--xyz\r\nContent-Disposition: form-data; name="method"\r\n\r\nx', FORM),
    "a form part without name": _post(b"--xyz\r\nContent-Disposition: form-data\r\n\r\nx\r\n--xyz--\r\n", FORM),
    "a form of many parts": _post(b'--xyz\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n' * 5000 + b"--xyz--\r\n", FORM),
    "a form field of 3 MB": _post(
        b'--xyz\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + b"x" * (3 << 20) + b"\r\n--xyz--\r\n", FORM
    ),
    "XML": _post(b"<x/>", "Content-Type: text/xml"),
    "another charset": _post(b"{}", "Content-Type: application/json; charset=utf-16"),
    "params that are no JSON": _get("service_id=0&method=check_process&id=1&params=%7B"),
    "a query that is no UTF-8": _get("service_id=0&method=%ff%fe&id=1"),
    "a query of many fields": _get("&".join(f"a{n}=1" for n in range(2000))),
    "a head of 1 MB": _get("x=" + "a" * (1 << 20)),
    "ten thousand headers": _get("x=1", *[f"X-{n}: y" for n in range(10_000)]),
    "a NUL in a header": _get("x=1", "X-A: \x00"),
    "a header without colon": _get("x=1", "nothing here"),
    "another verb": b"BREW / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n",
    "a path that climbs": b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n",
    "a path that climbs in code": b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "HTTP 0.9": b"GET /\r\n\r\n",
    "HTTP 9": b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
    "no HTTP": b"\x00\x01\x02\x03\r\n\r\n",
    "a target that is no URL": b"GET https://[ HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n",
    "empty lines": b"\r\n" * 1000,
}


@pytest.mark.parametrize("peer", PEERS)
def test_a_request_that_makes_no_sense_gets_one_reply(targets: Targets, peer: str) -> None:
    for what, request in JUNK.items():
        reply = reply_to(*targets.peers[peer], request)
        assert reply.status == 0 or 200 <= reply.status < 506, what
        assert "Traceback" not in reply.text, what
        assert "internal error" not in reply.text, what
        if reply.status == 200 and peer != "director":
            assert "error" in reply.json, what


def reply_to(address: wire.Address, tls: ssl.SSLContext, request: bytes) -> wire.Reply:
    """What comes back for a request after which nothing more is sent; status 0 also if the server closes while it comes."""
    with wire.connect(address, tls, PATIENCE) as connection:
        try:
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                connection.sendall(request)
            socket.socket.shutdown(connection, socket.SHUT_WR)
            return wire.parse(wire.read_all(connection))
        except (ConnectionError, ssl.SSLError, OSError) as error:
            assert not isinstance(error, TimeoutError), f"{request[:100]!r} hangs"
            return wire.Reply(0, {}, b"", str(error))


@pytest.mark.parametrize("peer", PEERS)
def test_a_client_that_waits_for_100_continue_is_told_to_go_on(targets: Targets, peer: str) -> None:
    address, tls = targets.peers[peer]
    body = json.dumps(CALL).encode()
    path = "/listapp" if peer == "director" else "/"
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with wire.connect(address, tls, PATIENCE) as connection:
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body)
        assert wire.read_reply(connection).status in (200, 404)


@pytest.mark.parametrize("peer", PEERS)
def test_plain_http_and_noise_are_no_tls(targets: Targets, peer: str) -> None:
    address = targets.peers[peer][0]
    noise = random.Random(7).randbytes(5000)
    for said in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", noise, b"\x16\x03\x01\x02\x00\x01", b"SSH-2.0-OpenSSH_9\r\n"):
        with socket.create_connection(address, timeout=PATIENCE) as connection:
            answer = b""
            with contextlib.suppress(OSError):
                connection.sendall(said)
                connection.shutdown(socket.SHUT_WR)
                while chunk := connection.recv(4096):
                    answer += chunk
            assert b"Traceback" not in answer


@pytest.mark.parametrize("peer", PEERS)
def test_half_a_request_has_no_effect(targets: Targets, peer: str) -> None:
    address, tls = targets.peers[peer]
    whole = wire.call("POST", 0, "stopall") if peer != "director" else wire.form(f"/deleteapp/{targets.app.aid}", {"x": "y" * 500})
    for length in (1, 10, len(whole) // 2, len(whole) - 1):
        with wire.connect(address, tls, PATIENCE) as connection:
            connection.sendall(whole[:length])


@pytest.mark.parametrize("peer", PEERS)
def test_idle_and_slow_connections_hinder_nobody(targets: Targets, peer: str) -> None:
    """200 connections: bare, with TLS but silent, with half a head, and with a body that comes by drops."""
    address, tls = targets.peers[peer]
    body = wire.call("POST", 0, "check_process")
    with contextlib.ExitStack() as stack:
        for _ in range(80):
            stack.enter_context(socket.create_connection(address, timeout=PATIENCE))
        for _ in range(80):
            stack.enter_context(wire.connect(address, tls, PATIENCE))
        for _ in range(20):
            stack.enter_context(wire.connect(address, tls, PATIENCE)).sendall(body[:40])
        drips = [stack.enter_context(wire.connect(address, tls, PATIENCE)) for _ in range(20)]
        for drop in body[:-1]:
            for connection in drips:
                with contextlib.suppress(ConnectionError, ssl.SSLError):
                    connection.send(bytes([drop]))
        for _ in range(3):
            assert targets.works(peer)


def test_a_large_upload_leaves_nothing_behind(targets: Targets) -> None:
    address, tls = targets.peers["manager"]
    before = files_of(targets)
    for method in ("upload_code_version", "no_such_method"):
        request = wire.call("UPLOAD", targets.app.sids["generic"], method, {"code": b"\1" * (48 << 20)})
        reply = wire.exchange(address, tls, request)
        assert reply.status in (200, 404)
        assert b"codeVersionId" not in reply.body
        with wire.connect(address, tls, PATIENCE) as connection:
            connection.sendall(request[: 8 << 20])  # and away
    platforms.until(lambda: files_of(targets) == before, "nothing of the uploads is left")


# Archives


def files_of(targets: Targets) -> set[str]:
    """What lies on the disk of the manager's VM, apart from logs and its database."""
    root = consistency.vm_of(targets.platform, targets.app.manager) / "root"
    found = {str(path.relative_to(root)) for path in root.rglob("*")}
    return {name for name in found if "/log/" not in name and "state.db" not in name and "supervise" not in name}


def _tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def _member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.devmajor, member.devminor = kind, target, 1, 5
    return member, b"#!/bin/bash\n" if kind == tarfile.REGTYPE else b""


def _zip(*names: str, link: str = "") -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
        if link:
            info = zipfile.ZipInfo("link")
            info.external_attr = 0o120777 << 16
            archive.writestr(info, link)
    return packed.getvalue()


def _zeros(compress: Any) -> bytes:
    """10 GB of zeros in one member: a header, and the same compressed piece many times."""
    member = tarfile.TarInfo("zeros")
    member.size = 10 * 10**9
    piece = 100 * 10**6
    packed: bytes = compress(member.tobuf()) + compress(bytes(piece)) * (member.size // piece) + compress(bytes(10240))
    return packed


GOOD = _member("run.sh")
HOSTILE = {
    "climbs.tar.gz": _tar(GOOD, _member("../../../../tmp/evil")),
    "climbs-late.tar.gz": _tar(GOOD, _member("a/b/../../../evil")),
    "absolute.tar.gz": _tar(GOOD, _member("/tmp/evil")),
    "symlink-out.tar.gz": _tar(GOOD, _member("link", tarfile.SYMTYPE, "../../../etc")),
    "symlink-absolute.tar.gz": _tar(GOOD, _member("link", tarfile.SYMTYPE, "/etc"), _member("link/evil")),
    "hardlink-out.tar.gz": _tar(GOOD, _member("link", tarfile.LNKTYPE, "../../../etc/passwd")),
    "device.tar.gz": _tar(GOOD, _member("null", tarfile.CHRTYPE)),
    "block-device.tar.gz": _tar(GOOD, _member("disk", tarfile.BLKTYPE)),
    "fifo.tar.gz": _tar(GOOD, _member("pipe", tarfile.FIFOTYPE)),
    "cut.tar.gz": _tar(GOOD, _member("x" * 90))[:-20],
    "nothing.tar": b"",
    "text.zip": b"hello",
    "climbs.zip": _zip("run.sh", "../../evil"),
    "absolute.zip": _zip("run.sh", "/tmp/evil"),
    "link.zip": _zip("run.sh", link="/etc/passwd"),
    "zeros.tar.gz": b"",
    "zeros.tar.bz2": b"",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused_whole(targets: Targets, tmp_path: pathlib.Path, name: str) -> None:
    content = HOSTILE[name]
    if name.startswith("zeros"):
        content = _zeros(gzip.compress if name.endswith("gz") else bz2.compress)
    archive = tmp_path / name
    archive.write_bytes(content)
    sid = str(targets.app.sids["generic"])
    before = (targets.versions(), files_of(targets))
    refused = targets.platform.run("cps-generic", "upload_code", APP, sid, archive, check=False)
    assert refused.code == 1, refused
    assert refused.err.startswith("ERROR: "), refused
    assert "internal error" not in refused.err
    assert "Traceback" not in refused.err
    assert (targets.versions(), files_of(targets)) == before
    assert not pathlib.Path("/tmp/evil").exists()


def test_words_in_a_url_are_not_taken_for_more(targets: Targets) -> None:
    address, tls = targets.peers["director"]
    for path in ("/listapp%00", "/list/1;x", "/list/-1", "/list/1e3", "//listapp", "/download/../etc/passwd", "/" + "a" * 9000):
        request = f"GET {urllib.parse.quote(path, safe='/%;')} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n".encode()
        assert_plain(wire.exchange(address, tls, request), path[:100])
