"""From errors to pages: what happened, what to do, and an incident id where the fault is ours."""

from __future__ import annotations

import dataclasses
import logging
import re
import secrets
from typing import Final

from starlette import responses

from conpaas.client import failures
from conpaas.core import errors
from conpaas.frontend import visits

log = logging.getLogger(__name__)

_COMMAND: Final = re.compile(r"'cps(-|client)")
_HINTS: Final = (
    (re.compile(r"Insufficient credits"), "An operator can add credits; stopping what you do not need makes the rest last longer."),
    (re.compile(r"has not started"), "Start the application first."),
    (re.compile(r"current state is '(PROLOGUE|ADAPTING|EPILOGUE)'"), "Something is under way; try again when it has finished."),
    (re.compile(r"current state is 'ERROR'"), "Bring the service back with 'Recover' on its page, its history says what happened."),
    (re.compile(r"already taken"), "Choose another name."),
)


@dataclasses.dataclass(frozen=True)
class Problem:
    """An error for people. `incident` is empty unless the fault is ours."""

    status: int
    title: str
    text: str
    hint: str = ""
    incident: str = ""


def hint(error: BaseException) -> str:
    """What a person in front of a browser can do about it."""
    for pattern, advice in _HINTS:
        if pattern.search(str(error)):
            return advice
    own = failures.hint(error) or ""
    return "" if _COMMAND.search(own) else own


def describe(error: BaseException) -> Problem:
    """What to tell of an error; ones that nobody meant to raise are logged with an incident id."""
    if not isinstance(error, errors.ConPaaSError):
        incident = secrets.token_hex(4)
        log.error("incident %s", incident, exc_info=error)
        text = "The front-end failed at this request. What you had is as it was before, unless a page says otherwise."
        return Problem(500, "Something went wrong here", text, "Try again; if it stays, tell your operator the incident id.", incident)
    status, title = _kind(error)
    return Problem(status, title, _sentence(error), hint(error))


def _sentence(error: errors.ConPaaSError) -> str:
    text = str(error).strip() or "The request failed."
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _kind(error: errors.ConPaaSError) -> tuple[int, str]:
    if failures.exit_code(error) is failures.ExitCode.NOT_FOUND:
        return 404, "Not found"
    kinds: tuple[tuple[type[errors.ConPaaSError], int, str], ...] = (
        (errors.Unreachable, 503, "No answer"),
        (errors.Forbidden, 403, "Not allowed"),
        (errors.Unauthenticated, 403, "Not allowed"),
        (errors.TooLarge, 413, "Too large"),
        (errors.InvalidArgument, 400, "That does not fit"),
    )
    for kind, status, title in kinds:
        if isinstance(error, kind):
            return status, title
    return 409, "That did not work"


def page(visit: visits.Visit, problem: Problem) -> responses.Response:
    """The page (or, for a script, the JSON) of a problem."""
    if visit.scripted:
        body = {"error": problem.text, "hint": problem.hint, **({"incident": problem.incident} if problem.incident else {})}
        return visit.json(body, problem.status)
    back = visit.came_from if visit.request.method == "POST" else ""
    return visit.render("problem.html", problem.status, problem=problem, back=back)
