"""What the web front-end of ConPaaS 2 (PHP, 2016) puts on the wire, and what it takes for a failure.

The transport is libcurl, as in PHP, so that every byte around the fields is what the front-end sends. Nothing is read here beyond whether
it is a failure; what its pages read of the replies is in `php_pages`.
"""

from __future__ import annotations

import dataclasses
import io
import json
import pathlib
import urllib.parse
import zipfile
from collections.abc import Mapping
from typing import Any, Final

import pycurl

CONNECT_TIMEOUT: Final = 5
PING_TIMEOUT: Final = 1
TIMEOUT: Final = 60
JSON_HEADER: Final = "Content-Type: application/json"
CERTIFICATE_FILES: Final = {"cert.pem", "key.pem", "ca_cert.pem"}

LOGOUT_WORDS: Final = ("not logged in", "alert decrypt error")
"""The page signs the user out when it finds these in an error, in whatever case."""


_OF_THE_DIRECTOR: Final = """
    GET /version, GET /support_external_idp, GET /support_openid, GET /debug_level/js, GET /debug_level/ajax, GET /debug_level/php,
    GET /debug_level/python, GET /available_clouds, POST /login, POST /getcerts, POST /new_user, POST /idplogin, POST /listapp, POST /list,
    POST /createapp, POST /startapp, POST /stopapp, POST /deleteapp, POST /renameapp, POST /add, POST /rename, POST /remove,
    POST /upload_manifest, POST /download_manifest, GET /list_resources
"""
_OF_MANAGERS: Final = """
    GET get_service_info, GET list_nodes, GET get_node_info, GET get_service_history, GET get_configuration, POST update_php_configuration,
    POST update_java_configuration, POST enable_code, GET list_code_versions, UPLOAD upload_code_version, POST delete_code_version,
    GET download_code_version, UPLOAD upload_authorized_key, UPLOAD upload_startup_script, GET get_startup_script, POST start_service,
    POST stop_service, POST add_nodes, POST remove_nodes, GET get_manager_log, GET get_agent_log, GET get_service_performance,
    POST list_volumes, POST create_volume, POST delete_volume, GET get_script_status, POST execute_script, POST set_password,
    UPLOAD load_dump, GET getMeanLoad, GET getGangliaParams, GET remove_specific_nodes, POST createVolume, POST deleteVolume,
    GET listVolumes, POST get_client_cert, POST get_user_cert, POST on_autoscaling, POST off_autoscaling
"""
REQUESTS: Final = {one.strip() for one in f"{_OF_THE_DIRECTOR},{_OF_MANAGERS}".split(",")}
"""Every request that the front-end makes, as `FrontEnd.requests` names them."""
NOT_REPLAYED: Final = {
    "POST /idplogin": "log-in by identity provider is not served; its button is not drawn",
    "POST createVolume": "xtreemfs",
    "POST deleteVolume": "xtreemfs",
    "GET listVolumes": "xtreemfs",
    "POST get_client_cert": "xtreemfs",
    "POST get_user_cert": "xtreemfs, and its form is hidden",
}
"""Requests of the catalogue that nothing here answers yet, or ever, and why."""


class CurlError(Exception):
    """libcurl's own failure: no connection, no answer in time, or HTTP 400 and above, of which the body is lost."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(f"cURL error {number}: {text}")
        self.number = number


class Shown(Exception):
    """An error that the front-end shows to the person: the text of the reply."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        assert text, "an error without a text is an empty box to a person"
        assert not any(word in text.lower() for word in LOGOUT_WORDS), f"this text signs the person out: {text}"


@dataclasses.dataclass(frozen=True)
class Upload:
    """A file on the front-end's disk. Its whole path goes out as its name."""

    path: pathlib.Path


Field = str | int | Upload
Params = Mapping[str, Any] | None


def php_json(value: Any) -> str:
    """As PHP encodes: no blanks, slashes and everything beyond ASCII escaped; an empty array is a list, whatever it was meant to be."""
    return json.dumps(_php(value), separators=(",", ":")).replace("/", "\\/")


