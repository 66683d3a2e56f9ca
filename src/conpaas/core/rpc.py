"""The RPC application: routes a call to the object registered for its service id and makes the reply. No sockets here."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import pathlib
import re
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from conpaas.core import errors, expose, params

if TYPE_CHECKING:
    from conpaas.core.https import identity

log = logging.getLogger(__name__)

UPLOAD_ID: Final = 1
"""Uploads carry no id; their replies always have this one."""

JSON_TYPE: Final = "application/json"
TEXT_TYPE: Final = "text/plain; charset=utf-8"

_SERVICE_ID = re.compile(r"\d{1,9}", re.ASCII)
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class _Missing:
    """Stands for a field that the request does not have (null is a value)."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()


@dataclasses.dataclass(frozen=True, slots=True)
class FileDownload:
    """A handler's reply that is a file: streamed from `path` under the name `name`. With `remove` it was made for this reply only, and
    its name is gone as soon as the stream is open."""

    name: str
    path: pathlib.Path
    remove: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class RpcCall:
    """A request as it came: fields are not yet checked, and MISSING where absent."""

    verb: str
    service_id: Any
    method: Any
    id: Any
    params: Any
    caller: identity.PeerIdentity | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class RpcReply:
    """What goes back: exactly one of `body` and `download` is set. `outcome` is "ok", "error", "internal" or "refused"."""

    status: int
    body: bytes | None
    download: FileDownload | None = None
    content_type: str = JSON_TYPE
    outcome: str = "ok"


def success(call_id: Any, result: Any) -> RpcReply:
    """The envelope of a result; raises TypeError or ValueError if it is not JSON."""
    return RpcReply(200, _encode({"result": {} if result is None else result, "error": None, "id": call_id}).encode())


def failure(call_id: Any, error: errors.ConPaaSError | str, status: int = 200, outcome: str = "error") -> RpcReply:
    """The envelope of an error. It has no `result` key: classic clients would take a null result for success."""
    envelope = {"error": str(error), "id": None if call_id is MISSING else call_id}
    hint = getattr(error, "hint", None)
    if hint:
        envelope["hint"] = hint
    return RpcReply(status, _encode(envelope).encode(), outcome=outcome)


def plain(status: int, text: str) -> RpcReply:
    """A routing failure, in plain text."""
    return RpcReply(status, text.encode(), content_type=TEXT_TYPE, outcome="refused")


class RpcApplication:
    """Objects by service id, and calls of their exposed methods. Thread-safe; handlers run in the calling thread.

    `observe(method, seconds, outcome)`, if given, is told of every call that reached a method.
    """

    def __init__(self, observe: Callable[[str, float, str], None] | None = None) -> None:
        self._services: dict[int, dict[str, dict[str, expose.Exposed]]] = {}
        self._lock = threading.Lock()
        self._observe = observe

    def register(self, service_id: int, obj: object) -> None:
        """Serve the exposed methods of `obj` under a service id, in place of what was registered there before."""
        table: dict[str, dict[str, expose.Exposed]] = {}
        for (verb, name), method in expose.exposed_methods(obj).items():
            table.setdefault(verb, {})[name] = method
        with self._lock:
            self._services = {**self._services, service_id: table}

    def unregister(self, service_id: int) -> None:
        """Stop serving a service id; calls under way finish. Does nothing if it is not registered."""
        with self._lock:
            self._services = {known: table for known, table in self._services.items() if known != service_id}

    def service_ids(self) -> list[int]:
        """The registered service ids, in order."""
        return sorted(self._services)

    def dispatch(self, call: RpcCall) -> RpcReply:
        """Answer a call. Never raises: a failure of a handler is logged with an incident id that the reply names."""
        found = self._route(call)
        if isinstance(found, RpcReply):
            return found
        started = time.perf_counter()
        reply = self._run(found, call)
        if self._observe is not None:
            self._observe(found.name, time.perf_counter() - started, reply.outcome)
        return reply

    def _route(self, call: RpcCall) -> expose.Exposed | RpcReply:
        """The method to call, or the refusal; the order of the checks is the classic one."""
        if call.service_id is MISSING or call.service_id is None:
            return plain(400, "Did not specify service")
        service_id = _as_service_id(call.service_id)
        if service_id is None:
            return failure(call.id, f"Field 'service_id' must be a number, not '{params.shown(call.service_id)}'.", 400, "refused")
        methods = self._services.get(service_id, {}).get(call.verb)
        if not methods:
            return plain(404, "Service not found")
        if call.method is MISSING or call.method is None:
            return plain(400, "Did not specify method")
        if not isinstance(call.method, str):
            return failure(call.id, "Field 'method' must be a string.", 400, "refused")
        method = methods.get(call.method)
        if method is None:
            return plain(404, "Method not found")
        if call.id is MISSING:
            return failure(None, "Field 'id' is missing from the request.", 400, "refused")
        if not isinstance(call.params, dict) and call.params != []:
            return failure(call.id, f"Field 'params' must be an object, not '{type(call.params).__name__}'.", 400, "refused")
        return method

    def _run(self, method: expose.Exposed, call: RpcCall) -> RpcReply:
        try:
            result = method.call(call.params, call.caller)
            if isinstance(result, FileDownload):
                return RpcReply(200, None, result)
            if isinstance(result, dict) and "error" in result:
                log.warning("the result of %s has a key 'error', which classic clients take for a failure", method.name)
            return success(call.id, result)
        except errors.ConPaaSError as error:
            return failure(call.id, error)
        except OSError as error:
            if error.errno not in errors.StorageFull.CODES:
                return internal_failure(call.id, f"{method.name} on service {call.service_id}", error)
            log.error("%s on service %s found no room on the disk", method.name, call.service_id, exc_info=error)
            return failure(call.id, errors.StorageFull("There is no room left on the disk."))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a handler does wrong, its caller gets an answer
            return internal_failure(call.id, f"{method.name} on service {call.service_id}", error)


def internal_failure(call_id: Any, what: str, error: BaseException) -> RpcReply:
    """Log a failure of our own under a new incident id and answer with that id only."""
    incident = os.urandom(6).hex()
    log.error("incident %s: %s failed", incident, what, exc_info=error)
    return failure(call_id, f"internal error, incident {incident}", outcome="internal")


def _as_service_id(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _SERVICE_ID.fullmatch(value):
        return int(value)
    return None
