"""From the words users type to applications, services and clouds."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence

from conpaas.client import replies
from conpaas.core import errors


def application(word: str, applications: Sequence[replies.Application]) -> replies.Application:
    """Find an application by its id or exact name; an integer is an id, or a name if there is no such id."""
    if not applications:
        raise errors.NotFound("No existing applications.", hint="create one with 'cps-application create NAME'")
    number = _integer(word)
    if number is not None:
        for candidate in applications:
            if candidate.aid == number:
                return candidate
    named = [candidate for candidate in applications if candidate.name == word]
    if len(named) > 1:
        raise errors.InvalidArgument(f"{len(named)} applications match the application name '{word}'", hint="use the id")
    if named:
        return named[0]
    if number is not None:
        raise errors.NotFound(f"Unknown application id {number}", hint=_ids("application", [c.aid for c in applications]))
    raise errors.NotFound(f"Unknown application name '{word}'", hint=did_you_mean(word, [c.name for c in applications]))


def service(word: str, aid: int, services: Sequence[replies.Service], service_type: str | None = None) -> replies.Service:
    """Find a service of application `aid` by id or exact name, among those of `service_type` if one is given."""
    candidates = [s for s in services if s.aid == aid and service_type in (None, s.type)]
    where = f"in application {aid}" + (f" of type {service_type}." if service_type else "")
    number = _integer(word)
    if number is not None:
        for candidate in candidates:
            if candidate.sid == number:
                return candidate
    named = [candidate for candidate in candidates if candidate.name == word]
    if len(named) > 1:
        raise errors.InvalidArgument(f"{len(named)} services match the service name '{word}' {where}", hint="use the id")
    if named:
        return named[0]
    if number is not None:
        raise errors.NotFound(f"Unknown service id {number} {where}", hint=_ids("service", [c.sid for c in candidates]))
    raise errors.NotFound(f"Unknown service name '{word}' {where}", hint=did_you_mean(word, [c.name for c in candidates]))


def cloud(word: str, clouds: Collection[str]) -> str:
    """Check the exact name of a cloud."""
    if word in clouds:
        return word
    raise errors.NotFound(f"Unknown cloud name '{word}'", hint=did_you_mean(word, clouds))


def did_you_mean(word: str, known: Collection[str]) -> str | None:
    """A hint with the closest of `known`, else None."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6) or [name for name in known if name.lower() == word.lower()]
    return f"did you mean '{close[0]}'?" if close else None


def _integer(word: str) -> int | None:
    try:
        return int(word)
    except ValueError:
        return None


def _ids(what: str, ids: Sequence[int]) -> str | None:
    return f"existing {what} ids: {', '.join(map(str, sorted(ids)))}" if 0 < len(ids) <= 20 else None
