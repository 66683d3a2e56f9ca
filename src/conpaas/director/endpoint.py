"""Declaring an endpoint of the Director: address, who may call it, its parameters; and everything around the handler.

    @endpoint.endpoint(blueprint, "/renameapp/<int:aid>", auth="user", params=[params.Param("name", params.Text())])
    def renameapp(aid: int, name: str, caller: auth.Caller) -> dict[str, object]:
        ...

The handler gets the address's parts and the declared parameters by keyword, and `caller` if its signature names it. It returns
any JSON value, a `PlainText`, or a `flask.Response`. It raises a ConPaaSError for an error reply: `{"error": text}` with status
200, as classic clients read the body only. Anything else it raises is logged under an incident id and answered without detail.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import ipaddress
import json
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flask
from sqlalchemy import exc
from werkzeug import exceptions

from conpaas.core import errors
from conpaas.core import params as parameters
from conpaas.core.https import identity
from conpaas.director import auth as authentication
from conpaas.director import runtime, users

log = logging.getLogger(__name__)

# Fields that classic clients add to every call. They are ignored where an endpoint does not declare them.
STRAY_FIELDS = frozenset({"service_id", "username", "password", "method"})
MAX_FILE_FIELD = 64 * 1024
CREDENTIALS = (
    parameters.Param("username", parameters.Text(max_length=160), help="Name of the account."),
    parameters.Param("password", parameters.Text(max_length=1024, secret=True), help="Its password; only in the body of a POST."),
)


class PlainText(str):
    """A reply that is bare text instead of JSON."""

    __slots__ = ()


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """One declared endpoint, as the API page and the authorization tests see it."""

    rule: str
    methods: tuple[str, ...]
    auth: str
    params: tuple[parameters.Param, ...]
    help: str
    name: str
    disabled_too: bool = False


REGISTRY: dict[str, Endpoint] = {}


@dataclasses.dataclass(frozen=True)
class _Reading:
    """How the fields of a request become arguments."""

    params: tuple[parameters.Param, ...]
    missing: str | None
    file_fields: frozenset[str]

    def arguments(self) -> dict[str, Any]:
        declared = {param.name for param in self.params}
        given: dict[str, Any] = {
            name: value for name, value in flask.request.values.items() if name in declared or name not in STRAY_FIELDS
        }
        for name in self.file_fields & declared:
            part = flask.request.files.get(name)
            if part is not None:
                given[name] = _file_as_text(name, part.stream.read(MAX_FILE_FIELD + 1))
        if self.missing is not None:
            for param in self.params:
                if param.default is parameters.REQUIRED and not given.get(param.name):
                    raise errors.InvalidArgument(self.missing.format(name=param.name))
        return parameters.check_arguments(self.params, given)


def _check_parts(parts: Mapping[str, Any]) -> None:
    """Refuse numbers in the address that no database could look for."""
    for name, value in parts.items():
        if isinstance(value, int):
            try:
                parameters.Integer().check(value)
            except errors.InvalidArgument as error:
                raise errors.InvalidArgument(f"Parameter '{name}': {error}.") from error


def _file_as_text(name: str, content: bytes) -> str:
    if len(content) > MAX_FILE_FIELD:
        raise errors.TooLarge(f"The file '{name}' is larger than {MAX_FILE_FIELD} bytes.")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise errors.InvalidArgument(f"The file '{name}' is not text.") from error


def describe() -> list[dict[str, Any]]:
    """All declared endpoints as plain data, by address; what the API page is generated from."""
    return [
        {
            "rule": entry.rule,
            "methods": list(entry.methods),
            "auth": entry.auth,
            "help": entry.help,
            "params": [
                {
                    "name": param.name,
                    "type": param.type.describe(),
                    "required": param.required,
                    "help": param.help,
                    "schema": param.type.schema(),
                }
                for param in entry.params
            ],
        }
        for _, entry in sorted(REGISTRY.items())
    ]


def peer() -> identity.PeerIdentity | None:
    """The verified client certificate of the present request."""
    found: identity.PeerIdentity | None = flask.request.environ.get("conpaas.peer")
    return found


def json_reply(value: Any, status: int = 200) -> flask.Response:
    """A JSON reply with the classic headers."""
    response = flask.Response(json.dumps(value, separators=(",", ":")), status=status, content_type="application/json")
    response.headers["Access-Control-Allow-Origin"] = "*"
    return response


def error_reply(error: errors.ConPaaSError, status: int = 200) -> flask.Response:
    """The reply for an error meant for a person."""
    body = {"error": str(error)}
    if error.hint:
        body["hint"] = error.hint
    return json_reply(body, status)


def incident_reply(error: Exception) -> flask.Response:
    """Log a failure of our own under a fresh incident id; the caller learns only the id."""
    incident = secrets.token_hex(6)
    log.error("incident %s in %s %s", incident, flask.request.method, flask.request.path, exc_info=error)
    if isinstance(error, exc.OperationalError) and "disk is full" in str(error.orig):
        return error_reply(errors.StorageFull(f"The Director's disk is full (incident {incident})."))
    return json_reply({"error": f"internal error, incident {incident}"})


def text_reply(text: str, status: int = 200) -> flask.Response:
    """A reply of bare text with the classic headers."""
    response = flask.Response(text, status=status, content_type="text/plain; charset=utf-8")
    response.headers["Access-Control-Allow-Origin"] = "*"
    return response


def _reply(value: Any) -> flask.Response:
    if isinstance(value, flask.Response):
        return value
    if isinstance(value, PlainText):
        return text_reply(value)
    return json_reply({} if value is None else value)


def _address() -> str:
    """The address that the caller's attempts are counted under: what a trusted proxy says of its caller, else the peer's own."""
    peer_address = flask.request.remote_addr or ""
    told = flask.request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
    if not told or peer_address not in runtime.current().config.trusted_proxies:
        return peer_address
    try:
        return str(ipaddress.ip_address(told))
    except ValueError:
        return peer_address


def _by_password(refusal: Any) -> authentication.Caller:
    address = _address()
    anonymous = authentication.Caller(peer=peer(), address=address)
    if "password" in flask.request.args:
        raise errors.Unauthenticated("Send the password in the body of a POST request, never in the URL.")
    form = flask.request.form
    try:
        user = users.authenticate(runtime.current(), form.get("username", ""), form.get("password", ""), anonymous)
    except errors.Unauthenticated as error:
        if refusal is not None:
            raise authentication.Refused(200, refusal) from error
        raise
    operator = user.role == "operator"
    return dataclasses.replace(anonymous, uid=user.uid, username=user.username, operator=operator, password_hash=user.password)


def _authenticate(kind: str, refusal: Any, disabled_too: bool) -> authentication.Caller:
    if kind == "none":
        return authentication.Caller(peer=peer(), address=_address())
    if kind == "password":
        return _by_password(refusal)
    with runtime.current().database.reader() as session:
        return authentication.authorize(session, kind, peer(), _address(), disabled_too=disabled_too)


def _answer(call: Callable[[], Any]) -> flask.Response:
    try:
        return _reply(call())
    except authentication.Refused as refused:
        if isinstance(refused.body, str):
            return text_reply(refused.body, refused.status)
        return json_reply(refused.body, refused.status)
    except errors.ConPaaSError as error:
        return error_reply(error)
    except exceptions.RequestEntityTooLarge:
        return error_reply(errors.TooLarge("The body of the request is too large."), 413)
    except exceptions.HTTPException as error:
        return error_reply(errors.InvalidArgument(error.description or error.name), error.code or 400)
    except Exception as error:  # noqa: BLE001 — logged there; whatever a handler did wrong must not reach the caller
        return incident_reply(error)


def endpoint(
    blueprint: flask.Blueprint,
    rule: str,
    *,
    auth: str,
    methods: Sequence[str] = ("POST",),
    params: Sequence[parameters.Param] = (),
    missing: str | None = None,
    refusal: Any = None,
    file_fields: Sequence[str] = (),
    disabled_too: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Mount a handler at `rule`. `auth` is one of `auth.KINDS`.

    `missing` is the error text for an absent required parameter, with `{name}`; default: the RPC's text. `refusal` is the whole
    reply when a password is wrong, instead of an error. `file_fields` names parameters that may also come as a file part.
    With `disabled_too`, a caller whose account is disabled passes, too.
    """
    if auth not in authentication.KINDS:
        raise ValueError(f"unknown kind of authentication {auth!r}")
    reading = _Reading(tuple(params), missing, frozenset(file_fields))

    def decorate(handler: Callable[..., Any]) -> Callable[..., Any]:
        wants_caller = "caller" in inspect.signature(handler).parameters

        @functools.wraps(handler)
        def view(**parts: Any) -> flask.Response:
            def call() -> Any:
                caller = _authenticate(auth, refusal, disabled_too)
                flask.g.caller = caller.label
                _check_parts(parts)
                arguments: Mapping[str, Any] = {**reading.arguments(), **parts}
                return handler(**arguments, caller=caller) if wants_caller else handler(**arguments)

            return _answer(call)

        blueprint.add_url_rule(rule, endpoint=handler.__name__, view_func=view, methods=list(methods))
        declared = (*CREDENTIALS, *reading.params) if auth == "password" else reading.params
        text = inspect.cleandoc(handler.__doc__ or "").split("\n\n")[0]
        REGISTRY[rule] = Endpoint(rule, tuple(methods), auth, declared, text, handler.__name__, disabled_too)
        return handler

    return decorate
