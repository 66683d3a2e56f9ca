"""The Director and the managers, called as the signed-in user over connections that are kept between pages."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from conpaas.client import api, replies
from conpaas.core import errors
from conpaas.core.https import identity, x509
from conpaas.frontend import pulse, sessions, settings

log = logging.getLogger(__name__)

IDLE: Final = 300.0
"""Seconds after which the connections of a session that does nothing are closed."""

CATALOGUE_AGE: Final = 60.0
_NOT_THERE: Final = ("Not Found", "HTTP 404")
_NOT_SIGNED_IN: Final = ("cert_required", "is disabled.", "does not know the user of this certificate")


def session_ended(error: BaseException) -> bool:
    """Whether an error of the Director means that it takes this certificate no more."""
    return isinstance(error, errors.ConPaaSError) and any(words in str(error) for words in _NOT_SIGNED_IN)


def not_offered(error: BaseException) -> bool:
    """Whether an error says that the Director has no such endpoint, being older."""
    return isinstance(error, errors.NotFound | errors.RemoteError) and any(words in str(error) for words in _NOT_THERE)


class Upstream:
    """One user's way to the Director and the managers. Thread-safe; closed connections open again at the next call."""

    def __init__(self, url: str, grant: sessions.Grant, catalogue: Catalogue, beat: pulse.Pulse) -> None:
        held = identity.HeldCredentials(certificate_pem=grant.certificate, key_pem=grant.key, ca_pem=grant.ca)
        self._identity = api.Identity(None, held)
        self._managers: dict[int, api.Manager] = {}
        self._lock = threading.Lock()
        self._uid = grant.uid
        self._pulse = beat
        self.catalogue = catalogue
        self.director = api.Director(url, self._identity)
        self.used = time.monotonic()

    def version(self) -> str:
        """What is another one once anything of the user changed at the Director; empty where that is unknown."""
        try:
            return self._pulse.version(self._uid, lambda: self.director.post("/watch"))
        except errors.ConPaaSError as error:
            if not not_offered(error):
                raise
            self._pulse.give_up()
            return ""

    def application(self, aid: int) -> replies.Application:
        """An application of the user. Raises NotFound; it is the same for one that is somebody else's."""
        return self.director.application(aid)

    def service(self, aid: int, sid: int) -> replies.Service:
        """A service of an application of the user. Raises NotFound."""
        for service in self.director.services(aid):
            if service.sid == sid:
                return service
        raise errors.NotFound(f"There is no service {sid} in application {aid}.")

    def manager(self, application: replies.Application) -> api.Manager:
        """The manager of a started application; the same connections as long as it is at the same address. Raises WrongState."""
        with self._lock:
            known = self._managers.get(application.aid)
            if known is not None and known.address == (application.manager, application.manager_port):
                return known
            made = self._managers[application.aid] = api.Manager(application, self._identity)
        if known is not None:
            known.close()
        return made

    def clouds(self) -> list[str]:
        """The names of the clouds, `default` first."""
        return self.catalogue.get("clouds", self.director.clouds)

    def service_types(self) -> list[Mapping[str, Any]]:
        """What services there are: `name`, `label`, `description`, `roles`, `page` each."""
        return self.catalogue.get("service_types", self._read_service_types)

    def _read_service_types(self) -> list[Mapping[str, Any]]:
        try:
            return replies.each(self.director.get("/service_types"), replies.mapping, "a list of service types")
        except errors.ConPaaSError as error:
            if not not_offered(error):
                raise
        bare = {"description": "", "roles": [], "page": {}}
        return [{"name": name, "label": name.capitalize(), **bare} for name in self.director.service_types()]

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            managers = list(self._managers.values())
            self._managers.clear()
        for manager in managers:
            manager.close()
        self.director.close()


