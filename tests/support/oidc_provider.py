"""A small OpenID Connect provider, run as a process of its own: `python -m tests.support.oidc_provider HOST CERT KEY`.

It writes its issuer on standard output once it listens, and ends when its standard input is closed. Who comes to `/authorize` is signed in
at once, as the person that was last sent to `/control` (a JSON object of claims). There, `fault` names what is wrong from now on. With
tokens: signature, audience, nonce, expired, issuer, secret (signed with the client's secret), none (not signed), azp, subject, missing (no
nonce); `moved` answers a request for keys with a redirect, `description` tells of another issuer. `rotate` gives it another key.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import json
import pathlib
import secrets
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib import parse

from joserfc import jwk, jwt

from conpaas.core.https import x509

CLIENT_ID, CLIENT_SECRET = "conpaas & co", "se:cret%20"


class Provider:
    """What the provider knows."""

    def __init__(self) -> None:
        self.issuer = ""
        self.person: dict[str, Any] = {"sub": "s1", "email": "ann@idp.example", "email_verified": True, "preferred_username": "ann"}
        self.fault = ""
        self.codes: dict[str, dict[str, str]] = {}
        self.keys: list[jwk.RSAKey] = []
        self.fetched = 0
        self.rotate()

    def rotate(self) -> None:
        self.keys = [jwk.RSAKey.generate_key(2048, {"kid": secrets.token_hex(4), "use": "sig", "alg": "RS256"}, private=True)]

    def control(self, wanted: dict[str, Any]) -> dict[str, Any]:
        self.fault = wanted.pop("fault", "")
        if wanted.pop("rotate", False):
            self.rotate()
        if wanted:
            self.person = wanted
        return {"fetched": self.fetched}

    def description(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer if self.fault != "description" else "https://other.example",
            "authorization_endpoint": f"{self.issuer}/authorize?tenant=1",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
        }

    def jwks(self) -> dict[str, Any]:
        self.fetched += 1
        return {"keys": [key.as_dict(private=False) for key in self.keys]}

    def authorize(self, query: dict[str, str]) -> str:
        assert query["response_type"] == "code"
        assert query["client_id"] == CLIENT_ID
        assert query["code_challenge_method"] == "S256"
        assert "openid" in query["scope"].split()
        code = secrets.token_urlsafe(16)
        self.codes[code] = query
        return f"{query['redirect_uri']}?{parse.urlencode({'code': code, 'state': query['state']})}"

    def token(self, form: dict[str, str], authorization: str) -> dict[str, Any] | None:
        begun = self.codes.pop(form.get("code", ""), None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest()).rstrip(b"=").decode()
        pair = f"{parse.quote(CLIENT_ID, safe='')}:{parse.quote(CLIENT_SECRET, safe='')}"
        right = authorization == f"Basic {base64.b64encode(pair.encode()).decode()}"
        if begun is None or not right or begun["code_challenge"] != challenge or begun["redirect_uri"] != form.get("redirect_uri"):
            return None
        return {"access_token": "at", "token_type": "Bearer", "id_token": self.id_token(begun["nonce"])}

    def id_token(self, nonce: str) -> str:
        now = int(time.time())
        claims = {**self.person, "iss": self.issuer, "aud": CLIENT_ID, "nonce": nonce, "iat": now, "exp": now + 300}
        wrong: dict[str, dict[str, Any]] = {
            "audience": {"aud": "somebody else"},
            "azp": {"aud": [CLIENT_ID, "another"], "azp": "another"},
            "nonce": {"nonce": "of another login"},
            "expired": {"iat": now - 900, "exp": now - 600},
            "issuer": {"iss": "https://other.example"},
            "subject": {"sub": ""},
        }
        claims |= wrong.get(self.fault, {})
        if self.fault == "missing":
            del claims["nonce"]
        key, header = self.keys[0], {"alg": "RS256", "kid": self.keys[0].kid}
        if self.fault == "secret":
            return jwt.encode({"alg": "HS256", "kid": key.kid}, claims, jwk.OctKey.import_key(CLIENT_SECRET), algorithms=["HS256"])
        if self.fault == "none":
            parts = (json.dumps(part).encode() for part in ({"alg": "none"}, claims))
            return ".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts), ""])
        if self.fault == "signature":
            key = jwk.RSAKey.generate_key(2048, {"kid": key.kid}, private=True)
        return jwt.encode(header, claims, key)


class Handler(http.server.BaseHTTPRequestHandler):
    """HTTP around it."""

    provider: Provider

    def reply(self, status: int, value: Any = None, **headers: str) -> None:
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        target = parse.urlsplit(self.path)
        query = dict(parse.parse_qsl(target.query))
        if target.path == "/.well-known/openid-configuration":
            self.reply(200, self.provider.description())
        elif target.path == "/jwks" and self.provider.fault == "moved":
            self.reply(302, Location=f"{self.provider.issuer}/elsewhere")
        elif target.path == "/jwks":
            self.reply(200, self.provider.jwks())
        elif target.path == "/authorize":
            self.reply(302, Location=self.provider.authorize(query))
        else:
            self.reply(404, {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.path == "/control":
            self.reply(200, self.provider.control(json.loads(body)))
            return
        answer = self.provider.token(dict(parse.parse_qsl(body)), self.headers.get("Authorization", ""))
        self.reply(200 if answer else 400, answer or {"error": "invalid_grant"})

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def running(directory: pathlib.Path, host: str) -> Iterator[tuple[str, pathlib.Path]]:
    """A process of it, with a certificate for `host`; yields its issuer and the file of the CA to trust."""
    ca_key, ca = x509.new_ca()
    key = x509.new_key()
    certificate = x509.issue(ca_key, ca, key.public_key(), x509.Subject(role="x", cn=host), san=[host])
    for name, text in (("ca.pem", x509.certificate_pem(ca)), ("cert.pem", certificate), ("key.pem", x509.key_pem(key))):
        (directory / name).write_text(text)
    argv = [sys.executable, "-m", "tests.support.oidc_provider", host, str(directory / "cert.pem"), str(directory / "key.pem")]
    root = pathlib.Path(__file__).parents[2]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield process.stdout.readline().strip(), directory / "ca.pem"
        process.stdin.close()


def main() -> None:
    host, certificate, key = sys.argv[1:]
    Handler.provider = Provider()
    server = http.server.ThreadingHTTPServer((host, 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    Handler.provider.issuer = f"https://{host}:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(Handler.provider.issuer, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
