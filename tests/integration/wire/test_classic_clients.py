"""The bytes that classic clients send, replayed, and those clients' own libraries where this machine has them."""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
from typing import Any

import pytest

UID = 7
BOUNDARY = "----------_BoUnDaRy_StRiNg_$"


@pytest.fixture
def running(start: Any) -> Any:
    return start()


@pytest.fixture
def user(pki: Any) -> Any:
    return pki.issue("user", UID, 0)


def parsed(reply: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = reply.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    return int(lines[0].split()[1]), dict(line.lower().split(": ", 1) for line in lines[1:]), body


def old_python(running: Any, verb: str, target: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    """A request as the old Python client lays it out: absolute target, no keep-alive."""
    port = running.https.port
    lines = [f"{verb} https://127.11.0.1:{port}{target} HTTP/1.1", f"Host: 127.11.0.1:{port}", "Accept-Encoding: identity"]
    lines += [f"{name}: {value}" for name, value in {**headers, "Connection": "close"}.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def old_form(fields: dict[str, str], files: list[tuple[str, str, bytes]]) -> bytes:
    """A multipart body as the old Python client encodes it: fixed boundary, names not escaped, an empty line at the end."""
    lines: list[bytes] = []
    for name, value in fields.items():
        lines += [f"--{BOUNDARY}".encode(), f'Content-Disposition: form-data; name="{name}"'.encode(), b"", value.encode()]
    for name, filename, content in files:
        disposition = f'Content-Disposition: form-data; name="{name}"; filename="{filename}"'
        lines += [f"--{BOUNDARY}".encode(), disposition.encode(), b"Content-Type: application/octet-stream", b"", content]
    return b"\r\n".join([*lines, f"--{BOUNDARY}--".encode(), b""])


def test_old_python_get(running: Any, user: Any) -> None:
    target = "/?service_id=1&params=%7B%22value%22%3A+%22x%22%7D&id=1&method=echo"
    status, headers, body = parsed(running.talk(user, old_python(running, "GET", target, {"Content-Type": "application/json"})))
    assert (status, headers["connection"]) == (200, "close")
    reply = json.loads(body)
    assert (reply["result"]["value"], reply["error"], reply["id"]) == ("x", None, "1")


def test_old_python_get_without_a_path(running: Any, user: Any) -> None:
    message = old_python(running, "GET", "?service_id=1&id=1&method=get_service_info", {"Content-Type": "application/json"})
    assert json.loads(parsed(running.talk(user, message))[2])["result"]["state"] == "RUNNING"


def test_old_python_post(running: Any, user: Any) -> None:
    body = json.dumps({"params": {"value": 1}, "service_id": 0, "method": "count", "id": "1"}).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    status, _, reply = parsed(running.talk(user, old_python(running, "POST", "/", headers, body)))
    assert (status, json.loads(reply)) == (200, {"result": 1, "error": None, "id": "1"})


def test_old_python_upload(running: Any, user: Any) -> None:
    content = bytes(range(256)) * 300 + b"\r\n--" + BOUNDARY[:-1].encode()
    body = old_form(
        {"service_id": "0", "method": "upload_code_version", "description": "first"}, [("code", "/home/me/my code.zip", content)]
    )
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", "Content-Length": str(len(body))}
    status, _, reply = parsed(running.talk(user, old_python(running, "POST", "/", headers, body)))
    answer = json.loads(reply)
    assert (status, answer["id"], answer["error"]) == (200, 1, None)
    assert answer["result"]["filename"] == "/home/me/my code.zip"
    assert answer["result"]["size"] == len(content)
    assert not pathlib.Path(answer["result"]["spooled"]).exists()


def test_an_upload_takes_the_envelope_from_its_fields_and_the_rest_as_arguments(running: Any, user: Any) -> None:
    body = old_form({"method": "upload_code_version", "service_id": "0", "id": "7"}, [("code", "x", b"x")])
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", "Content-Length": str(len(body))}
    reply = json.loads(parsed(running.talk(user, old_python(running, "POST", "/", headers, body)))[2])
    assert reply == {"error": "Unexpected parameters: {'id': '7'}.", "id": 1}


@pytest.mark.parametrize(
    ("fields", "status", "text"),
    [
        ({"method": "upload_code_version"}, 400, b"Did not specify service"),
        ({"service_id": "0"}, 400, b"Did not specify method"),
        ({"service_id": "5", "method": "upload_code_version"}, 404, b"Service not found"),
        ({"service_id": "0", "method": "count"}, 404, b"Method not found"),
    ],
)
def test_upload_routing(running: Any, user: Any, fields: dict[str, str], status: int, text: bytes) -> None:
    body = old_form(fields, [])
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", "Content-Length": str(len(body))}
    got, _, reply = parsed(running.talk(user, old_python(running, "POST", "/", headers, body)))
    assert (got, reply) == (status, text)


def test_a_download_has_the_classic_header(running: Any, user: Any, service: Any) -> None:
    (service.directory / "download").write_bytes(b"content")
    target = "/?service_id=0&params=%7B%22name%22%3A+%22a%5C%22%5Cr%5Cnb.zip%22%7D&id=1&method=download"
    message = old_python(running, "GET", target, {"Content-Type": "application/json"})
    head, _, body = running.talk(user, message).partition(b"\r\n\r\n")
    assert body == b"content"
    assert b'\r\nContent-disposition: attachement; filename="a___b.zip"\r\n' in head + b"\r\n"
    assert b"Content-Length: 7" in head


def test_http_1_0(running: Any, user: Any) -> None:
    message = b"GET /?service_id=0&method=get_service_info&id=1 HTTP/1.0\r\nContent-Type: application/json\r\n\r\n"
    status, headers, body = parsed(running.talk(user, message))
    assert (status, json.loads(body)["result"]["state"]) == (200, "RUNNING")
    assert int(headers["content-length"]) == len(body)


def test_php_dialect(running: Any, pki: Any) -> None:
    """Integer id, `jsonrpc` key, an empty list for no arguments, a URL without slash."""
    body = b'{"method":"count","params":[],"service_id":"0","id":1,"jsonrpc":"2.0"}'
    head = f"POST / HTTP/1.1\r\nHost: x\r\nAccept: */*\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    user = pki.issue("user", UID, 0)
    reply = json.loads(parsed(running.talk(user, head.encode() + b"Connection: close\r\n\r\n" + body))[2])
    assert reply == {"result": 1, "error": None, "id": 1}
    query = "service_id=0&method=echo&params=%5B%5D&id=1"
    message = f"GET /?{query} HTTP/1.1\r\nHost: x\r\nAccept: */*\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
    assert json.loads(parsed(running.talk(user, message.encode()))[2])["result"]["value"] is None


def _curl(running: Any, user: Any, *options: str) -> bytes:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    certificates = ["--cacert", str(user.ca), "--cert", str(user.certificate), "--key", str(user.key)]
    command = ["curl", "--silent", "--show-error", "--fail", "--noproxy", "*", *certificates, *options]
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("http", ["--http1.0", "--http1.1"])
def test_curl_as_php_uses_it(running: Any, user: Any, tmp_path: pathlib.Path, version: str, http: str) -> None:
    url = f"https://127.11.0.1:{running.https.port}"
    common = [http, f"--tlsv{version}", "--tls-max", version]
    query = f"{url}?service_id=0&method=get_service_info&id=1"
    reply = _curl(running, user, *common, "-H", "Content-Type: application/json", query, query)
    assert reply.count(b'"RUNNING"') == 2
    body = '{"method":"count","params":[],"service_id":0,"id":1,"jsonrpc":"2.0"}'
    assert json.loads(_curl(running, user, *common, "-H", "Content-Type: application/json", "-d", body, url))["result"] == 3
    path = tmp_path / "big.bin"
    path.write_bytes(b"y" * 3_000_000)
    form = ["-F", "method=upload_code_version", "-F", "service_id=0", "-F", f"code=@{path}", "-F", "description=d"]
    assert json.loads(_curl(running, user, *common, *form, url))["result"]["size"] == 3_000_000


OLD_CLIENT = """
import httplib, json, ssl, sys
directory, port = sys.argv[1], int(sys.argv[2])
context = ssl.SSLContext(ssl.PROTOCOL_SSLv23)
context.verify_mode = ssl.CERT_REQUIRED
context.load_verify_locations(directory + "/ca_cert.pem")
context.load_cert_chain(directory + "/cert.pem", directory + "/key.pem")
connection = httplib.HTTPSConnection("127.11.0.1", port, context=context)
url = "https://127.11.0.1:%d/?service_id=0&method=get_service_info&id=1" % port
connection.request("GET", url, headers={"Content-Type": "application/json", "Connection": "close"})
reply = connection.getresponse()
print(json.dumps([reply.status, json.loads(reply.read())["result"]["state"]]))
"""


def _old_interpreter() -> str | None:
    candidates = [shutil.which("python2.7"), *sorted(map(str, pathlib.Path.home().glob(".pyenv/versions/2.7*/bin/python2.7")))]
    for candidate in candidates:
        if candidate and subprocess.run([candidate, "-c", "import ssl"], capture_output=True, check=False).returncode == 0:
            return candidate
    return None


def test_python_2_7(running: Any, user: Any) -> None:
    interpreter = _old_interpreter()
    if interpreter is None:
        pytest.skip("there is no Python 2.7 with TLS on this machine")
    command = [interpreter, "-c", OLD_CLIENT, str(user.certificate.parent), str(running.https.port)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(result.stdout)[:2] == [200, "RUNNING"]