def _php(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _php(one) for key, one in value.items()} or []
    return value


class Curl:
    """The front-end's `https` layer: one new connection per request; the server's chain is checked, its name is not."""

    def __init__(self, authority: pathlib.Path) -> None:
        self.authority = authority

    def get(self, url: str, identity: pathlib.Path, *, headers: tuple[str, ...] = (), ping: bool = False) -> bytes:
        return self._perform(self._handle(url, identity, headers, ping))

    def post(self, url: str, identity: pathlib.Path, fields: Mapping[str, Field], *, ping: bool = False) -> bytes:
        """With fields a multipart form, without them an empty urlencoded body."""
        handle = self._handle(url, identity, (), ping)
        if fields:
            form = pycurl.CurlMime(handle)
            for name, value in fields.items():
                _add(form, name, value)
            handle.setopt(pycurl.MIMEPOST, form)
        else:
            handle.setopt(pycurl.POST, 1)
            handle.setopt(pycurl.POSTFIELDS, "")
        return self._perform(handle)

    def post_json(self, url: str, identity: pathlib.Path, body: str) -> bytes:
        handle = self._handle(url, identity, (JSON_HEADER,), False)
        handle.setopt(pycurl.POST, 1)
        handle.setopt(pycurl.POSTFIELDS, body)
        return self._perform(handle)

    def _handle(self, url: str, identity: pathlib.Path, headers: tuple[str, ...], ping: bool) -> pycurl.Curl:
        handle = pycurl.Curl()
        options = {
            pycurl.URL: url,
            pycurl.HTTPHEADER: ["Expect:", "User-Agent:", *headers],  # pycurl would name itself, PHP does not
            pycurl.CONNECTTIMEOUT: PING_TIMEOUT if ping else CONNECT_TIMEOUT,
            pycurl.TIMEOUT: TIMEOUT,
            pycurl.FAILONERROR: 1,
            pycurl.NOSIGNAL: 1,
            pycurl.SSL_VERIFYPEER: 1,
            pycurl.SSL_VERIFYHOST: 0,
            pycurl.CAINFO: str(self.authority),
            pycurl.SSLCERT: str(identity / "cert.pem"),
            pycurl.SSLKEY: str(identity / "key.pem"),
            pycurl.PROXY: "",
        }
        for option, value in options.items():
            handle.setopt(option, value)
        return handle

    def _perform(self, handle: pycurl.Curl) -> bytes:
        received = io.BytesIO()
        handle.setopt(pycurl.WRITEDATA, received)
        try:
            handle.perform()
        except pycurl.error as error:
            raise CurlError(*error.args) from error
        finally:
            handle.close()
        return received.getvalue()


def _add(form: pycurl.CurlMime, name: str, value: Field) -> None:
    """One field: a text that begins with @ is taken for the name of a local file, whoever typed it."""
    if isinstance(value, Upload):
        path = str(value.path)
    elif str(value).startswith("@"):
        path = str(value)[1:]
    else:
        form.add_field(name, str(value).encode())
        return
    form.add_file(name, path.encode(), filename=path.encode(), content_type="application/octet-stream")


