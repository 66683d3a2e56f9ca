"""Every row of the failure matrix, and requests meant to hurt."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import ssl
from typing import Any

import pytest

GOOD = b"GET /?service_id=0&method=get_service_info&id=1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\r\n"
CLOSING = GOOD.replace(b"Host", b"Connection: close\r\nHost")
JSON_HEAD = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n"
ENVELOPE = {"service_id": 0, "method": "count", "id": 5, "params": {}}


def post(body: bytes, content_type: str = "application/json") -> bytes:
    return JSON_HEAD.format(content_type, len(body)).encode() + body


def get(query: str, headers: str = "Content-Type: application/json\r\n", verb: str = "GET") -> bytes:
    return f"{verb} {query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n".encode()


def read_to_end(sock: socket.socket) -> bytes:
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


def parsed(reply: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = reply.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    return int(lines[0].split()[1]), headers, body


CASES: dict[str, tuple[bytes, int, str]] = {
    "path": (get("/other?service_id=0"), 404, "/other"),
    "no content type": (get("/?service_id=0&method=get_service_info&id=1", ""), 415, "Content-Type is missing"),
    "content type of GET": (get("/", "Content-Type: text/plain\r\n"), 415, "text/plain"),
    "multipart GET": (get("/", "Content-Type: multipart/form-data; boundary=b\r\n"), 415, "multipart/form-data"),
    "content type of POST": (post(b"{}", "text/xml"), 415, "text/xml"),
    "charset": (post(b"{}", "application/json; charset=utf-16"), 415, "utf-16"),
    "other verb": (get("/", verb="PUT"), 405, "GET and POST"),
    "HEAD": (get("/", verb="HEAD"), 405, ""),
    "OPTIONS": (get("/", verb="OPTIONS"), 405, "GET and POST"),
    "CONNECT": (get("x:443", verb="CONNECT"), 404, ""),
    "lower-case verb": (get("/", verb="get"), 400, "method"),
    "no length": (get("/", verb="POST"), 411, "Content-Length"),
    "length not digits": (get("/", "Content-Type: application/json\r\nContent-Length: x\r\n", "POST"), 400, "Content-Length"),
    "negative length": (get("/", "Content-Type: application/json\r\nContent-Length: -5\r\n", "POST"), 400, "Content-Length"),
    "length with sign": (get("/", "Content-Type: application/json\r\nContent-Length: +5\r\n", "POST"), 400, "Content-Length"),
    "two lengths": (get("/", "Content-Length: 1\r\nContent-Length: 2\r\n", "POST"), 400, "twice"),
    "endless length": (get("/", "Content-Type: application/json\r\nContent-Length: " + "9" * 40 + "\r\n", "POST"), 400, "Content-Length"),
    "chunked": (
        get("/", "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n", "POST") + b"2\r\n{}\r\n0\r\n\r\n",
        411,
        "chunked",
    ),
    "JSON too large": (get("/", "Content-Type: application/json\r\nContent-Length: 999999999\r\n", "POST"), 413, "more than"),
    "upload too large": (
        get("/", "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 99999999999\r\n", "POST"),
        413,
        "at most",
    ),
    "no service": (get("/?method=get_service_info&id=1"), 400, "Did not specify service"),
    "blank service": (get("/?service_id=&method=get_service_info&id=1"), 400, "Did not specify service"),
    "unknown service": (get("/?service_id=9&method=get_service_info&id=1"), 404, "Service not found"),
    "no method": (get("/?service_id=0&id=1"), 400, "Did not specify method"),
    "unknown method": (get("/?service_id=0&method=nope&id=1"), 404, "Method not found"),
    "method of another verb": (get("/?service_id=0&method=count&id=1"), 404, "Method not found"),
    "service not a number": (get("/?service_id=x&method=get_service_info&id=1"), 400, "'service_id'"),
    "service true": (post(json.dumps({**ENVELOPE, "service_id": True}).encode()), 400, "'service_id'"),
    "no id": (get("/?service_id=0&method=get_service_info"), 400, "'id'"),
    "no id in POST": (post(b'{"service_id":0,"method":"count"}'), 400, "'id'"),
    "params not JSON": (get("/?service_id=0&method=echo&id=1&params=%7B"), 400, "'params'"),
    "params not an object": (get("/?service_id=0&method=echo&id=1&params=5"), 400, "'params'"),
    "query not UTF-8": (get("/?service_id=%ff"), 400, "query string"),
    "too many query fields": (get("/?" + "&".join(f"f{n}=1" for n in range(200))), 400, "query string"),
    "body not JSON": (post(b"{"), 400, "not valid JSON"),
    "body empty": (post(b""), 400, "not valid JSON"),
    "body a list": (post(b"[]"), 400, "must be a JSON object"),
    "body not UTF-8": (post(b'{"id": "\xff"}'), 400, "not valid JSON"),
    "body UTF-16": (post(json.dumps(ENVELOPE).encode("utf-16")), 400, "not valid JSON"),
    "NaN": (post(b'{"service_id":0,"method":"count","id":1,"params":{"value":NaN}}'), 400, "NaN"),
    "endless number": (post(b'{"id": ' + b"9" * 5000 + b"}"), 400, "not valid JSON"),
    "deep JSON": (post(b'{"id": ' + b"[" * 10000 + b"]" * 10000 + b"}"), 400, "nested too deeply"),
    "upload without boundary": (post(b"--b--", "multipart/form-data"), 400, "boundary"),
    "upload garbage": (post(b"garbage", "multipart/form-data; boundary=b"), 400, "malformed"),
    "no protocol": (b"GET /\r\n\r\n", 400, "Request-Line"),
    "unknown protocol": (b"GET / SPDY/3\r\n\r\n", 400, "bad protocol"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, ""),
    "bare line feeds": (b"GET / HTTP/1.1\nHost: x\n\n", 400, "CRLF"),
    "bad target": (b"GET //[ HTTP/1.1\r\n\r\n", 400, "target"),
    "header without colon": (get("/", "nonsense\r\n"), 400, "header line"),
    "space before colon": (get("/", "Content-Length : 5\r\n"), 400, "header line"),
    "NUL in a header": (get("/", "X: a\0b\r\n"), 400, "header line"),
    "huge headers": (get("/", "X: " + "y" * 200_000 + "\r\n"), 431, ""),
    "huge request line": (get("/?" + "y" * 200_000), 431, ""),
}


@pytest.fixture
def running(start: Any) -> Any:
    return start()


@pytest.mark.parametrize("case", CASES)
def test_refusals(running: Any, manager: Any, caplog: pytest.LogCaptureFixture, case: str) -> None:
    message, status, text = CASES[case]
    with caplog.at_level(logging.WARNING):
        got, headers, body = parsed(running.talk(manager, message))
    assert got == status
    assert headers["connection"] == "close"
    assert headers["content-type"]
    assert int(headers["content-length"]) == len(body) or case == "HEAD"
    assert text in body.decode()
    if headers["content-type"] == "application/json":
        assert set(json.loads(body)) == {"error", "id"}
    assert not caplog.records, "a peer's mistake is no event for the log"
    assert parsed(running.talk(manager, CLOSING))[0] == 200


def test_a_known_id_is_echoed_in_refusals(running: Any, manager: Any) -> None:
    _, _, body = parsed(running.talk(manager, post(json.dumps({**ENVELOPE, "params": 5}).encode())))
    assert json.loads(body)["id"] == 5
    _, _, body = parsed(running.talk(manager, get("/?service_id=0&method=echo&id=abc&params=%7B")))
    assert json.loads(body)["id"] == "abc"


@pytest.mark.parametrize(
    "message",
    [
        post(json.dumps(ENVELOPE).encode(), "application/json; charset=UTF-8"),
        post(json.dumps(ENVELOPE).encode(), 'application/json;charset="utf-8"'),
        post(json.dumps(ENVELOPE).encode(), "application/json-rpc"),
        post(json.dumps(ENVELOPE).encode(), "Application/JSONRequest"),
        post(json.dumps({**ENVELOPE, "service_id": "0", "params": [], "jsonrpc": "2.0", "extra": {}}).encode()),
        post(b'{"method":"absent","service_id":0,"id":5,"method":"count","params":{}}'),
        b"\r\n" + post(json.dumps(ENVELOPE).encode()),
    ],
)
def test_tolerated_forms(running: Any, manager: Any, message: bytes) -> None:
    status, headers, body = parsed(running.talk(manager, message))
    assert (status, json.loads(body)) == (200, {"result": 1, "error": None, "id": 5})
    assert headers["content-type"] == "application/json"


def test_extra_paths(running: Any, manager: Any, pki: Any) -> None:
    status, headers, body = parsed(running.talk(manager, get("/health", "")))
    assert (status, body) == (200, b"fine\n")
    assert headers["content-type"].startswith("text/plain")
    assert parsed(running.talk(pki.issue("agent"), get("/health", "")))[0] == 403


def test_half_a_request_is_given_up(start: Any, manager: Any, caplog: pytest.LogCaptureFixture) -> None:
    running = start(head_timeout=0.2, idle_timeout=60)
    assert parsed(running.talk(manager, GOOD[:30]))[0] == 408
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("length", [50, 500_000])
def test_half_a_body_is_given_up(start: Any, manager: Any, length: int) -> None:
    running = start(io_timeout=0.2, body_rate=10_000_000)
    head = get("/", f"Content-Type: application/json\r\nContent-Length: {length}\r\n", "POST")
    status, headers, _ = parsed(running.talk(manager, head + b"{"))
    assert (status, headers["connection"]) == (408, "close")


@pytest.mark.parametrize("length", [50, 500_000])
def test_a_body_that_ends_early_does_no_harm(running: Any, manager: Any, length: int, caplog: pytest.LogCaptureFixture) -> None:
    with running.connect(manager) as sock:
        sock.sendall(get("/", f"Content-Type: application/json\r\nContent-Length: {length}\r\n", "POST") + b"{")
        with contextlib.suppress(ssl.SSLError):
            sock.unwrap()
    assert parsed(running.talk(manager, CLOSING))[0] == 200
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_an_idle_connection_is_closed_after_its_time(start: Any, manager: Any) -> None:
    running = start(idle_timeout=0.2)
    with running.connect(manager) as sock:
        sock.sendall(GOOD)
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")
        assert sock.recv(65536) == b""


def test_a_connection_without_handshake_is_closed_after_its_time(start: Any) -> None:
    running = start(handshake_timeout=0.2)
    with running.connect_plain() as sock:
        assert sock.recv(100) == b""
    with running.connect_plain() as sock:
        sock.sendall(b"\x16\x03\x01\x02\x00")
        assert sock.recv(100) == b""


@pytest.mark.parametrize("garbage", [b"garbage" * 100, b"\x16\x03\x01\xff\xff" + b"\0" * 70000, b"\x80" * 20, b"SSH-2.0-x\r\n"])
def test_garbage_instead_of_a_handshake(running: Any, manager: Any, caplog: pytest.LogCaptureFixture, garbage: bytes) -> None:
    with running.connect_plain() as sock, caplog.at_level(logging.WARNING), contextlib.suppress(ConnectionError):
        sock.sendall(garbage)
        read_to_end(sock)
    assert not caplog.records
    assert parsed(running.talk(manager, CLOSING))[0] == 200


def test_plain_http_is_told_to_use_https(running: Any) -> None:
    with running.connect_plain() as sock:
        sock.sendall(GOOD)
        reply = read_to_end(sock)
    assert parsed(reply)[0] == 400
    assert b"HTTPS" in reply


def test_connecting_and_leaving_does_no_harm(running: Any, manager: Any, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(20):
        running.connect_plain().close()
        sock = running.connect_plain()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
        running.connect(manager).close()
    assert parsed(running.talk(manager, CLOSING))[0] == 200
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_leaving_in_the_middle_of_a_download_does_no_harm(
    running: Any, manager: Any, service: Any, caplog: pytest.LogCaptureFixture
) -> None:
    (service.directory / "download").write_bytes(b"x" * 5_000_000)
    with running.connect(manager) as sock:
        sock.sendall(get("/?service_id=0&method=download&id=1&params=%7B%22name%22%3A%22x%22%7D"))
        assert sock.recv(100)
    assert parsed(running.talk(manager, CLOSING))[0] == 200
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_pipelined_requests_are_answered_in_turn(running: Any, manager: Any) -> None:
    reply = running.talk(manager, GOOD * 40 + CLOSING)
    assert reply.count(b"HTTP/1.1 200 OK") == 41


def test_a_request_in_small_pieces_is_answered(running: Any, manager: Any) -> None:
    with running.connect(manager) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        message = post(json.dumps(ENVELOPE).encode())
        for start_ in range(0, len(message), 7):
            sock.sendall(message[start_ : start_ + 7])
        status, _, body = parsed(sock.recv(65536))
    assert (status, json.loads(body)["result"]) == (200, 1)


def test_an_unwanted_body_does_not_hide_the_answer(running: Any, manager: Any) -> None:
    message = get("/other", "Content-Type: application/json\r\nContent-Length: 3000000\r\n", "POST") + b"x" * 3_000_000
    assert parsed(running.talk(manager, message))[0] == 404


@pytest.mark.parametrize("padding", [0, 500_000])
def test_expect_continue(running: Any, manager: Any, padding: int) -> None:
    body = json.dumps(ENVELOPE).encode() + b" " * padding
    head = JSON_HEAD.format("application/json", len(body)).replace("Host", "Expect: 100-continue\r\nHost").encode()
    with running.connect(manager) as sock:
        sock.sendall(head)
        assert sock.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        assert parsed(sock.recv(65536))[0] == 200


def test_an_unwanted_large_body_is_not_invited(running: Any, manager: Any) -> None:
    head = JSON_HEAD.format("application/json", 500_000).replace("Host", "Expect: 100-continue\r\nHost").encode()
    assert parsed(running.talk(manager, head.replace(b"POST /", b"POST /other")))[0] == 404
