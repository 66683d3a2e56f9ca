"""Schedules of cron entries, five fields as in crontab(5). All times are UTC."""

from __future__ import annotations

import datetime

import cronsim

from conpaas.core import errors, params


def check(schedule: str) -> str:
    """The schedule, if it is one. Raises InvalidArgument that says what is wrong with it."""
    following(schedule, datetime.datetime.now(datetime.UTC))
    return schedule


def following(schedule: str, moment: datetime.datetime) -> datetime.datetime:
    """The first time of a schedule after a moment."""
    if not isinstance(schedule, str) or len(schedule.split()) != 5:
        raise errors.InvalidArgument(
            f"The schedule {params.shown(schedule)!r} must have five fields: minute, hour, day of month, month, day of week.",
            hint="for instance '*/10 * * * *' for every ten minutes",
        )
    try:
        return next(cronsim.CronSim(schedule, moment))
    except StopIteration as error:
        raise errors.InvalidArgument(f"The schedule {params.shown(schedule)!r} never comes.") from error
    except cronsim.CronSimError as error:
        raise errors.InvalidArgument(f"The schedule {params.shown(schedule)!r} is none: {error}.") from error
