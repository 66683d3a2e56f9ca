"""Names that shell completion offers: applications, services, clouds, types. Never slow, never an error.

What the Director answered is kept for a few seconds in the user's directory; a Director that does not answer within a
second is not waited for, then older names (or none) are offered.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from conpaas.client import global_options

FRESH_SECONDS = 5.0
PATIENCE_SECONDS = 1.0
Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def applications(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of applications."""
    return _items(((a["name"], f"application {a['aid']}") for a in _names(ctx).get("applications", [])), incomplete)


def services(service_type: str | None) -> Completer:
    """Names of the services (of one type) of the application that stands before; ids of those whose name is not unique."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        names = _names(ctx)
        word = str(ctx.params.get("app_name_or_id") or "")
        aids = {a["aid"] for a in names.get("applications", []) if word in (a["name"], str(a["aid"]))}
        fitting = [s for s in names.get("services", []) if s["aid"] in aids and service_type in (None, s["type"])]
        by_id = [(str(s["sid"]), f"{s['type']}: {s['name']}") for s in fitting]
        if incomplete.isdigit():
            return _items(by_id, incomplete)
        taken = [s["name"] for s in names.get("services", []) if s["aid"] in aids]
        by_name = [(s["name"], f"{s['type']} {s['sid']}") for s in fitting if taken.count(s["name"]) == 1]
        return _items(by_name if len(by_name) == len(fitting) else [*by_name, *by_id], incomplete)

    return complete


def clouds(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of clouds."""
    return _items(((name, "") for name in _names(ctx).get("clouds", [])), incomplete)


def types(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Service types."""
    return _items(((name, "") for name in _names(ctx).get("types", [])), incomplete)


def _items(pairs: Any, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(value, help=text or None) for value, text in pairs if value.startswith(incomplete)]


def _names(ctx: click.Context) -> dict[str, Any]:
    """What is known, from the cache while it is fresh, else from the Director."""
    options = dict(global_options.given(ctx))
    try:
        cache = _cache_path(options)
        known, age = _read(cache)
        if age <= FRESH_SECONDS:
            return known
        found = _fetch(options)
        if found is None:
            return known
        _write(cache, found)
    except Exception:  # noqa: BLE001 - a shell that completes must never see an error
        return {}
    return found


def _cache_path(options: dict[str, Any]) -> Path:
    from conpaas.client import settings

    config = settings.load(options)
    name = "".join(c if c.isalnum() else "-" for c in config.url)
    return config.directory / "cache" / f"names-{name}.json"


def _read(path: Path) -> tuple[dict[str, Any], float]:
    """The names kept and their age in seconds; nothing kept is infinitely old."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return (kept, time.time() - path.stat().st_mtime) if isinstance(kept, dict) else ({}, float("inf"))
    except (OSError, ValueError):
        return {}, float("inf")


def _write(path: Path, names: dict[str, Any]) -> None:
    from conpaas.client import certificates

    certificates.write_private(path, json.dumps(names).encode())


def _fetch(options: dict[str, Any]) -> dict[str, Any] | None:
    """Ask the Director, in a thread that is left behind if it takes too long."""
    answer: list[dict[str, Any]] = []

    def ask() -> None:
        from conpaas.client import runtime

        run = runtime.open_session({**options, "debug": None})
        director = run.director
        answer.append({
            "applications": [{"aid": a.aid, "name": a.name} for a in director.applications()],
            "services": [{"aid": s.aid, "sid": s.sid, "type": s.type, "name": s.name} for s in director.services()],
            "clouds": director.clouds(),
            "types": director.service_types(),
        })  # fmt: skip

    def quietly() -> None:
        try:
            ask()
        except Exception:  # noqa: BLE001 - see the module's text
            answer.clear()

    thread = threading.Thread(target=quietly, daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    return answer[0] if answer else None
