"""Our clients against real servers, right and wrong ones."""

from __future__ import annotations

import concurrent.futures
import io
import pathlib
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from conpaas.core import errors
from conpaas.core.https import client, identity, tls, transport, x509

UID, AID = 7, 3


@pytest.fixture
def running(start: Any) -> Any:
    return start()


@pytest.fixture
def caller(pki: Any) -> Iterator[client.RpcClient]:
    made = client.RpcClient(pki.issue("user", UID, 0), identity.expect_manager(UID), read_timeout=20)
    yield made
    made.close()


def test_calls_of_every_kind(running: Any, caller: client.RpcClient, tmp_path: pathlib.Path, service: Any) -> None:
    assert caller.get(running.address, "get_service_info") == {"state": "RUNNING", "type": "test"}
    assert caller.get(running.address, "echo", 1, {"value": "é & ="})["value"] == "é & ="
    assert caller.post(running.address, "count", params={"value": [1]}) == 2
    path = tmp_path / "code.zip"
    path.write_bytes(b"x" * 300_000)
    answer = caller.upload(running.address, "upload_code_version", 1, {"description": "dé"}, {"code": path})
    assert (answer["filename"], answer["size"], answer["description"]) == ("code.zip", 300_000, "dé")
    answer = caller.upload(running.address, "upload_code_version", files={"code": ("a/b.zip", io.BytesIO(b"123"))})
    assert (answer["filename"], answer["size"]) == ("a/b.zip", 3)
    assert not list(running.spool.iterdir()), "nothing of an upload is left after the reply"
    content = bytes(range(256)) * 2000
    (service.directory / "download").write_bytes(content)
    assert caller.download(running.address, "download", params={"name": "x"}, to=tmp_path / "got") == len(content)
    assert (tmp_path / "got").read_bytes() == content


def test_a_file_is_read_as_it_comes(running: Any, caller: client.RpcClient, service: Any) -> None:
    content = bytes(range(256)) * 5000
    (service.directory / "download").write_bytes(content)
    sent = caller.stream(running.address, "download", params={"name": "x"})
    assert sent.size == len(content)
    pieces = list(sent.pieces)
    assert len(pieces) > 1 and b"".join(pieces) == content
    with pytest.raises(errors.RemoteError, match="without a file"):
        caller.stream(running.address, "get_service_info")


def test_an_empty_file_can_be_downloaded(running: Any, caller: client.RpcClient, tmp_path: pathlib.Path, service: Any) -> None:
    (service.directory / "download").touch()
    assert caller.download(running.address, "download", params={"name": "x"}, to=tmp_path / "got") == 0


def test_errors_of_the_peer(running: Any, caller: client.RpcClient, tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.RemoteError) as caught:
        caller.post(running.address, "refuse")
    assert (str(caught.value), caught.value.hint, caught.value.method) == ("not in this state", "wait", "refuse")
    assert caught.value.peer == f"127.11.0.1:{running.https.port}"
    assert not isinstance(caught.value, errors.Unreachable)
    with pytest.raises(errors.RemoteError, match="HTTP 404: Method not found"):
        caller.get(running.address, "absent")
    with pytest.raises(errors.RemoteError, match="internal error, incident"):
        caller.download(running.address, "download", params={"name": "x"}, to=tmp_path / "got")
    with pytest.raises(errors.RemoteError, match="without a file"):
        caller.download(running.address, "get_service_info", to=tmp_path / "got")
    assert not (tmp_path / "got").exists()


def test_a_caller_that_may_not_call_is_told_so(running: Any, pki: Any) -> None:
    stranger = client.RpcClient(pki.issue("user", 8, 0), identity.expect_manager())
    with pytest.raises(errors.RemoteError, match="may not be called by user 8"):
        stranger.get(running.address, "get_service_info")
    stranger.close()


def test_connections_are_kept_and_used_again(running: Any, caller: client.RpcClient, monkeypatch: pytest.MonkeyPatch) -> None:
    connected = []
    original = transport._Connection.connect
    monkeypatch.setattr(transport._Connection, "connect", lambda self: (connected.append(1), original(self))[1])
    for _ in range(10):
        caller.get(running.address, "get_service_info")
        caller.post(running.address, "count")
        with pytest.raises(errors.RemoteError):
            caller.post(running.address, "refuse")
    assert len(connected) == 1


def test_a_connection_that_the_server_closed_meanwhile_is_replaced(start: Any, pki: Any, service: Any) -> None:
    running = start(idle_timeout=1.0)
    caller = client.RpcClient(pki.issue("user", UID, 0), identity.expect_manager(UID))
    assert caller.post(running.address, "count") == 1
    pool = next(iter(_pools(caller)))
    kept = pool.pool.queue[-1].sock
    kept.settimeout(20)
    assert kept.recv(1) == b"", "the server has said that it closes"
    assert select.select([kept], [], [], 20)[0], "and has closed"
    assert caller.post(running.address, "count") == 2
    assert service.calls == 2
    caller.close()