class FrontEnd:
    """One browser's session with the front-end: its configuration directory, and the directory where it keeps users' certificates.

    `requests` collects all that was sent: the Director's paths with numbers, types and clouds left out, and the managers' methods.
    """

    def __init__(self, director_url: str, certs: pathlib.Path, temp: pathlib.Path) -> None:
        self.url = director_url
        self.own = certs
        self.temp = temp
        self.curl = Curl(certs / "ca_cert.pem")
        self.uid = 0
        self.username = self.password = ""
        self.requests: set[str] = set()

    # --- the Director ------------------------------------------------------------------------------------------------

    @property
    def as_user(self) -> pathlib.Path:
        """The directory with the certificate of whoever is signed in."""
        return self.temp / str(self.uid)

    def fetch(self, path: str, identity: pathlib.Path | None = None) -> bytes:
        """A GET of the Director."""
        self._note("GET", path)
        return self.curl.get(f"{self.url}{path}", identity or self.own)

    def send(self, path: str, fields: Mapping[str, Field] | None = None, *, ping: bool = False) -> Any:
        """A POST to the Director as the user; the reply decoded, whatever it says."""
        self._note("POST", path)
        return json.loads(self.curl.post(f"{self.url}{path}", self.as_user, fields or {}, ping=ping))

    def send_as_site(self, path: str, fields: Mapping[str, Field]) -> bytes:
        """A POST to the Director with the front-end's own certificate."""
        self._note("POST", path)
        return self.curl.post(f"{self.url}{path}", self.own, fields)

    def ask(self, path: str, fields: Mapping[str, Field] | None = None) -> Any:
        """A POST whose `error` is shown, and where an empty list, false and null sign the user out."""
        reply = self.send(path, fields)
        if isinstance(reply, dict) and "error" in reply:
            raise Shown(reply["error"])
        return reply

    def _note(self, verb: str, path: str) -> None:
        first, *rest = path.strip("/").split("/")
        kept = [first, *rest] if first == "debug_level" else [first]
        self.requests.add(f"{verb} /{'/'.join(kept)}")

    # --- signing in --------------------------------------------------------------------------------------------------

    def login(self, username: str, password: str, **more: str) -> Any:
        """`/login`: the user, or false."""
        return json.loads(self.send_as_site("/login", {"username": username, "password": password, **more}))

    def fetch_certificates(self, username: str, password: str) -> bool:
        """`/getcerts`: unpack what is a ZIP, ignore silently what is not."""
        body = self.send_as_site("/getcerts", {"username": username, "password": password})
        if not zipfile.is_zipfile(io.BytesIO(body)):
            return False
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            assert set(archive.namelist()) == CERTIFICATE_FILES
            archive.extractall(self.as_user)
        return True

    # --- managers ----------------------------------------------------------------------------------------------------

    def get_raw(self, manager: str, service_id: int, method: str, params: Params = None, *, ping: bool = False) -> bytes:
        """A GET of a manager; everything in the query is text."""
        self.requests.add(f"GET {method}")
        query = {"method": method, "service_id": service_id, "params": php_json(params or {}), "id": 1}
        return self.curl.get(f"https://{manager}/?{urllib.parse.urlencode(query)}", self.own, headers=(JSON_HEADER,), ping=ping)

    def get(self, manager: str, service_id: int, method: str, params: Params = None, *, ping: bool = False) -> Any:
        return self._result(self.get_raw(manager, service_id, method, params, ping=ping), "1")

    def post(self, manager: str, service_id: int | str, method: str, params: Params = None) -> Any:
        """A POST of JSON. `service_id` is a text where the front-end took it from the browser's request."""
        self.requests.add(f"POST {method}")
        call = {"method": method, "service_id": service_id, "params": params or {}, "jsonrpc": "2.0", "id": 1}
        return self._result(self.curl.post_json(f"https://{manager}/", self.own, php_json(call)), 1)

    def upload(self, manager: str, service_id: int, method: str, fields: Mapping[str, Field]) -> Any:
        """An upload. The browser gets the raw reply as one string and reads nothing of it; here its error is raised all the same."""
        self.requests.add(f"UPLOAD {method}")
        body = self.curl.post(f"https://{manager}/", self.own, {"method": method, "service_id": str(service_id), **fields})
        return self._result(body, 1)

    def _result(self, body: bytes, call_id: Any) -> Any:
        """The result of a reply, by the front-end's rules."""
        reply = json.loads(body)
        assert isinstance(reply, dict) and reply, f"a parse error to the front-end: {body!r}"
        assert reply["id"] == call_id
        error = reply.get("error")
        if error is not None:
            raise Shown(error["message"] if isinstance(error, dict) else error)
        assert reply["result"] is not None, "null counts as unreachable"
        return reply["result"]
