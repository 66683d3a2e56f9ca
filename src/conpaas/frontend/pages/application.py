"""One application: what it consists of, what it does, what it costs, and all that can be done with it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Final

from starlette import responses

from conpaas.client import replies
from conpaas.core import errors
from conpaas.frontend import live, reading, rendering, upstream, visits
from conpaas.frontend.routing import Page, Stream

PARTS: Final = ("head", "services", "machines", "volumes", "operations")
LOG_BYTES: Final = 64 * 1024
"""How much of a log is shown at first, and sent at once when it is followed."""


@dataclasses.dataclass(frozen=True)
class Topic:
    """The topic of an application's page."""

    uid: int
    aid: int
    renderer: rendering.Renderer

    @property
    def key(self) -> Hashable:
        return ("application", self.uid, self.aid)

    def read(self, way: upstream.Upstream, before: Any) -> reading.Seen:
        return reading.read(way, self.aid, before)

    def parts(self, seen: reading.Seen) -> Mapping[str, str]:
        values = {"seen": seen, "application": seen.application, "csrf": live.CSRF_PLACE}
        return {f"app-{name}": self.renderer.render(f"apps/part-{name}.html", **values) for name in PARTS}

    def changing(self, seen: reading.Seen) -> bool:
        return seen.changing

    def news(self, before: reading.Seen, seen: reading.Seen) -> Sequence[str]:
        """What changed its state, and what ended badly."""
        said = []
        if before.status != seen.status:
            said.append(f"{seen.application.name}: {rendering.state_label(seen.status)}.")
        was = {service.sid: service.state for service in before.services}
        for service in seen.services:
            if was.get(service.sid, service.state) != service.state:
                said.append(f"{service.name}: {rendering.state_label(service.state)}.")
        failed = {one.id for one in before.operations if one.status == "FAILED"}
        said += [
            f"{rendering.words(one.kind)} failed: {one.error}" for one in seen.operations if one.status == "FAILED" and one.id not in failed
        ]
        return said


def topic(visit: visits.Visit, aid: int | None = None) -> Topic:
    """The topic of the application that the address names."""
    return Topic(visit.user.grant.uid, visit.number("aid") if aid is None else aid, visit.frontend.renderer)


def look(visit: visits.Visit) -> reading.Seen:
    """The application that the address names, as a watcher saw it just now or as it is read now. Raises NotFound."""
    following = topic(visit)
    seen = visit.frontend.hub.peek(following)
    return seen if seen is not None else following.read(visit.upstream, None)


def show(visit: visits.Visit) -> responses.Response:
    """The page."""
    seen = look(visit)
    return visit.render(
        "apps/show.html",
        seen=seen,
        application=seen.application,
        clouds=visit.upstream.clouds(),
        types=visit.upstream.service_types(),
    )


async def follow(visit: visits.Visit) -> responses.Response:
    """The page, live."""
    return await visit.frontend.hub.answer(visit, topic(visit))


def _done(visit: visits.Visit, text: str, path: str | None = None) -> responses.Response:
    """Tell what was begun, and go back to the application."""
    aid = visit.number("aid")
    visit.frontend.hub.hurry(topic(visit).key)
    visit.frontend.hub.hurry(("applications", visit.user.grant.uid))
    visit.tell(text)
    return visit.redirect(path or f"/apps/{aid}")


def require_typed(visit: visits.Visit, name: str) -> None:
    """Refuse what loses data unless the name was typed. Raises InvalidArgument."""
    if visit.field("typed") != name.strip():
        raise errors.InvalidArgument("Nothing was done: what you typed is not the name.", hint=f"type {name} to confirm")


def start(visit: visits.Visit) -> responses.Response:
    application = visit.application()
    visit.director.start_application(application.aid, visit.field("cloud") or None)
    return _done(visit, f"“{application.name}” is starting.")


def stop(visit: visits.Visit) -> responses.Response:
    application = visit.application()
    require_typed(visit, application.name)
    visit.set_off(lambda: visit.director.stop_application(application.aid))
    return _done(visit, f"“{application.name}” is stopping; its machines are given back.")


def delete(visit: visits.Visit) -> responses.Response:
    application = visit.application()
    require_typed(visit, application.name)
    visit.set_off(lambda: visit.director.delete_application(application.aid))
    return _done(visit, f"“{application.name}” is deleted.", "/apps")


