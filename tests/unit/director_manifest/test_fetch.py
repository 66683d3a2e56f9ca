"""Fetching files over HTTP, within bounds and from public addresses only; against a server on a loopback address."""

from __future__ import annotations

import http.server
import pathlib
import ssl
import threading
from collections.abc import Callable, Iterator

import pytest

from conpaas.core import data_urls, errors
from conpaas.core.https import x509
from conpaas.director.manifest import fetch

HOST = "127.96.1.1"


class Web:
    """A web server whose answers a test writes; `paths` are those that were asked for."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.answers: dict[str, Callable[[http.server.BaseHTTPRequestHandler], None]] = {}
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.paths.append(self.path)
                web.answers[self.path](self)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer((HOST, 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def content(body: bytes, *, announced: int | None = None, status: int = 200) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        if announced != -1:
            handler.send_header("Content-Length", str(len(body) if announced is None else announced))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def redirect(where: str) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", where)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


@pytest.fixture
def web() -> Iterator[Web]:
    made = Web()
    yield made
    made.close()


@pytest.fixture
def target(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "files" / "target"


def fetcher(**changes: object) -> fetch.Fetcher:
    return fetch.Fetcher(**{"private": True, "pause": lambda seconds: None, **changes})  # type: ignore[arg-type]


def test_a_file_is_fetched_and_has_the_name_of_its_url(web: Web, target: pathlib.Path) -> None:
    web.answers["/a/my%20code.tar?v=1"] = content(b"x" * 1000)
    assert fetcher().fetch(f"{web.url}/a/my%20code.tar?v=1", target, 1000) == "my code.tar"
    assert target.read_bytes() == b"x" * 1000


def test_a_redirection_is_followed(web: Web, target: pathlib.Path) -> None:
    web.answers |= {"/old": redirect("/new"), "/new": content(b"new")}
    fetcher().fetch(f"{web.url}/old", target, 10)
    assert target.read_bytes() == b"new"


def test_endless_redirections_end(web: Web, target: pathlib.Path) -> None:
    web.answers["/loop"] = redirect("/loop")
    with pytest.raises(errors.OperationFailed, match="that is too many"):
        fetcher().fetch(f"{web.url}/loop", target, 10)
    assert len(web.paths) == fetch.REDIRECTS + 1


@pytest.mark.parametrize("where", ["file:///etc/passwd", "ftp://example.org/x", "gopher://example.org"])
def test_a_redirection_cannot_leave_http(web: Web, target: pathlib.Path, where: str) -> None:
    web.answers["/x"] = redirect(where)
    with pytest.raises(errors.InvalidArgument, match="only http, https and data URLs can"):
        fetcher().fetch(f"{web.url}/x", target, 10)


@pytest.mark.parametrize("announced", [None, -1], ids=["announced", "unannounced"])
def test_a_file_that_is_too_large_leaves_nothing(web: Web, target: pathlib.Path, announced: int | None) -> None:
    web.answers["/x"] = content(b"x" * 100, announced=announced)
    with pytest.raises(errors.TooLarge, match="more than the 99 bytes"):
        fetcher().fetch(f"{web.url}/x", target, 99)
    assert list(target.parent.iterdir()) == []
    assert web.paths == ["/x"]


def test_a_broken_off_answer_is_fetched_again(web: Web, target: pathlib.Path) -> None:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        content(b"half", announced=8 if len(web.paths) == 1 else 4)(handler)

    web.answers["/x"] = answer
    fetcher().fetch(f"{web.url}/x", target, 10)
    assert target.read_bytes() == b"half"
    assert len(web.paths) == 2


def test_a_server_in_trouble_is_asked_a_few_times(web: Web, target: pathlib.Path) -> None:
    web.answers["/x"] = content(b"", status=503)
    with pytest.raises(errors.OperationFailed, match="cannot be fetched: the server answered with HTTP 503"):
        fetcher().fetch(f"{web.url}/x", target, 10)
    assert len(web.paths) == fetch.ATTEMPTS


def test_what_is_not_there_is_asked_for_once(web: Web, target: pathlib.Path) -> None:
    web.answers["/x"] = content(b"", status=404)
    with pytest.raises(errors.OperationFailed, match="HTTP 404"):
        fetcher().fetch(f"{web.url}/x", target, 10)
    assert web.paths == ["/x"]


@pytest.mark.parametrize("head", [True, False], ids=["headers", "body"])
def test_a_server_that_drips_is_cut_off(web: Web, target: pathlib.Path, head: bool) -> None:
    over = threading.Event()

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        if not head:
            handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
        try:
            while not over.wait(0.02):
                handler.wfile.write(b"x")
        except OSError:
            return

    web.answers["/x"] = answer
    with pytest.raises(errors.OperationFailed, match="it took too long"):
        fetcher(total_timeout=0.3, attempts=1).fetch(f"{web.url}/x", target, 10**9)
    over.set()


def test_nobody_there(target: pathlib.Path) -> None:
    with pytest.raises(errors.OperationFailed, match=r"http://127\.96\.1\.2/x cannot be fetched: Connection refused"):
        fetcher().fetch("http://127.96.1.2:9/x", target, 10)


@pytest.mark.parametrize("host", [HOST, "localhost", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]"])
def test_private_addresses_are_refused_however_they_are_written(web: Web, target: pathlib.Path, host: str) -> None:
    with pytest.raises(errors.ConPaaSError) as caught:
        fetcher(private=False).fetch(f"http://{host}:{web.server.server_port}/x", target, 10)
    assert "not a public one" in str(caught.value) or "is not known" in str(caught.value)
    assert web.paths == []


def test_a_redirection_to_a_private_address_is_refused(web: Web, target: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "is_public", lambda address: address == HOST)
    web.answers["/x"] = redirect("http://127.96.1.2/secret")
    with pytest.raises(errors.InvalidArgument, match=r"127\.96\.1\.2, which is not a public one"):
        fetcher(private=False).fetch(f"{web.url}/x", target, 10)


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1", "172.16.0.1", "192.168.1.1", "127.0.0.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1", "255.255.255.255",
        "240.0.0.1", "::1", "::", "fe80::1%eth0", "fd00::1", "ff02::1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::",
    ],
)  # fmt: skip
def test_what_is_not_public(address: str) -> None:
    assert not fetch.is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700:4700::1111", "64:ff9b::101:101"])
def test_what_is_public(address: str) -> None:
    assert fetch.is_public(address)


def test_a_password_in_a_url_is_refused_and_not_repeated(target: pathlib.Path) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        fetcher().fetch("http://ann:geheim@example.org/x", target, 10)
    assert "geheim" not in str(caught.value)


def test_a_data_url_brings_its_content(target: pathlib.Path) -> None:
    assert fetcher(private=False).fetch(data_urls.encode("a.tar", b"abc"), target, 3) == "a.tar"
    assert target.read_bytes() == b"abc"
    with pytest.raises(errors.TooLarge):
        fetcher().fetch(data_urls.encode("a.tar", b"abcd"), target, 3)


def test_the_caller_can_stop_it(web: Web, target: pathlib.Path) -> None:
    web.answers["/x"] = content(b"x" * 100)

    def unwanted() -> None:
        if web.paths:
            raise errors.OperationFailed("stopped")

    with pytest.raises(errors.OperationFailed, match="stopped"):
        fetcher().fetch(f"{web.url}/x", target, 1000, unwanted)
    assert not target.exists()


@pytest.fixture
def secure(web: Web, tmp_path: pathlib.Path) -> pathlib.Path:
    """The web server speaks TLS with a certificate for its address; the file of the authority that signed it."""
    key, authority = x509.new_ca()
    own = x509.new_key()
    certificate = x509.issue(key, authority, own.public_key(), {"role": "frontend", "CN": "web"}, days=1, san=[HOST])
    (tmp_path / "chain.pem").write_text(certificate + x509.key_pem(own))
    (tmp_path / "ca.pem").write_text(x509.certificate_pem(authority))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "chain.pem")
    web.server.socket = context.wrap_socket(web.server.socket, server_side=True)
    return tmp_path / "ca.pem"


def test_certificates_are_verified(web: Web, target: pathlib.Path, secure: pathlib.Path) -> None:
    web.answers["/x"] = content(b"x")
    url = web.url.replace("http:", "https:") + "/x"
    with pytest.raises(errors.OperationFailed, match=r"The certificate of .* is not accepted"):
        fetcher().fetch(url, target, 10)
    trusting = fetcher(context=lambda: ssl.create_default_context(cafile=secure))
    assert trusting.fetch(url, target, 10) == "x"
    web.answers["/down"] = redirect("http://example.org/x")
    with pytest.raises(errors.OperationFailed, match="which is not https"):
        trusting.fetch(url[:-1] + "down", target, 10)


def test_files_are_fetched_once_per_operation(web: Web, tmp_path: pathlib.Path) -> None:
    web.answers["/x"] = content(b"x")
    files = fetch.Files(tmp_path / "manifests", fetcher())
    for _ in range(2):
        name, path = files.get("op1", "0-Archive", f"{web.url}/x", 10, lambda: None)
        assert (name, path.read_bytes()) == ("x", b"x")
    assert web.paths == ["/x"]
    files.get("op2", "0-Archive", f"{web.url}/x", 10, lambda: None)
    files.keep_only(["op2"])
    assert [entry.name for entry in (tmp_path / "manifests").iterdir()] == ["op2"]
    files.discard("op2")
    files.discard("op2")
    assert list((tmp_path / "manifests").iterdir()) == []


def test_a_file_whose_name_did_not_come_to_the_disk_is_fetched_again(web: Web, tmp_path: pathlib.Path) -> None:
    """A process that is killed leaves the file, or the file with its name, and never a name of which a part is missing."""
    web.answers["/x"] = content(b"x")
    files = fetch.Files(tmp_path, fetcher())
    written: list[bool] = []

    def killed(path: pathlib.Path, *_: object, **__: object) -> None:
        path.touch()
        written.append(True)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(pathlib.Path, "write_text", killed)
        patched.setattr("conpaas.core.file.write_atomically", lambda path, *_: killed(path.with_name(".draft")))
        files.get("op1", "0-Archive", f"{web.url}/x", 10, lambda: None)
    assert written
    assert files.get("op1", "0-Archive", f"{web.url}/x", 10, lambda: None)[0] == "x"


def test_the_files_of_one_manifest_together_are_bounded(web: Web, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "MAX_TOGETHER", 25)
    files = fetch.Files(tmp_path, fetcher())
    web.answers["/x"] = content(b"0123456789")
    for number in range(2):
        files.get("op1", f"{number}-Archive", f"{web.url}/x", 10, lambda: None)
    with pytest.raises(errors.TooLarge, match="together"):
        files.get("op1", "2-Archive", f"{web.url}/x", 10, lambda: None)
    files.get("op2", "0-Archive", f"{web.url}/x", 10, lambda: None)


def test_fetched_files_leave_room_on_the_disk(web: Web, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conpaas.core.file.free_bytes", lambda _: fetch.RESERVE - 1)
    web.answers["/x"] = content(b"x")
    with pytest.raises(errors.StorageFull, match="disk of the Director"):
        fetch.Files(tmp_path, fetcher()).get("op1", "0-Archive", f"{web.url}/x", 10, lambda: None)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