class Catalogue:
    """What is the same for everybody and changes rarely, asked for once a minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[str, tuple[float, Any]] = {}

    def get(self, name: str, read: Callable[[], Any]) -> Any:
        """What `read` answered not longer than CATALOGUE_AGE ago; when it cannot answer now, what it answered last."""
        now = self._clock()
        known = self._known.get(name)
        if known is not None and now - known[0] < CATALOGUE_AGE:
            return known[1]
        try:
            value = read()
        except errors.Unreachable:
            if known is None:
                raise
            return known[1]
        self._known[name] = (now, value)
        return value


@dataclasses.dataclass(frozen=True)
class Registration:
    """How a person gets an account at this Director."""

    mode: str = "open"
    confirmation: bool = False
    providers: tuple[Mapping[str, Any], ...] = ()
    max_credit: int = 0
    version: str = ""
    mail: bool = False
    """Whether the Director sends e-mail."""


class Upstreams:
    """The ways of all sessions. Thread-safe. `changed` is told the uid of who has something else to see."""

    def __init__(self, configured: settings.Settings, changed: Callable[[int], None]) -> None:
        self._settings = configured
        self._lock = threading.Lock()
        self._open: dict[str, Upstream] = {}
        self.catalogue = Catalogue()
        self.nobody = api.Director(configured.director_url, api.Identity(configured.ca, None))
        """The Director, called as nobody in particular."""
        self._pulse = pulse.Pulse(lambda path, fields: self.nobody.post(path, fields, anybody=True), changed)

    def of(self, session: sessions.Session) -> Upstream:
        """The way of a session."""
        now = time.monotonic()
        with self._lock:
            stale = [key for key, one in self._open.items() if now - one.used > IDLE and key != session.id]
            closing = [self._open.pop(key) for key in stale]
            found = self._open.get(session.id)
            if found is None:
                found = self._open[session.id] = Upstream(self._settings.director_url, session.grant, self.catalogue, self._pulse)
            found.used = now
        for one in closing:
            one.close()
        return found

    def forget(self, session_id: str) -> None:
        """Close the connections of a session. Idempotent."""
        with self._lock:
            found = self._open.pop(session_id, None)
        if found is not None:
            found.close()

    def close(self) -> None:
        """Close everything."""
        with self._lock:
            closing = list(self._open.values())
            self._open.clear()
        for one in closing:
            one.close()
        self.nobody.close()

    def registration(self) -> Registration:
        """How a person gets an account. While the Director does not answer: as if it were closed."""
        try:
            reply = self.catalogue.get("registration", lambda: self.nobody.get("/registration", anybody=True))
        except errors.ConPaaSError as error:
            if not_offered(error):
                return Registration(version=self.version())
            return Registration(mode="closed", version=self.version())
        providers = tuple(one for one in reply.get("oidc") or () if isinstance(one, dict))
        return Registration(
            mode=replies.text(reply.get("mode"), "closed"),
            confirmation=bool(reply.get("confirmation")),
            providers=providers,
            max_credit=int(reply.get("max_credit") or 0),
            version=replies.text(reply.get("version")),
            mail=bool(reply.get("mail")),
        )

    def version(self) -> str:
        """The Director's version; empty while it does not answer."""
        try:
            return str(self.catalogue.get("version", self.nobody.version))
        except errors.ConPaaSError:
            return ""

    # -- signing in and out

    def sign_in(self, username: str, password: str, address: str = "") -> sessions.Grant:
        """Exchange a name and a password for a certificate of a key that is made here. Raises what the Director says."""
        fields = {"username": username, "password": password, "hours": settings.SESSION_HOURS}
        return self._granted("/session_certificate", fields, address)

    def finish_oidc(self, state: str, code: str, redirect_uri: str, invitation: str = "") -> sessions.Grant:
        """Exchange what an identity provider sent back for a certificate; an `invitation` makes an account of somebody unknown."""
        fields = {"state": state, "code": code, "redirect_uri": redirect_uri}
        return self._granted("/oidc/finish", {**fields, **({"invitation": invitation} if invitation else {})})

    def begin_oidc(self, provider: str, redirect_uri: str) -> tuple[str, str]:
        """The address of the provider's sign-in page, and the state that its answer must carry."""
        reply = replies.mapping(self.nobody.post("/oidc/begin", {"name": provider, "redirect_uri": redirect_uri}, anybody=True))
        return replies.text(reply.get("url")), replies.text(reply.get("state"))

    def _granted(self, path: str, fields: Mapping[str, Any], address: str = "") -> sessions.Grant:
        key = x509.new_key()
        csr = x509.make_csr(key, "conpaas front-end")
        reply = replies.mapping(self.nobody.post(path, {**fields, "csr": csr}, anybody=True, address=address), "a certificate")
        user = replies.mapping(reply.get("user"), "a user")
        certificate = replies.text(reply.get("certificate"))
        return sessions.Grant(
            username=replies.text(user.get("username")),
            uid=replies.integer(user.get("uid"), "a user (uid)"),
            operator=bool(user.get("operator")),
            certificate=certificate,
            key=x509.key_pem(key),
            ca=replies.text(reply.get("ca")),
            expires=x509.load_certificate(certificate).not_valid_after_utc.timestamp(),
        )

    def sign_out(self, session: sessions.Session) -> None:
        """Have the Director revoke the session's certificate; that it cannot be reached does not keep anybody signed in."""
        try:
            self.of(session).director.post("/session_end")
        except errors.ConPaaSError as error:
            log.warning("the certificate of user %s was not revoked at sign-out: %s", session.username, error)
        with contextlib.suppress(errors.ConPaaSError):
            self.forget(session.id)