def _pools(caller: client.RpcClient) -> Any:
    manager = caller._channel._opened().get_adapter("https://x").poolmanager  # type: ignore[attr-defined]
    return [manager.pools[key] for key in manager.pools.keys()]  # noqa: SIM118 - not a plain dict


def test_a_connection_idle_for_long_is_not_used_again(running: Any, caller: client.RpcClient, monkeypatch: pytest.MonkeyPatch) -> None:
    caller.post(running.address, "count")
    before = next(iter(_pools(caller))).pool.queue[-1].sock
    monkeypatch.setattr(transport, "IDLE_TIME", 0.0)
    caller.post(running.address, "count")
    assert before.fileno() == -1


def test_a_restarted_server_is_found_again(start: Any, pki: Any) -> None:
    caller = client.RpcClient(pki.issue("user", UID, 0), identity.expect_manager(UID))
    first = start()
    assert caller.post(first.address, "count") == 1
    first.https.stop()
    second = start()
    assert caller.post(second.address, "count") == 2
    with pytest.raises(errors.Unreachable, match="connection refused"):
        caller.post(first.address, "count")
    caller.close()


def test_threads_can_share_a_client(running: Any, caller: client.RpcClient) -> None:
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: caller.get(running.address, "echo", params={"value": n})["value"], range(200)))
    assert answers == list(range(200))


class Silent:
    """A TCP server that accepts and says nothing, or one prepared thing, and counts connections."""

    def __init__(self, answer: bytes = b"", close: bool = False) -> None:
        self.listener = socket.create_server(("127.11.0.3", 0))
        self.address = self.listener.getsockname()
        self.accepted: list[socket.socket] = []
        self._answer = answer
        self._close = close
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.accepted.append(sock)
            if self._answer:
                sock.sendall(self._answer)
            if self._close:
                sock.close()

    def stop(self) -> None:
        socket.create_connection(self.address).close()
        self.listener.close()
        for sock in self.accepted:
            sock.close()


@pytest.fixture
def silent() -> Iterator[Silent]:
    made = Silent()
    yield made
    made.stop()


def test_a_server_that_never_shakes_hands_is_given_up(silent: Silent, pki: Any) -> None:
    caller = client.RpcClient(pki.issue("user"), identity.expect_manager(), connect_timeout=0.2, read_timeout=0.2)
    with pytest.raises(errors.Unreachable, match=r"127\.11\.0\.3"):
        caller.post(silent.address, "count")


def test_a_call_that_takes_too_long_is_given_up_and_not_repeated(running: Any, caller: client.RpcClient, service: Any) -> None:
    with pytest.raises(errors.Unreachable, match=r"did not answer block within 0\.2 seconds"):
        caller.get(running.address, "block", timeout=0.2)
    assert service.entered.acquire(timeout=20)
    assert not service.entered.acquire(blocking=False)


