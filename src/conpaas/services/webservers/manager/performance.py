"""Figures of several proxies put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

SUMS: Final = ("request_rate", "error_rate", "throughput")
"""Per second: requests, answers with a status from 500 on, KB."""
MEANS: Final = ("response_time", "p50", "p95", "p99")
"""In ms, weighted by requests. For percentiles of several proxies that is close, not exact."""
KINDS: Final = ("static", "dynamic")


def together(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures of all proxies as if they were one; all 0 when there are none."""
    whole = _together(measured)
    for kind in KINDS:
        whole[kind] = _together([one[kind] for one in measured if isinstance(one.get(kind), Mapping)])
    return whole


def _together(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    requests = sum(float(one.get("requests", 0)) for one in measured)
    figures: dict[str, Any] = {"requests": int(requests)}
    for name in SUMS:
        figures[name] = round(sum(float(one.get(name, 0)) for one in measured), 3)
    for name in MEANS:
        weighted = sum(float(one.get(name, 0)) * float(one.get("requests", 0)) for one in measured)
        figures[name] = round(weighted / requests, 3) if requests else 0.0
    return figures
