"""What many, idle, slow and stuck peers cost the others: nothing."""

from __future__ import annotations

import contextlib
import json
import pathlib
import threading
from typing import Any

import pytest

CALL = b"GET /?service_id=0&method=%s&id=1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\r\n"
INFO = CALL % b"get_service_info"
BLOCK = CALL % b"block"


def ask(sock: Any) -> Any:
    sock.sendall(INFO)
    return json.loads(sock.recv(65536).partition(b"\r\n\r\n")[2])["result"]["state"]


def workers() -> int:
    return sum(thread.name.startswith("https-") for thread in threading.enumerate())


def test_idle_and_half_open_connections_need_no_worker(start: Any, manager: Any) -> None:
    running = start(min_workers=1, max_workers=1)
    with contextlib.ExitStack() as stack:
        raw = [stack.enter_context(running.connect_plain()) for _ in range(200)]
        idle = [stack.enter_context(running.connect(manager)) for _ in range(200)]
        for sock in raw[:50]:
            sock.sendall(b"\x16\x03\x01\x02\x00\x01")
        for sock in idle[:50]:
            sock.sendall(INFO[:20])
        for sock in idle[50:100]:
            sock.sendall(b"POST / HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{")
        for _ in range(5):
            with running.connect(manager) as one:
                assert ask(one) == "RUNNING"
        assert ask(idle[-1]) == "RUNNING"
        idle[0].sendall(INFO[20:])
        assert idle[0].recv(65536).startswith(b"HTTP/1.1 200")


def test_workers_are_added_while_calls_are_stuck(start: Any, manager: Any, service: Any) -> None:
    running = start(min_workers=1, max_workers=10)
    with contextlib.ExitStack() as stack:
        stuck = [stack.enter_context(running.connect(manager)) for _ in range(9)]
        for sock in stuck:
            sock.sendall(BLOCK)
        for _ in stuck:
            assert service.entered.acquire(timeout=20)
        with running.connect(manager) as one:
            assert ask(one) == "RUNNING"
        service.release.set()
        for sock in stuck:
            assert b"released" in sock.recv(65536)


def test_beyond_the_limit_the_longest_idle_connection_makes_room(start: Any, manager: Any) -> None:
    running = start(connections=10)
    with contextlib.ExitStack() as stack:
        kept = [stack.enter_context(running.connect(manager)) for _ in range(5)]
        for sock in kept:
            assert ask(sock) == "RUNNING"
        raw = [stack.enter_context(running.connect_plain()) for _ in range(15)]
        assert raw[0].recv(1) == b"", "a connection without handshake goes first"
        with running.connect(manager) as one:
            assert ask(one) == "RUNNING"
        for sock in kept:
            assert ask(sock) == "RUNNING"


@pytest.mark.parametrize("descriptors", [64])
def test_running_out_of_descriptors_is_survived(pki: Any, tmp_path: pathlib.Path, descriptors: int) -> None:
    import subprocess
    import sys

    code = """
import pathlib, resource, socket, ssl, sys
from conpaas.core import rpc
from conpaas.core.https import client, identity, server
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]), int(sys.argv[2])))
credentials = identity.Credentials.from_dir(pathlib.Path(sys.argv[1]))
wsgi = server.rpc_wsgi(rpc.RpcApplication(), identity.manager_callers(7, 3), {"/health": server.text_page(lambda: "fine")})
https = server.HttpsServer(("127.11.0.2", 0), wsgi, credentials)
https.start_in_thread()
print(https.port, flush=True)
sys.stdin.read()
https.stop()
"""
    credentials = pki.issue("manager")
    command = [sys.executable, "-c", code, str(credentials.certificate.parent), str(descriptors)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process, contextlib.ExitStack() as stack:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        for _ in range(descriptors * 3):
            stack.enter_context(contextlib.closing(_connect(port)))
        context = _context(credentials)
        with context.wrap_socket(_connect(port)) as sock:
            sock.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert sock.recv(65536).endswith(b"fine")
        process.communicate("", timeout=20)
        assert process.returncode == 0


def _connect(port: int) -> Any:
    import socket

    return socket.create_connection(("127.11.0.2", port), timeout=20)


def _context(credentials: Any) -> Any:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    credentials.load_into(context)
    return context


def test_stopping_ends_threads_and_connections(start: Any, manager: Any) -> None:
    before = workers()
    running = start(min_workers=3)
    with running.connect(manager) as sock:
        assert ask(sock) == "RUNNING"
        running.https.stop()
        running.https.stop()
        assert sock.recv(1) == b""
    assert workers() == before
    with pytest.raises(ConnectionRefusedError):
        running.connect_plain()


def test_a_stuck_call_does_not_keep_the_server_from_ending(start: Any, manager: Any, service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from conpaas.core.https import engine

    monkeypatch.setattr(engine, "_STOP_TIMEOUT", 0.2)
    running = start()
    with running.connect(manager) as sock:
        sock.sendall(BLOCK)
        assert service.entered.acquire(timeout=20)
        running.https.stop()
        service.release.set()


def test_refused_peers_that_do_not_leave_need_no_worker(start: Any, manager: Any) -> None:
    running = start(min_workers=1, max_workers=1)
    with contextlib.ExitStack() as stack:
        for number in range(40):
            sock = stack.enter_context(running.connect(manager))
            sock.sendall(b"nonsense\r\n\r\n" if number % 2 else b"POST /x HTTP/1.1\r\nContent-Length: 500000\r\n\r\nx")
        for _ in range(20):
            stack.enter_context(running.connect_plain()).sendall(b"GET / HTTP/1.1\r\n\r\n")
        with running.connect(manager) as one:
            assert ask(one) == "RUNNING"