def rename(visit: visits.Visit) -> responses.Response:
    aid = visit.number("aid")
    visit.director.rename_application(aid, visit.field("name"))
    return _done(visit, f"The application is now called “{visit.field('name')}”.")


def add_service(visit: visits.Visit) -> responses.Response:
    application = visit.application()
    kind = visit.field("type")
    if kind not in [str(known.get("name")) for known in visit.upstream.service_types()]:
        raise errors.InvalidArgument("Choose one of the kinds of service.")
    made = visit.director.add_service(kind, application.aid)
    name = visit.field("name")
    if name and name != made.name:
        visit.director.rename_service(application.aid, made.sid, name)
    return _done(visit, f"The service “{name or made.name}” was added. Start it when it is set up.")


def start_service(visit: visits.Visit) -> responses.Response:
    application = visit.application()
    sid = visit.number("sid")
    visit.manager(application).start_service(sid, visit.field("cloud") or "default")
    return _done(visit, "The service is starting.", _back(visit))


def stop_service(visit: visits.Visit) -> responses.Response:
    application = visit.application()
    service = visit.upstream.service(application.aid, visit.number("sid"))
    require_typed(visit, service.name)
    visit.manager(application).stop_service(service.sid)
    return _done(visit, f"The service “{service.name}” is stopping.", _back(visit))


def remove_service(visit: visits.Visit) -> responses.Response:
    application = visit.application()
    service = visit.upstream.service(application.aid, visit.number("sid"))
    require_typed(visit, service.name)
    visit.set_off(lambda: visit.director.remove_service(application.aid, service.sid))
    return _done(visit, f"The service “{service.name}” is removed.")


def _back(visit: visits.Visit) -> str | None:
    """Where the form says that it stood, if that is a page of this application."""
    wanted = visits.local_path(visit.field("back"))
    prefix = f"/apps/{visit.number('aid')}"
    return wanted if wanted == prefix or wanted.startswith(f"{prefix}/") else None


def manifest(visit: visits.Visit) -> responses.Response:
    """The manifest that would create the application again, as a file."""
    application = visit.application()
    text = json.dumps(visit.director.download_manifest(application.aid), indent=2)
    return visit.download(f"{text}\n", f"{application.name}.json", "application/json")


# -- the manager's log


def show_log(visit: visits.Visit) -> responses.Response:
    """The end of the manager's log; a script that follows it gets what was written since `offset`."""
    application = visit.application()
    part = read_log(visit, application)
    if visit.scripted:
        return visit.json(dataclasses.asdict(part))
    return visit.render("apps/log.html", application=application, part=part, title="Manager log", service=None, more=LOG_BYTES)


def read_log(visit: visits.Visit, application: replies.Application, sid: int = 0, **which: Any) -> replies.LogPart:
    """A stretch of a log: its end, or what follows the `offset` of the address."""
    text = visit.query("offset")
    offset = int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None
    return visit.manager(application).log(sid, offset=offset, limit=LOG_BYTES, **which)


def download_log(visit: visits.Visit) -> responses.Response:
    application = visit.application()
    part = visit.manager(application).log(0)
    return visit.download(part.text, f"{application.name}-manager.log", "text/plain; charset=utf-8")


ROUTES: Final = [
    Page("/apps/{aid:int}", show),
    Stream("/apps/{aid:int}/live", follow),
    Page("/apps/{aid:int}/start", start, methods=("POST",)),
    Page("/apps/{aid:int}/stop", stop, methods=("POST",)),
    Page("/apps/{aid:int}/delete", delete, methods=("POST",)),
    Page("/apps/{aid:int}/rename", rename, methods=("POST",)),
    Page("/apps/{aid:int}/services", add_service, methods=("POST",)),
    Page("/apps/{aid:int}/services/{sid:int}/start", start_service, methods=("POST",)),
    Page("/apps/{aid:int}/services/{sid:int}/stop", stop_service, methods=("POST",)),
    Page("/apps/{aid:int}/services/{sid:int}/remove", remove_service, methods=("POST",)),
    Page("/apps/{aid:int}/manifest", manifest),
    Page("/apps/{aid:int}/log", show_log),
    Page("/apps/{aid:int}/log/download", download_log),
]
