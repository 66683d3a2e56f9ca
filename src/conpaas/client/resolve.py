"""From the words users type to applications, services and clouds."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

from conpaas.client import replies
from conpaas.core import errors

Named = TypeVar("Named", replies.Application, replies.Service)


def application(word: str, applications: Sequence[replies.Application]) -> replies.Application:
    """Find an application by its id or exact name; an integer is an id, or a name if there is no such id."""
    if not applications:
        raise errors.NotFound("No existing applications.", hint="create one with 'cps-application create NAME'")
    return _find(word, "application", {found.aid: found for found in applications})


def service(word: str, aid: int, services: Sequence[replies.Service], service_type: str | None = None) -> replies.Service:
    """Find a service of application `aid` by id or exact name, among those of `service_type` if one is given."""
    candidates = [s for s in services if s.aid == aid and service_type in (None, s.type)]
    where = f"in application {aid}" + (f" of type {service_type}." if service_type else "")
    return _find(word, "service", {found.sid: found for found in candidates}, where)


def _find(word: str, what: str, by_id: Mapping[int, Named], where: str = "") -> Named:
    """The one of `by_id` that a user means by an id or an exact name; an id goes before a name."""
    number = _integer(word)
    if number is not None and number in by_id:
        return by_id[number]
    named = [candidate for candidate in by_id.values() if candidate.name == word]
    if len(named) > 1:
        raise errors.InvalidArgument(f"{len(named)} {what}s match the {what} name '{word}' {where}".rstrip(), hint="use the id")
    if named:
        return named[0]
    if number is not None:
        raise errors.NotFound(f"Unknown {what} id {number} {where}".rstrip(), hint=_ids(what, list(by_id)))
    hint = did_you_mean(word, [candidate.name for candidate in by_id.values()])
    raise errors.NotFound(f"Unknown {what} name '{word}' {where}".rstrip(), hint=hint)


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
