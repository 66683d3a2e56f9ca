"""All applications of the user."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Final

from starlette import responses

from conpaas.client import replies
from conpaas.core import errors
from conpaas.frontend import live, problems, rendering, upstream, visits
from conpaas.frontend.routing import Page, Stream

NAME_LENGTH: Final = 255
DETAIL_ROUNDS: Final = 4
"""In every so manieth calm round, all is read."""
SURE_ROUNDS: Final = 30
"""The same where the Director tells that nothing changed: how long the credits last changes by itself."""


@dataclasses.dataclass(frozen=True)
class Row:
    """An application in the list, with what it uses."""

    application: replies.Application
    services: int
    machines: int


@dataclasses.dataclass(frozen=True)
class Overview:
    """What the dashboard shows; `rounds` counts the readings it grew from, `warning` says that the credits end soon, `version` is
    what the Director called it all when it was read."""

    rows: tuple[Row, ...]
    credit: int
    rounds: int = 0
    warning: str = ""
    version: str = ""

    @property
    def per_hour(self) -> int:
        """Credits for each hour."""
        return sum(row.machines for row in self.rows)

    @property
    def changing(self) -> bool:
        """Whether an application starts, stops or changes."""
        return any(row.application.status in rendering.TRANSIENT for row in self.rows)


def overview(way: upstream.Upstream, before: Overview | None = None) -> Overview:
    """Read it from the Director. What the applications use is read anew when one of them changed, and now and then."""
    rounds = before.rounds + 1 if before else 0
    version = way.version()  # before anything is read: what changes meanwhile is seen in the next round
    if before is not None and version and version == before.version and not before.changing and rounds % SURE_ROUNDS:
        return dataclasses.replace(before, rounds=rounds)
    applications = tuple(way.director.applications())
    if (
        before is not None
        and not version
        and not before.changing
        and rounds % DETAIL_ROUNDS
        and applications == tuple(row.application for row in before.rows)
    ):
        return dataclasses.replace(before, rounds=rounds)
    machines = collections.Counter(machine.aid for machine in way.director.resources())
    services = collections.Counter(service.aid for service in way.director.services())
    rows = tuple(Row(application, services[application.aid], machines[application.aid]) for application in applications)
    credits = replies.mapping(way.director.get("/credits", limit=1), "credits")
    return Overview(rows, replies.integer(credits.get("balance"), "a balance"), rounds, replies.text(credits.get("warning")), version)


@dataclasses.dataclass(frozen=True)
class Applications:
    """The topic of the dashboard."""

    uid: int
    renderer: rendering.Renderer

    @property
    def key(self) -> Hashable:
        return ("applications", self.uid)

    def read(self, way: upstream.Upstream, before: Any) -> Overview:
        return overview(way, before)

    def parts(self, seen: Overview) -> Mapping[str, str]:
        """The list, and the sums above it."""
        values = {"overview": seen, "csrf": live.CSRF_PLACE}
        names = ("sums", "list")
        return {f"apps-{name}": self.renderer.render(f"apps/part-{name}.html", **values) for name in names}

    def changing(self, seen: Overview) -> bool:
        return seen.changing

    def news(self, before: Overview, seen: Overview) -> Sequence[str]:
        """Which applications changed their state."""
        was = {row.application.aid: row.application.status for row in before.rows}
        return [
            f"{row.application.name}: {rendering.state_label(row.application.status)}."
            for row in seen.rows
            if was.get(row.application.aid, row.application.status) != row.application.status
        ]


def _topic(visit: visits.Visit) -> Applications:
    return Applications(visit.user.grant.uid, visit.frontend.renderer)


def show(visit: visits.Visit) -> responses.Response:
    """The list, and a form for a new application."""
    topic = _topic(visit)
    seen = visit.frontend.hub.peek(topic) or overview(visit.upstream)
    return visit.render("apps/list.html", overview=seen, clouds=visit.upstream.clouds(), problem=None, name="")


def create(visit: visits.Visit) -> responses.Response:
    """Create an application, and start it if that was asked for."""
    name = visit.field("name")
    try:
        if not name or len(name) > NAME_LENGTH:
            raise errors.InvalidArgument(f"A name has 1 to {NAME_LENGTH} characters.")
        made = visit.director.create_application(name)
    except errors.ConPaaSError as error:
        if upstream.session_ended(error):
            raise
        problem = problems.describe(error)
        if visit.scripted:
            return problems.page(visit, problem)
        seen = overview(visit.upstream)
        return visit.render(
            "apps/list.html", problem.status, overview=seen, clouds=visit.upstream.clouds(), problem=problem, name=name[:1000]
        )
    visit.frontend.hub.hurry(_topic(visit).key)
    if visit.field("cloud"):
        visit.director.start_application(made.aid, visit.field("cloud"))
        visit.tell(f"“{made.name}” was created and is starting.")
    else:
        visit.tell(f"“{made.name}” was created. Start it to add services.")
    return visit.redirect(f"/apps/{made.aid}")


async def follow(visit: visits.Visit) -> responses.Response:
    """The list, live."""
    return await visit.frontend.hub.answer(visit, _topic(visit))


ROUTES: Final = [
    Page("/apps", show),
    Page("/apps", create, methods=("POST",)),
    Stream("/apps/live", follow),
]
