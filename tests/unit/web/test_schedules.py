"""Schedules, and what is none."""

from __future__ import annotations

import datetime

import pytest

from conpaas.core import errors
from conpaas.services.webservers import schedules

NOON = datetime.datetime(2026, 2, 27, 12, 0, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("* * * * *", NOON.replace(minute=1)),
        ("*/10 * * * *", NOON.replace(minute=10)),
        ("30 3 * * *", NOON.replace(day=28, hour=3, minute=30)),
        ("0 0 29 2 *", NOON.replace(year=2028, day=29, hour=0)),
        ("0 9 * * mon", NOON.replace(month=3, day=2, hour=9)),
    ],
)
def test_the_next_time(schedule: str, expected: datetime.datetime) -> None:
    assert schedules.following(schedule, NOON) == expected


@pytest.mark.parametrize(
    "schedule", ["", "* * * *", "* * * * * *", "61 * * * *", "a b c d e", "*/0 * * * *", "0 0 31 2 *", "@daily", None, 5]
)
def test_what_is_no_schedule_is_refused(schedule: object) -> None:
    with pytest.raises(errors.InvalidArgument, match="schedule"):
        schedules.check(schedule)  # type: ignore[arg-type]
