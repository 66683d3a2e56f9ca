"""Calls from a manager to the agents on its nodes: one at a time, or many in parallel within a bound."""

from __future__ import annotations

import abc
import logging
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from conpaas.core import errors, node, operations, workers

if TYPE_CHECKING:
    from conpaas.core.https import client, identity

_log = logging.getLogger(__name__)

T = TypeVar("T")

PARALLEL_CALLS = 32
KEPT_CONNECTIONS = 128
RETRY_PAUSE = 1.0
"""Seconds between two attempts to reach an agent that gives no answer."""


class AgentCaller(abc.ABC):
    """Reaches agents. Every call raises `errors.RemoteError` (the agent's own text) or `errors.Unreachable`.

    `_timeout` is the longest wait for the answer, in seconds; without it the client's default counts.
    """

    def __init__(self, pool: workers.Executor | None = None) -> None:
        self._pool = pool or workers.WorkerPool("agent-calls", PARALLEL_CALLS)

    def get(self, target: node.ServiceNode, method: str, /, *, _timeout: float | None = None, **params: Any) -> Any:
        """Call a GET method of the agent on one node."""
        return self._call(target, "GET", method, params, _timeout)

    def post(self, target: node.ServiceNode, method: str, /, *, _timeout: float | None = None, **params: Any) -> Any:
        """Call a POST method of the agent on one node. It is never repeated by itself."""
        return self._call(target, "POST", method, params, _timeout)

    def upload(
        self,
        target: node.ServiceNode,
        method: str,
        /,
        files: Mapping[str, pathlib.Path],
        *,
        _timeout: float | None = None,
        **fields: Any,
    ) -> Any:
        """Call an UPLOAD method of the agent on one node; `files` are streamed from disk."""
        return self._upload(target, method, files, fields, _timeout)

    def download(self, target: node.ServiceNode, method: str, /, to: pathlib.Path, *, _timeout: float | None = None, **params: Any) -> None:
        """Call a GET method that answers with a file and store it at `to`."""
        self._download(target, method, params, to, _timeout)

    def each(
        self, nodes: Sequence[node.ServiceNode], function: Callable[[node.ServiceNode], T], timeout: float | None = None
    ) -> dict[str, T | errors.ConPaaSError]:
        """Apply `function` to every node in parallel. Returns, per node id, its result or its error; never raises for a node."""
        results = workers.fan_out(self._pool, function, nodes, timeout)
        return {
            one.id: _as_error(one, result) if isinstance(result, Exception) else result for one, result in zip(nodes, results, strict=True)
        }

    def all(
        self, nodes: Sequence[node.ServiceNode], function: Callable[[node.ServiceNode], T], timeout: float | None = None
    ) -> dict[str, T]:
        """Apply `function` to every node in parallel. Returns the results per node id.

        Raises `errors.OperationFailed` that names every node that failed and why.
        """
        good: dict[str, T] = {}
        bad: list[str] = []
        for node_id, result in self.each(nodes, function, timeout).items():
            if isinstance(result, errors.ConPaaSError):
                bad.append(f"{node_id}: {result}")
            else:
                good[node_id] = result
        if bad:
            raise errors.OperationFailed(f"{len(bad)} of {len(nodes)} nodes failed: {'; '.join(bad)}")
        return good

    def close(self) -> None:
        """Close kept connections."""
        self._pool.close()

    @abc.abstractmethod
    def _call(self, target: node.ServiceNode, verb: str, method: str, params: dict[str, Any], timeout: float | None) -> Any: ...

    @abc.abstractmethod
    def _upload(
        self, target: node.ServiceNode, method: str, files: Mapping[str, pathlib.Path], fields: dict[str, Any], timeout: float | None
    ) -> Any: ...

    @abc.abstractmethod
    def _download(self, target: node.ServiceNode, method: str, params: dict[str, Any], to: pathlib.Path, timeout: float | None) -> None: ...


def persistently(call: Callable[[], T], seconds: float) -> T:
    """Repeat an idempotent call while its agent gives no answer, for at most `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return call()
        except errors.Unreachable:
            if time.monotonic() >= deadline:
                raise
        time.sleep(RETRY_PAUSE)


def _as_error(target: node.ServiceNode, error: Exception) -> errors.ConPaaSError:
    if isinstance(error, errors.ConPaaSError):
        return error
    if isinstance(error, TimeoutError):
        return errors.Unreachable(f"Node {target.id} gave no answer in time.", peer=target.ip)
    _log.error("a call to node %s failed unexpectedly", target.id, exc_info=error)
    return errors.OperationFailed(operations.describe(error))


class HttpsAgentCaller(AgentCaller):
    """Reaches agents over mutual TLS on their port; connections are kept and shared."""

    def __init__(self, rpc: client.RpcClient, port: int = node.AGENT_PORT, pool: workers.Executor | None = None) -> None:
        super().__init__(pool)
        self._rpc = rpc
        self._port = port

    @classmethod
    def connect(cls, credentials: identity.Credentials, uid: int, aid: int, port: int = node.AGENT_PORT) -> HttpsAgentCaller:
        """A caller that accepts only agents of one user's application."""
        from conpaas.core.https import client, identity

        return cls(client.RpcClient(credentials, identity.expect_agent(uid, aid), pool_size=KEPT_CONNECTIONS), port)

    def close(self) -> None:
        super().close()
        self._rpc.close()

    def _call(self, target: node.ServiceNode, verb: str, method: str, params: dict[str, Any], timeout: float | None) -> Any:
        call = self._rpc.get if verb == "GET" else self._rpc.post
        return call((target.ip, self._port), method, params=params, timeout=timeout)

    def _upload(
        self, target: node.ServiceNode, method: str, files: Mapping[str, pathlib.Path], fields: dict[str, Any], timeout: float | None
    ) -> Any:
        return self._rpc.upload((target.ip, self._port), method, fields=fields, files=dict(files), timeout=timeout)

    def _download(self, target: node.ServiceNode, method: str, params: dict[str, Any], to: pathlib.Path, timeout: float | None) -> None:
        self._rpc.download((target.ip, self._port), method, params=params, to=to, timeout=timeout)
