"""What a manager may ask of an agent of a web hosting service: one thin function per call. Every call is idempotent."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from conpaas.core import agents, node
from conpaas.services.webservers import spec

_UPLOAD_TIMEOUT = 600.0
_START_TIMEOUT = 90.0
_SYNC_TIMEOUT = 60.0

# Code


def list_code(caller: agents.AgentCaller, target: node.ServiceNode) -> list[str]:
    """The code versions that lie on the node."""
    return list(caller.get(target, "list_code")["versions"])


def stage_code(caller: agents.AgentCaller, target: node.ServiceNode, version_id: str, archive: pathlib.Path, made: float) -> None:
    """Unpack a code version, made then (seconds since 1970), beside the others; it is not used by that."""
    fields = {"filetype": "tar", "codeVersionId": version_id, "time": int(made)}
    caller.upload(target, "updatePHPCode", {"file": archive}, _timeout=_UPLOAD_TIMEOUT, **fields)


def keep_code(caller: agents.AgentCaller, target: node.ServiceNode, versions: Sequence[str]) -> None:
    """Remove all code versions from the node but these."""
    caller.post(target, "keep_code", versions=list(versions))


# Backends


def start_backend(
    caller: agents.AgentCaller, target: node.ServiceNode, release: int, version_id: str, settings: spec.BackendSettings
) -> int:
    """Have a release run beside those that run; returns the port it listens on, once it answers."""
    method = "createPHP" if settings.kind == spec.PHP else "createTomcat"
    answer = caller.post(target, method, _timeout=_START_TIMEOUT, release=release, codeVersionId=version_id, settings=settings.to_dict())
    return int(answer["port"])


def keep_releases(caller: agents.AgentCaller, target: node.ServiceNode, kind: str, releases: Sequence[int]) -> None:
    """Let all releases but these finish the requests they have, and end. Returns at once."""
    caller.post(target, "stopPHP" if kind == spec.PHP else "stopTomcat", keep=list(releases))


def backend_state(caller: agents.AgentCaller, target: node.ServiceNode, kind: str) -> dict[str, Any]:
    """`state`, `port` (of the newest release) and `releases`: a list of `{release, port, state, codeVersionId}`."""
    return dict(caller.get(target, "getPHPState" if kind == spec.PHP else "getTomcatState")["return"])


def release_errors(caller: agents.AgentCaller, target: node.ServiceNode, release: int) -> list[str]:
    """The fatal errors that a release has logged since it was started, oldest first, at most a few."""
    return list(caller.get(target, "get_release_errors", release=release)["errors"])


# Static web servers


def configure_web(caller: agents.AgentCaller, target: node.ServiceNode, versions: Sequence[str], site: spec.SiteSettings) -> int:
    """Have the static web server serve these code versions; returns its port."""
    answer = caller.post(target, "updateWebServer", _timeout=_START_TIMEOUT, code_versions=list(versions), site=site.to_dict())
    return int(answer["port"])


def stop_web(caller: agents.AgentCaller, target: node.ServiceNode) -> None:
    """Let the static web server finish its requests and end."""
    caller.post(target, "stopWebServer")


# Proxies


def configure_proxy(caller: agents.AgentCaller, target: node.ServiceNode, configuration: spec.ProxyConfig) -> dict[str, Any]:
    """Have the proxy work with a configuration. Returns, once new requests are served by it, `port` and `tls_port` (null without TLS)."""
    return dict(caller.post(target, "updateHttpProxy", _timeout=_START_TIMEOUT, configuration=configuration.to_dict()))


def stop_proxy(caller: agents.AgentCaller, target: node.ServiceNode) -> None:
    """Let the proxy finish its requests and end."""
    caller.post(target, "stopHttpProxy")


def proxy_state(caller: agents.AgentCaller, target: node.ServiceNode) -> dict[str, Any]:
    """`state`, `port`, `tls_port`, `serial` (in force) and `oldest_serial`: the oldest configuration that still has requests under way."""
    return dict(caller.get(target, "getHttpProxyState")["return"])


def check_site(
    caller: agents.AgentCaller, target: node.ServiceNode, configuration: spec.ProxyConfig, path: str, timeout: float
) -> list[dict[str, Any]]:
    """Ask every backend and web server of a configuration for a path through a proxy of its own, aside from the one that serves.

    Returns per server `{server, status, seconds, reason}`; `status` is 0 when there was no answer within `timeout` seconds.
    """
    arguments = {"configuration": configuration.to_dict(), "path": path, "seconds": max(1, round(timeout))}
    return list(caller.post(target, "check_site", _timeout=2 * timeout + 15.0, **arguments)["answers"])


# Sessions


def start_session_store(
    caller: agents.AgentCaller, target: node.ServiceNode, secret: str, source: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Have a session store run; with `source` (`{ip, port}`) it first takes over all that is in there. Returns `{ip, port}`."""
    return dict(caller.post(target, "start_session_store", _timeout=_SYNC_TIMEOUT, secret=secret, source=source))


def use_session_stores(caller: agents.AgentCaller, target: node.ServiceNode, secret: str, stores: Sequence[Mapping[str, Any]]) -> None:
    """Tell a backend where sessions are kept: in all of these at once."""
    caller.post(target, "use_session_stores", secret=secret, stores=[dict(one) for one in stores])


def stop_session_store(caller: agents.AgentCaller, target: node.ServiceNode) -> None:
    caller.post(target, "stop_session_store")


# Cron, figures


def set_cron(caller: agents.AgentCaller, target: node.ServiceNode, entries: Sequence[spec.CronEntry]) -> None:
    """Have exactly these entries run on this backend."""
    caller.post(target, "set_cron", entries=[one.to_dict() for one in entries])


def performance(caller: agents.AgentCaller, target: node.ServiceNode, role: str, window: int) -> dict[str, Any]:
    """What a proxy or a static web server measured over the last `window` seconds (see `agent.measure`)."""
    return dict(caller.get(target, "get_performance", role=role, window=window))
