"""The page of a service, the fragments it follows, and what is read for it: panels, charts, files, texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from starlette import responses

from conpaas.client import api, replies
from conpaas.core import errors, pages
from conpaas.frontend import actions, declared, gathering, panels, paths, problems, services, visits
from conpaas.frontend.routing import Page, Stream

HERE: Final = "/apps/{aid}/services/{sid}"
_DOWNLOAD_SILENCE: Final = 3600.0
_TEXT_LIMIT: Final = 4_000_000
_CHART_POINTS: Final = 200


@dataclasses.dataclass
class Subject:
    """The service that an address names, with what is around it."""

    visit: visits.Visit
    application: replies.Application
    service: replies.Service
    others: list[replies.Service]
    declaration: declared.Declaration
    topic: services.ServiceTopic

    @classmethod
    def of(cls, visit: visits.Visit) -> Subject:
        """Raises NotFound, the same for what is not there and what is somebody else's."""
        aid, sid = visit.number("aid"), visit.number("sid")
        application = visit.application()
        found = visit.director.services(aid)
        service = next((one for one in found if one.sid == sid), None)
        if service is None:
            raise errors.NotFound(f"There is no service {sid} in application {aid}.")
        types = {str(one.get("name")): one for one in visit.upstream.service_types()}
        declaration = declared.read(types.get(service.type, {"name": service.type, "label": service.type}), sid)
        clouds = visit.upstream.clouds()
        topic = services.ServiceTopic(visit.frontend.renderer, visit.user.grant.uid, application, service, declaration, clouds)
        return cls(visit, application, service, found, declaration, topic)

    @property
    def here(self) -> str:
        return HERE.format(aid=self.service.aid, sid=self.service.sid)

    @property
    def manager(self) -> api.Manager:
        """Raises WrongState when the application has not started."""
        return self.visit.manager(self.application)

    def look(self) -> services.Seen:
        """The common part, as a page that follows it read it just now, or read for this one."""
        known = self.visit.frontend.hub.peek(self.topic)
        return known if isinstance(known, services.Seen) else self.topic.read(self.visit.upstream, None)

    def around(self, seen: services.Seen) -> panels.Around:
        return services.around(seen, self.service, self.others, self.application.manager or "")

    def replies(self, wanted: list[declared.Call], seen: services.Seen, patience: float = gathering.PATIENCE) -> panels.Replies:
        """The replies to calls; none is made while the manager does not answer."""
        if seen.problem:
            return gathering.failing(errors.Unreachable(seen.problem, hint=seen.hint))
        manager = self.manager
        return gathering.gather(wanted, lambda call: gathering.fetch(manager, self.service.sid, call), patience)


def render(subject: Subject, status: int = 200, attempt: panels.Attempt | None = None, **more: Any) -> responses.Response:
    """The whole page; after a form that was refused, with what is wrong beside it."""
    seen = subject.look()
    around = subject.around(seen)
    wanted = {call.key: call for panel in subject.declaration.panels for call in panels.calls(panel, seen.state)}
    found = subject.replies(list(wanted.values()), seen)
    nothing = ((one, panels.PanelView(one.key, one.title, one.help, ())) for one in subject.declaration.panels)
    views = [panels.view(one, around, found, attempt) or empty for one, empty in nothing]
    values = {**subject.topic.values(seen), "panels": views, "attempt": attempt, "services": subject.others, **more}
    return subject.visit.render("service/page.html", status, **values)


def show(visit: visits.Visit) -> responses.Response:
    return render(Subject.of(visit))


def panel(visit: visits.Visit) -> responses.Response:
    """One panel as a fragment, for a page that shows it already. What takes long may take longer here."""
    subject = Subject.of(visit)
    found = subject.declaration.panel(str(visit.request.path_params["panel"]))
    if found is None:
        raise errors.NotFound("There is no such part of the page.")
    seen = subject.look()
    answers = subject.replies(panels.calls(found, seen.state), seen, patience=60.0)
    view = panels.view(found, subject.around(seen), answers)
    if view is None:
        return responses.Response(status_code=204)
    return responses.HTMLResponse(visit.fragment("service/panel.html", panel=view, **subject.topic.values(seen)))


def _chart(subject: Subject) -> tuple[declared.Call, list[str]]:
    """What the chart that the address names asks, and the paths of its numbers."""
    part = subject.declaration.part(str(subject.visit.request.path_params["part"]))
    if part is None or part.kind != "chart" or part.reads is None:
        raise errors.NotFound("There is no such chart.")
    return part.reads, [str(one.get("key") or "") for one in part.value.get("series") or [] if isinstance(one, Mapping)]


def chart(visit: visits.Visit) -> responses.Response:
    """The numbers of a chart, now."""
    subject = Subject.of(visit)
    call, keys = _chart(subject)
    reply = gathering.fetch(subject.manager, subject.service.sid, call)
    return visit.json({"values": [_number(pages.pick(reply, key)) for key in keys]})


