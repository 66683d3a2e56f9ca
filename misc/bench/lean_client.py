"""A client that costs almost nothing: raw TLS sockets and a prepared request, so that a benchmark measures the server.

    python lean_client.py HOST PORT CERTIFICATE_DIR REQUESTS keep|new

prints one line of JSON: the seconds it took and the latency of each request in microseconds.
"""

from __future__ import annotations

import json
import pathlib
import socket
import ssl
import sys
import time

RECEIVE = 64 * 1024


def context(directory: pathlib.Path) -> ssl.SSLContext:
    """A client context with the certificate, key and CA of a directory."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.load_verify_locations(directory / "ca_cert.pem")
    made.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    return made


def connect(address: tuple[str, int], tls: ssl.SSLContext) -> ssl.SSLSocket:
    """A connection with its handshake done."""
    plain = socket.create_connection(address, timeout=60)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return tls.wrap_socket(plain)


def request(host: str, method: str = "get_service_info", close: bool = False) -> bytes:
    """The bytes of a GET call on service 1."""
    connection = "Connection: close\r\n" if close else ""
    line = f"GET /?service_id=1&method={method}&id=1 HTTP/1.1\r\n"
    return f"{line}Host: {host}\r\nContent-Type: application/json\r\n{connection}\r\n".encode()


def exchange(sock: ssl.SSLSocket, message: bytes) -> bytes:
    """Send a request and return the body of its reply; raises ConnectionError if it is not a result."""
    sock.sendall(message)
    data = sock.recv(RECEIVE)
    head, separator, body = data.partition(b"\r\n\r\n")
    while not separator:
        data += _more(sock)
        head, separator, body = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise ConnectionError(f"unexpected reply: {data[:200]!r}")
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += _more(sock)
    if b'"error":null' not in body:
        raise ConnectionError(f"an error in place of a result: {body[:200]!r}")
    return body


def _more(sock: ssl.SSLSocket) -> bytes:
    data = sock.recv(RECEIVE)
    if not data:
        raise ConnectionError("the server closed the connection in the middle of a reply")
    return data


def run(address: tuple[str, int], directory: pathlib.Path, requests: int, mode: str) -> dict[str, object]:
    """Make the requests one after another, on one connection or on a new one each."""
    tls = context(directory)
    message = request(address[0], close=mode == "new")
    latencies = []
    sock = None if mode == "new" else connect(address, tls)
    started = time.perf_counter()
    for _ in range(requests):
        begin = time.perf_counter()
        if sock is None:
            with connect(address, tls) as single:
                exchange(single, message)
        else:
            exchange(sock, message)
        latencies.append(round((time.perf_counter() - begin) * 1e6))
    seconds = time.perf_counter() - started
    if sock is not None:
        sock.close()
    return {"seconds": seconds, "latencies": latencies}


if __name__ == "__main__":
    host, port, directory, requests, mode = sys.argv[1:]
    print(json.dumps(run((host, int(port)), pathlib.Path(directory), int(requests), mode)))