def test_get_is_tried_again_and_post_is_not(pki: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(client.time, "sleep", pauses.append)
    closing = Silent(close=True)
    caller = client.RpcClient(pki.issue("user"), identity.expect_manager(), connect_timeout=2)
    address = ("127.11.0.3", _free_port())
    with pytest.raises(errors.Unreachable, match="connection refused"):
        caller.get(address, "get_service_info")
    assert len(pauses) == 2
    with pytest.raises(errors.Unreachable):
        caller.post(closing.address, "count")
    assert len(pauses) == 2
    assert len(closing.accepted) == 1
    closing.stop()


def _free_port() -> int:
    with socket.create_server(("127.11.0.3", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\n\r\n", b"\x15\x03\x03\x00\x02\x02\x28", b"garbage" * 10])
def test_what_is_no_tls_server_is_unreachable(pki: Any, answer: bytes) -> None:
    odd = Silent(answer, close=True)
    caller = client.RpcClient(pki.issue("user"), identity.expect_manager(), connect_timeout=2)
    with pytest.raises(errors.Unreachable, match=r"127\.11\.0\.3:\d+ is not reachable: "):
        caller.post(odd.address, "count")
    odd.stop()


class Recorder:
    """A TLS server with given credentials that records every byte of requests it gets."""

    def __init__(self, credentials: identity.Credentials) -> None:
        self._context = tls.server_context(credentials, "required")
        self._listener = socket.create_server(("127.11.0.1", 0))
        self.address = self._listener.getsockname()
        self.received = b""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        sock, _ = self._listener.accept()
        try:
            with self._context.wrap_socket(sock, server_side=True) as wrapped:
                self.received = wrapped.recv(1000)
        except (ssl.SSLError, ConnectionError):
            return

    def finish(self) -> bytes:
        self._thread.join(20)
        self._listener.close()
        return self.received


@pytest.mark.parametrize(
    ("role", "uid", "aid"), [("agent", UID, AID), ("user", UID, 0), ("manager", 8, AID), ("manager", UID, 4), ("frontend", None, None)]
)
def test_a_wrong_server_gets_not_one_byte(pki: Any, role: str, uid: int | None, aid: int | None) -> None:
    recorder = Recorder(pki.issue(role, uid, aid))
    caller = client.RpcClient(pki.issue("user"), identity.expect_manager(UID, AID))
    with pytest.raises(errors.Unreachable, match=r"127\.11\.0\.1 is not the manager of application 3 of user 7"):
        caller.post(recorder.address, "set_password", params={"password": "secret"})
    assert recorder.finish() == b""


def test_a_foreign_server_gets_not_one_byte(pki: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = type(pki)(tmp_path / "foreign")
    credentials = foreign.issue("manager")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(credentials.ca))
    monkeypatch.setenv("SSL_CERT_FILE", str(credentials.ca))
    recorder = Recorder(credentials)
    caller = client.RpcClient(pki.issue("user"), identity.expect_manager(UID, AID))
    with pytest.raises(errors.Unreachable, match="its certificate is not accepted"):
        caller.post(recorder.address, "set_password", params={"password": "secret"})
    assert recorder.finish() == b""


def test_a_client_certificate_is_no_server_certificate(pki: Any) -> None:
    recorder = Recorder(pki.issue("manager", usage=x509.USAGE_CLIENT))
    caller = client.RpcClient(pki.issue("user"), identity.expect_manager(UID, AID))
    with pytest.raises(errors.Unreachable, match="not accepted"):
        caller.post(recorder.address, "count")
    assert recorder.finish() == b""


def test_proxies_of_the_environment_are_ignored(running: Any, caller: client.RpcClient, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.11.0.9:1")
    assert caller.get(running.address, "get_service_info")["state"] == "RUNNING"


def test_the_public_authorities_are_not_trusted(running: Any, caller: client.RpcClient) -> None:
    caller.get(running.address, "get_service_info")
    context = caller._channel._opened().get_adapter("https://x")._context  # type: ignore[attr-defined]
    assert [dict(part[0] for part in entry["subject"])["commonName"] for entry in context.get_ca_certs()] == ["CA"]


def _director(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """A little of what the Director answers."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(length).decode("latin-1") if length else ""
    path = environ["PATH_INFO"]
    answers = {
        "/list": b'[{"aid": 1}]',
        "/false": b"false",
        "/refused": b'{"error": "User authentication failed"}',
        "/text": b"plain text",
        "/query": environ["QUERY_STRING"].encode(),
        "/form": f'{{"form": {"fieldvalue" in body and "filecontent" in body}}}'.lower().encode(),
        "/peer": f'"{environ["conpaas.peer"]}"'.encode(),
    }
    status = "200 OK" if path in answers else "404 Not Found"
    answer = answers.get(path, b"no such thing")
    start_response(status, [("Content-Type", "text/html"), ("Content-Length", str(len(answer)))])
    return [answer]


def test_the_director(start: Any, pki: Any, tmp_path: pathlib.Path) -> None:
    server = pki.issue("frontend", None, None, san=["127.11.0.1"])
    running = start(client_certificates="optional", app=_director, credentials=server)
    url = f"https://127.11.0.1:{running.https.port}/"
    anonymous = client.DirectorClient(url, ca=server.ca)
    assert anonymous.get("list") == [{"aid": 1}]
    assert anonymous.get("/false") is False
    assert anonymous.raw("text") == b"plain text"
    assert anonymous.raw("query", username="a b", absent=None) == b"username=a+b"
    path = tmp_path / "file"
    path.write_text("filecontent")
    assert anonymous.post("form", {"field": "fieldvalue", "absent": None}, {"file": path}) == {"form": True}
    assert anonymous.get("peer") == "None"
    for call in (anonymous.get, anonymous.raw, anonymous.post):
        with pytest.raises(errors.RemoteError, match=r"^User authentication failed$"):
            call("refused")
        with pytest.raises(errors.RemoteError, match="HTTP 404: no such thing"):
            call("absent")
    with pytest.raises(errors.RemoteError, match="not JSON"):
        anonymous.get("text")
    known = client.DirectorClient(url, pki.issue("user", UID, 0))
    assert known.get("peer") == "user 7"
    anonymous.close()
    known.close()


def test_what_is_not_the_director(start: Any, pki: Any) -> None:
    for credentials, text in ((pki.issue("manager"), "is not the Director"), (pki.issue("frontend", san=["other.example"]), "not for 127")):
        running = start(client_certificates="optional", app=_director, credentials=credentials)
        stranger = client.DirectorClient(f"https://127.11.0.1:{running.https.port}", ca=credentials.ca)
        with pytest.raises(errors.Unreachable, match=text):
            stranger.get("list")


@pytest.mark.parametrize("url", ["http://director.example:5555", "director.example", "https://", ""])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="https://host:port"):
        client.DirectorClient(url)


def test_without_any_ca_there_is_no_call() -> None:
    with pytest.raises(errors.ConfigurationError, match="no CA certificate"):
        client.DirectorClient("https://director.example:5555").get("list")
