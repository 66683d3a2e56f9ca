"""Speaking OpenID Connect with one identity provider: its description, its keys, the exchange of a code, the check of an ID token.

The authorization code flow with PKCE (S256), state and nonce. Every answer is bounded in size and time; redirects are not followed.
Tokens must be signed with a public-key algorithm: one made with the client's secret would be taken from whoever knows that.
"""

from __future__ import annotations

import base64
import json
import logging
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, Final
from urllib import parse

from conpaas.core import errors
from conpaas.director.oidc import settings
from conpaas.director.oidc.settings import Person, Proof

log = logging.getLogger(__name__)

TIMEOUT: Final = 10.0
MAX_ANSWER: Final = 512 * 1024
KEPT: Final = 3600.0
"""Seconds that a provider's description and keys are used before they are fetched again."""
FRESH: Final = 30.0
"""Seconds in which keys are not fetched again, although a token names one that is not among them."""
LEEWAY: Final = 60
ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class Client:
    """This Director as one provider knows it. Safe to share between threads."""

    def __init__(self, configured: settings.Provider) -> None:
        self.configured = configured
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, Any]] = {}

    def authorization_url(self, state: str, proof: Proof) -> str:
        """Where a person's browser is sent."""
        from authlib.oauth2 import rfc7636

        fields = {
            "response_type": "code",
            "client_id": self.configured.client_id,
            "redirect_uri": proof.redirect_uri,
            "scope": self.configured.scopes,
            "state": state,
            "nonce": proof.nonce,
            "code_challenge": rfc7636.create_s256_code_challenge(proof.verifier),
            "code_challenge_method": "S256",
        }
        endpoint = self._endpoint("authorization_endpoint")
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{parse.urlencode(fields)}"

    def identify(self, code: str, proof: Proof, now: float) -> Person:
        """Exchange a code and check what comes back. Raises Unauthenticated for no proof, OperationFailed for a broken provider."""
        fields = {"grant_type": "authorization_code", "code": code, "redirect_uri": proof.redirect_uri, "code_verifier": proof.verifier}
        answer = self._exchange(fields)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise self._refused("its answer has no ID token")
        return self._person(self._check(token, answer.get("access_token"), proof.nonce, now))

    # What the provider says of itself

    def _description(self) -> dict[str, Any]:
        found: dict[str, Any] = self._keep("description", KEPT, self._fetch_description)
        return found

    def _fetch_description(self) -> dict[str, Any]:
        found = self._ask(f"{self.configured.issuer.rstrip('/')}/.well-known/openid-configuration")
        if found.get("issuer") != self.configured.issuer:
            raise self._broken(f"it calls itself '{found.get('issuer')}', not '{self.configured.issuer}'")
        return found

    def _endpoint(self, name: str) -> str:
        url = self._description().get(name)
        if not isinstance(url, str) or not settings.is_safe_url(url):
            raise self._broken(f"its description has no usable {name}")
        return url

    def _keys(self, max_age: float) -> Any:
        return self._keep("keys", max_age, lambda: self._ask(self._endpoint("jwks_uri")))

    def _keep(self, name: str, max_age: float, fetch: Any) -> Any:
        with self._lock:
            at, found = self._kept.get(name, (-KEPT, None))
        if found is not None and time.monotonic() - at < max_age:
            return found
        found = fetch()
        with self._lock:
            self._kept[name] = (time.monotonic(), found)
        return found

    # Tokens

    def _exchange(self, fields: Mapping[str, str]) -> dict[str, Any]:
        own = self.configured
        methods = self._description().get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        headers = {}
        if "client_secret_basic" in methods:
            pair = f"{parse.quote(own.client_id, safe='')}:{parse.quote(own.client_secret, safe='')}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            fields = {**fields, "client_id": own.client_id, "client_secret": own.client_secret}
        return self._ask(self._endpoint("token_endpoint"), fields, headers)

    def _check(self, token: str, access_token: Any, nonce: str, now: float) -> Mapping[str, Any]:
        from authlib.oidc.core import CodeIDToken
        from joserfc.errors import JoseError

        own = self.configured
        options: dict[str, Any] = {
            "iss": {"essential": True, "value": own.issuer},
            "aud": {"essential": True, "value": own.client_id},
            "sub": {"essential": True},
            "exp": {"essential": True},
            "nonce": {"essential": True, "value": nonce},
        }
        params = {"nonce": nonce, "client_id": own.client_id, "access_token": access_token}
        try:
            header, found = self._verified(token)
            claims = CodeIDToken(found, header, options, params)
            claims.validate(now=int(now), leeway=LEEWAY)
        except (JoseError, ValueError, TypeError) as error:
            raise self._refused(f"its ID token is not good: {error}") from error
        return claims

    def _verified(self, token: str) -> tuple[Any, dict[str, Any]]:
        """Header and claims of a token whose signature is the provider's; its keys are fetched again if the token names a new one."""
        from joserfc import errors as jose_errors
        from joserfc import jwk, jwt

        for max_age in (KEPT, FRESH):
            keys = jwk.KeySet.import_key_set(self._keys(max_age))
            try:
                decoded = jwt.decode(token, keys, algorithms=list(ALGORITHMS))
            except (jose_errors.InvalidKeyIdError, jose_errors.BadSignatureError):
                if max_age == FRESH:
                    raise
            else:
                return decoded.header, decoded.claims
        raise AssertionError("unreachable")

    def _person(self, claims: Mapping[str, Any]) -> Person:
        subject = claims["sub"]
        if not isinstance(subject, str) or not 1 <= len(subject) <= 255:
            raise self._refused("its ID token names nobody")
        texts = {name: value if isinstance(value := claims.get(key), str) else "" for name, key in _CLAIMS.items()}
        verified = claims.get("email_verified") in (True, "true")
        return Person(issuer=self.configured.issuer, subject=subject, email_verified=verified, **texts)

    # Asking

    def _ask(self, url: str, fields: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        body = parse.urlencode(fields).encode() if fields is not None else None
        request = urllib.request.Request(url, body, {"Accept": "application/json", **(headers or {})})  # noqa: S310 — see is_safe_url
        context = ssl.create_default_context(cafile=str(self.configured.ca) if self.configured.ca else None)
        opener = urllib.request.build_opener(_NoRedirect, urllib.request.HTTPSHandler(context=context), urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=TIMEOUT) as response:
                return self._decode(_read(response))
        except urllib.error.HTTPError as error:
            with error:
                text = error.read(300).decode("utf-8", "replace")
            if error.code in {400, 401, 403} and fields is not None:
                log.warning("the identity provider %s refused a code: %s %s", self.configured.name, error.code, text)
                raise self._refused("it did not take the code") from error
            raise self._broken(f"it answered with status {error.code}") from error
        except (OSError, ValueError) as error:
            raise self._broken(str(getattr(error, "reason", error))) from error

    def _decode(self, content: bytes) -> dict[str, Any]:
        found = json.loads(content)
        if not isinstance(found, dict):
            raise self._broken("its answer is not a JSON object")
        return found

    def _refused(self, why: str) -> errors.Unauthenticated:
        return errors.Unauthenticated(f"The login through {self.configured.label} failed: {why}.", hint="Sign in again.")

    def _broken(self, why: str) -> errors.OperationFailed:
        text = f"The identity provider {self.configured.label} cannot be used at present: {why}."
        return errors.OperationFailed(text, hint="Sign in another way, or try again later.")


_CLAIMS: Final = {"email": "email", "username": "preferred_username", "fname": "given_name", "lname": "family_name"}


def _read(response: Any) -> bytes:
    """The whole body. A sender of single bytes does not get more than TIMEOUT, a large one not more than MAX_ANSWER."""
    deadline, content = time.monotonic() + TIMEOUT, bytearray()
    while piece := response.read1(65536):
        content += piece
        if len(content) > MAX_ANSWER or time.monotonic() > deadline:
            raise ValueError("its answer is too large or too slow")
    return bytes(content)