def chart_before(visit: visits.Visit) -> responses.Response:
    """What a chart showed in the last `minutes`: rows of a time (seconds since 1970) and its numbers."""
    subject = Subject.of(visit)
    call, keys = _chart(subject)
    minutes = visit.query("minutes")
    seconds = 60 * min(max(int(minutes), 1), 1440) if minutes.isascii() and minutes.isdigit() and len(minutes) < 6 else 3600
    asked = {"method": call.method, "seconds": seconds, "points": _CHART_POINTS}
    told = replies.mapping(subject.manager.get("get_figures", subject.service.sid, asked), "figures")
    columns = [str(one) for one in replies.sequence(told.get("columns"))]
    places = [columns.index(key) + 1 if key in columns else None for key in keys]
    rows = [one for one in replies.sequence(told.get("rows")) if isinstance(one, list) and len(one) == len(columns) + 1]
    shown = [[one[0], *(None if place is None else _number(one[place]) for place in places)] for one in rows]
    return visit.json({"rows": shown})


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


# -- files and texts


@dataclasses.dataclass(frozen=True)
class Query:
    """The parameters of an address, as a form."""

    visit: visits.Visit

    def text(self, name: str) -> str | None:
        return self.visit.request.query_params.get(name)

    def texts(self, name: str) -> list[str]:
        return self.visit.request.query_params.getlist(name)

    def file(self, name: str) -> None:
        return None


def _find(subject: Subject, kind: str) -> declared.Deed:
    deed = subject.declaration.deed(str(subject.visit.request.path_params["deed"]))
    if deed is None or deed.kind != kind:
        raise errors.NotFound("There is nothing at this address.", hint="It may be offered in another state of the service only.")
    return deed


def download(visit: visits.Visit) -> responses.Response:
    """A file, as the manager sends it; what breaks off there breaks off in the browser, which tells that it is not complete."""
    subject = Subject.of(visit)
    deed = _find(subject, "download")
    call = actions.prepare(deed, Query(visit)).call
    if deed.path:
        text = pages.pick(gathering.fetch(subject.manager, subject.service.sid, call), deed.path)
        return visit.download(str(text or ""), deed.filename or "file.txt", "application/octet-stream")
    name = _filename(subject, deed, call)
    sent = subject.manager.stream(call.method, subject.service.sid, call.params, timeout=_DOWNLOAD_SILENCE)
    headers = {"Content-Disposition": visits.disposition(name), "Cache-Control": "no-store"}
    if sent.size is not None:
        headers["Content-Length"] = str(sent.size)
    return responses.StreamingResponse(sent.pieces, media_type="application/octet-stream", headers=headers)


def _filename(subject: Subject, deed: declared.Deed, call: declared.Call) -> str:
    """The name that the declaration gives; for a code version, the one it was uploaded with."""
    version = call.params.get("codeVersionId")
    if call.method == "download_code_version" and version:
        try:
            listed = replies.mapping(subject.manager.get("list_code_versions", subject.service.sid)).get("codeVersions")
            known = {one.id: one.filename for one in replies.each(listed, replies.CodeVersion.read, "code versions")}
        except errors.ConPaaSError:
            known = {}
        name = known.get(str(version), "")
        return name if "." in name else f"{name or version}.tar"
    return paths.fill(deed.filename, lambda place: call.params.get(place, "all")) or deed.key


def text(visit: visits.Visit) -> responses.Response:
    """A text on a page of its own, with the form that chooses it."""
    subject = Subject.of(visit)
    deed = _find(subject, "view")
    seen = subject.look()
    sent = Query(visit)
    asked = not deed.fields or any(sent.text(f"f.{field.name}") is not None for field in deed.fields)
    problem, shown, rows = "", None, []
    attempt = actions.attempt(deed, sent, {})
    if asked:
        try:
            call = actions.prepare(deed, sent).call
            found = pages.pick(gathering.fetch(subject.manager, subject.service.sid, call), deed.path)
            rows = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
            shown = "" if rows else str(found if found is not None else "")[-_TEXT_LIMIT:]
        except actions.Refused as error:
            attempt = actions.attempt(deed, sent, error.problems)
        except errors.ConPaaSError as error:
            problem = problems.describe(error).text
    wanted = [source for field in deed.fields if (source := declared.choices_call(field)) is not None]
    form = panels.single(deed, subject.around(seen), subject.replies(wanted, seen), attempt)
    return visit.render("service/text.html", form=form, shown=shown, rows=rows, problem=problem, **subject.topic.values(seen))


async def live(visit: visits.Visit) -> responses.Response:
    """What happens to the service."""
    from starlette import concurrency

    subject = await concurrency.run_in_threadpool(Subject.of, visit)
    return await visit.frontend.hub.answer(visit, subject.topic)


_BASE: Final = "/apps/{aid:int}/services/{sid:int}"

ROUTES: list[Page | Stream] = [
    Page(_BASE, show),
    Stream(f"{_BASE}/live", live),
    Page(f"{_BASE}/panel/{{panel}}", panel),
    Page(f"{_BASE}/chart/{{part}}", chart),
    Page(f"{_BASE}/chart/{{part}}/before", chart_before),
    Page(f"{_BASE}/download/{{deed}}", download),
    Page(f"{_BASE}/text/{{deed}}", text),
]
