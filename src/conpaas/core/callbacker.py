"""What a manager asks of the Director: nodes, volumes, domain names and the user's credit. Only the Director talks to clouds."""

from __future__ import annotations

import abc
import dataclasses
import json
import logging
import random
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from conpaas.core import errors, node

if TYPE_CHECKING:
    from conpaas.core.https import client, identity

_log = logging.getLogger(__name__)

HOLD_SECONDS = 20
"""How long the Director may hold a call before it answers "pending"."""

UNREACHABLE_FOR = 300.0
"""Seconds for which an unreachable Director is asked again."""

CREATE_TIMEOUT = 1800.0
"""Seconds after which nodes that are still pending count as failed."""

PENDING_PAUSE = 0.2
"""Seconds between a "pending" and the next question, should the Director not hold calls."""

BRIEFLY = 10.0
"""Seconds for which an unreachable Director is asked again about what a user or the health monitor waits for."""

REQUEST_LIMIT = 100
"""Nodes in one request to the Director; more are asked for in several, each with a key of its own."""

_PENDING = "pending"
_RUNNING = "running"


@dataclasses.dataclass(frozen=True)
class InventoryEntry:
    """A VM of this application in the Director's inventory."""

    node: node.ServiceNode
    service_id: int
    state: str = _RUNNING

    @property
    def running(self) -> bool:
        """Whether the VM can be used; else it is being made or given back, or the Director found that it is gone."""
        return self.state == _RUNNING

    def to_dict(self) -> dict[str, Any]:
        return {**self.node.to_dict(), "service_id": self.service_id, "state": self.state}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> InventoryEntry:
        """Read the wire shape: a node with `service_id` and `state`. Raises `errors.InvalidArgument` naming what is missing."""
        found = node.ServiceNode.from_dict(values)
        try:
            return cls(found, int(values["service_id"]), str(values["state"]))
        except (KeyError, TypeError, ValueError) as error:
            raise errors.InvalidArgument(f"The inventory's entry of {found.id} has no proper service_id and state: {values!r}.") from error


def was_refused(error: errors.ConPaaSError) -> bool:
    """Whether an error of a `Callbacker` is the Director's refusal: nothing was left behind. Otherwise nobody knows what happened."""
    return isinstance(error, errors.RemoteError | errors.InsufficientCredits) and not isinstance(error, errors.Unreachable)


class Callbacker(abc.ABC):
    """The Director as a manager sees it. The same `request` key always means the same request, however often it is sent.

    Every call raises `errors.RemoteError` when the Director refuses (nothing was left behind then), `errors.Unreachable` when it could not
    be asked (nobody knows then), `errors.InsufficientCredits` when the user has no credit left.
    """

    @abc.abstractmethod
    def create_nodes(
        self,
        request: str,
        nodes_info: Sequence[Mapping[str, Any]],
        service_id: int,
        service_type: str,
        context: Mapping[str, str],
        startup_script: str = "",
    ) -> list[node.ServiceNode]:
        """Get nodes whose agents answer, in the order of `nodes_info`. Blocks until they are there."""

    @abc.abstractmethod
    def remove_nodes(self, nodes: Sequence[node.ServiceNode], request: str, *, disks: bool = False) -> None:
        """Give nodes back together with their volumes, kept ones only with `disks`; those already gone are fine."""

    @abc.abstractmethod
    def create_volume(self, request: str, size: int, name: str, vm_id: str, cloud: str, service_id: int, *, keep: bool = False) -> str:
        """Make a volume of `size` MB that the VM `vm_id` can use; returns its id. With `keep` it outlives the VMs it is attached to."""

    @abc.abstractmethod
    def attach_volume(self, vol_id: str, vm_id: str, device: str, cloud: str) -> None:
        """Attach a volume to a VM; attached already is fine."""

    @abc.abstractmethod
    def detach_volume(self, vol_id: str, cloud: str) -> None:
        """Detach a volume; detached already is fine. A kept one is refused while a VM that was given back still has it."""

    @abc.abstractmethod
    def destroy_volume(self, vol_id: str, cloud: str) -> None:
        """Destroy a volume; gone already is fine."""

    @abc.abstractmethod
    def claim_domain(self, name: str, service_id: int) -> None:
        """Reserve a domain name for a service; its own already is fine. Refused when another service of any user has it.

        The name is given back with the service at the latest. Waits only briefly for the Director.
        """

    @abc.abstractmethod
    def release_domain(self, name: str, service_id: int) -> None:
        """Give a domain name back; one that the service does not hold is fine. Waits only briefly for the Director."""

    @abc.abstractmethod
    def credit(self) -> int:
        """The user's credit. Waits only briefly for the Director."""

    @abc.abstractmethod
    def list_nodes(self) -> list[InventoryEntry]:
        """The VMs the Director has on record for this application. Waits only briefly for the Director."""

    @abc.abstractmethod
    def revoked_certificates(self) -> list[str]:
        """The serial numbers of the user's certificates that were revoked before their end. Waits only briefly for the Director."""

    @abc.abstractmethod
    def close(self) -> None:
        """Give up waiting; calls under way raise `errors.Unreachable`."""


