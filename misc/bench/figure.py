"""One measured figure and what it should be."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Figure:
    """`target` is the most it may be, or with `least` the least it must be; without a target it is told for information."""

    name: str
    group: str
    value: float
    unit: str
    target: float | None = None
    least: bool = False
    notes: str = ""
    details: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """Measured to target; None where there is no target, or where it is zero."""
        return self.value / self.target if self.target else None

    @property
    def verdict(self) -> str:
        """`reached`, `MISSED`, or nothing where there is no target."""
        if self.target is None:
            return ""
        reached = self.value >= self.target if self.least else self.value <= self.target
        return "reached" if reached else "MISSED"

    @property
    def shown(self) -> str:
        """The value with its unit."""
        return f"{_number(self.value)} {self.unit}".rstrip()

    @property
    def shown_target(self) -> str:
        """The target with its unit and direction."""
        return "" if self.target is None else f"{'≥' if self.least else '≤'} {_number(self.target)} {self.unit}".rstrip()

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {**dataclasses.asdict(self), "ratio": self.ratio, "verdict": self.verdict}


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