class DirectorCallbacker(Callbacker):
    """Reaches the Director over HTTPS with the manager's certificate."""

    def __init__(
        self,
        director: client.DirectorClient,
        app_id: int,
        manager_ip: str,
        *,
        unreachable_for: float = UNREACHABLE_FOR,
        create_timeout: float = CREATE_TIMEOUT,
    ) -> None:
        self._director = director
        self._app_id = app_id
        self._manager_ip = manager_ip
        self._unreachable_for = unreachable_for
        self._create_timeout = create_timeout
        self._closing = threading.Event()

    @classmethod
    def connect(cls, url: str, credentials: identity.Credentials, app_id: int, manager_ip: str, **options: float) -> DirectorCallbacker:
        from conpaas.core.https import client

        return cls(client.DirectorClient(url, credentials), app_id, manager_ip, **options)

    def create_nodes(
        self,
        request: str,
        nodes_info: Sequence[Mapping[str, Any]],
        service_id: int,
        service_type: str,
        context: Mapping[str, str],
        startup_script: str = "",
    ) -> list[node.ServiceNode]:
        fields: dict[str, Any] = {
            "service_id": service_id,
            "service_type": service_type,
            "manager_ip": self._manager_ip,
            "context": json.dumps(dict(context)),
        }
        if startup_script:
            fields["startup_script"] = startup_script
        nodes: list[node.ServiceNode] = []
        for number, start in enumerate(range(0, len(nodes_info), REQUEST_LIMIT)):
            part = [dict(info) for info in nodes_info[start : start + REQUEST_LIMIT]]
            key = f"{request}.{number}" if number else request
            try:
                nodes += self._wait_for_nodes({**fields, "nodes_info": json.dumps(part), "request": key})
            except errors.ConPaaSError as error:
                if was_refused(error):  # a refusal leaves nothing behind, so neither may the parts before
                    self.remove_nodes(nodes, f"{request}.undo")
                raise
        return nodes

    def _wait_for_nodes(self, fields: dict[str, Any]) -> list[node.ServiceNode]:
        reply = self._settled("/create_nodes", fields)
        if not isinstance(reply, list):
            raise errors.RemoteError(f"The Director answered /create_nodes with {reply!r} instead of a list of nodes.")
        return [node.ServiceNode.from_dict(values) for values in reply]

    def remove_nodes(self, nodes: Sequence[node.ServiceNode], request: str, *, disks: bool = False) -> None:
        if nodes:
            fields = {"nodes": json.dumps([one.to_dict() for one in nodes]), "request": request, "app_id": self._app_id}
            self._settled("/remove_nodes", {**fields, **({"disks": True} if disks else {})})

    def create_volume(self, request: str, size: int, name: str, vm_id: str, cloud: str, service_id: int, *, keep: bool = False) -> str:
        wanted = {"size": size, "name": name, "vm_id": vm_id, "cloud": cloud, "service_id": service_id, "request": request}
        wanted |= {"keep": True} if keep else {}
        reply = self._settled("/create_volume", wanted)
        if not isinstance(reply, dict) or not reply.get("volume_id"):
            raise errors.RemoteError(f"The Director answered /create_volume with {reply!r} instead of a volume id.")
        return str(reply["volume_id"])

    def attach_volume(self, vol_id: str, vm_id: str, device: str, cloud: str) -> None:
        self._settled("/attach_volume", {"vm_id": vm_id, "volume_id": vol_id, "device_name": device, "cloud": cloud})

    def detach_volume(self, vol_id: str, cloud: str) -> None:
        self._settled("/detach_volume", {"volume_id": vol_id, "cloud": cloud})

    def destroy_volume(self, vol_id: str, cloud: str) -> None:
        self._settled("/destroy_volume", {"volume_id": vol_id, "cloud": cloud})

    def claim_domain(self, name: str, service_id: int) -> None:
        self._call("/callback/claim_domain", {"domain": name, "service_id": service_id, "app_id": self._app_id}, BRIEFLY)

    def release_domain(self, name: str, service_id: int) -> None:
        self._call("/callback/release_domain", {"domain": name, "service_id": service_id, "app_id": self._app_id}, BRIEFLY)

    def credit(self) -> int:
        reply = self._call("/credit", {}, BRIEFLY)
        if not isinstance(reply, dict) or "credit" not in reply:
            raise errors.RemoteError(f"The Director answered /credit with {reply!r} instead of a number.")
        return int(reply["credit"])

    def list_nodes(self) -> list[InventoryEntry]:
        reply = self._call("/list_nodes", {"app_id": self._app_id}, BRIEFLY)
        found = reply.get("nodes") if isinstance(reply, dict) else reply
        if not isinstance(found, list):
            raise errors.RemoteError(f"The Director answered /list_nodes with {reply!r} instead of a list of nodes.")
        return [InventoryEntry.from_dict(values) for values in found]

    def revoked_certificates(self) -> list[str]:
        reply = self._call("/callback/revoked_certificates", {}, BRIEFLY)
        found = reply.get("serials") if isinstance(reply, dict) else None
        if not isinstance(found, list):
            raise errors.RemoteError(f"The Director answered /callback/revoked_certificates with {reply!r} instead of serial numbers.")
        return [str(one) for one in found]

    def close(self) -> None:
        self._closing.set()

    def _settled(self, path: str, fields: Mapping[str, Any]) -> Any:
        """Ask, with the same fields and key, until the answer is no longer "pending"."""
        fields = {"request": uuid.uuid4().hex, "app_id": self._app_id, **fields}
        deadline = time.monotonic() + self._create_timeout
        while True:
            reply = self._call(path, {**fields, "wait": HOLD_SECONDS}, self._unreachable_for)
            if not (isinstance(reply, dict) and reply.get(_PENDING)):
                return reply
            if time.monotonic() > deadline:
                raise errors.Unreachable(f"The Director did not finish {path} within {self._create_timeout:.0f} seconds.")
            if self._closing.wait(PENDING_PAUSE):
                raise errors.Unreachable(f"This manager is shutting down while the Director works on {path}.")

    def _call(self, path: str, fields: Mapping[str, Any], patience: float) -> Any:
        """One call; an unreachable Director is asked again for `patience` seconds."""
        try:
            reply = retried(lambda: self._post(path, fields), patience, self._closing, f"the Director's {path}")
        except errors.Unreachable as error:
            raise errors.Unreachable(
                f"The Director did not answer ({error}); try again later.", peer=error.peer, method=path, hint="Is the Director running?"
            ) from error
        except errors.RemoteError as error:
            if str(error).startswith(str(errors.InsufficientCredits())):
                raise errors.InsufficientCredits from error
            raise
        if reply is False:
            raise errors.RemoteError(
                "The Director does not know this application or its owner any more.", method=path, hint="Was the application removed?"
            )
        return reply

    def _post(self, path: str, fields: Mapping[str, Any]) -> Any:
        try:
            return self._director.post(path, dict(fields))
        except errors.Unreachable:
            raise
        except errors.RemoteError as error:
            if _is_no_answer(str(error)):
                raise errors.Unreachable(str(error), peer=error.peer, method=path, hint=error.hint) from error
            raise


def _is_no_answer(text: str) -> bool:
    """Whether an error reply leaves open what happened: the Director failed, or something before it answered in its place."""
    return text.startswith("internal error") or "with HTTP 5" in text


def retried(call: Callable[[], Any], patience: float, closing: threading.Event, what: str) -> Any:
    """Call again while the peer is unreachable, for `patience` seconds, with growing pauses of at most 15 s."""
    deadline = time.monotonic() + patience
    pause = 0.5
    while True:
        try:
            return call()
        except errors.Unreachable as error:
            if time.monotonic() + pause > deadline:
                raise
            _log.warning("%s did not answer, trying again in %.1f s: %s", what, pause, error)
            if closing.wait(pause * random.uniform(0.75, 1.25)):
                raise
            pause = min(pause * 2, 15.0)
