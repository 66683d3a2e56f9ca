"""Applications from manifests: upload or paste, ready-made ones, a form that writes one, and the way back: a manifest of an application."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette import responses

from conpaas.client import replies
from conpaas.core import errors
from conpaas.frontend import manifest_form, problems, upstream, visits
from conpaas.frontend.routing import Page

MAX_BYTES: Final = 4 * 1024 * 1024
"""What a Director takes."""
_AROUND: Final = 3
"""Lines that are shown before and after one with a mistake."""
_WIDTH: Final = 200
"""Letters that are shown of a line."""
_SHOWN: Final = 64 * 1024
"""Letters of a manifest that are put back into the form; longer ones come from a file, and are uploaded again."""
_FIRST: Final = "/apps/new-from-manifest"
_EXAMPLE: Final = {
    "Application": "my site",
    "Services": [{"Type": "php", "ServiceName": "site", "Start": 1, "StartupInstances": {"backend": 2}}],
}


def show(visit: visits.Visit) -> responses.Response:
    """Where an application from a manifest begins."""
    name = visit.query("ready")
    text = _pretty(_ready_made(visit, name)["manifest"]) if name else ""
    return _page(visit, text)


def _page(
    visit: visits.Visit,
    text: str = "",
    *,
    problem: problems.Problem | None = None,
    found: Sequence[Mapping[str, Any]] = (),
    checked: Mapping[str, Any] | None = None,
) -> responses.Response:
    """The page; `found` is what is wrong with the text, `checked` what it means if nothing is."""
    return visit.render(
        "manifests/new.html",
        problem.status if problem else 400 if found else 200,
        text=text if len(text) <= _SHOWN else "",
        too_long=len(text) > _SHOWN,
        problem=problem,
        found=found,
        excerpt=excerpt(text, found),
        checked=checked,
        ready_made=_ready_made_all(visit),
        clouds=visit.upstream.clouds(),
        cloud=visit.field("cloud") or "default",
        example=_pretty(_EXAMPLE),
    )


def _pretty(document: object) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def excerpt(text: str, found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The lines around what is wrong, each with its number and what is wrong there; None stands for lines left out."""
    lines = text.split("\n")
    wrong: dict[int, list[Mapping[str, Any]]] = {}
    for one in found:
        wrong.setdefault(min(max(1, int(one["line"])), len(lines)), []).append(one)
    wanted = sorted({near for line in wrong for near in range(max(1, line - _AROUND), min(len(lines), line + _AROUND) + 1)})
    shown: list[dict[str, Any]] = []
    for number in wanted:
        gap = bool(shown) and shown[-1]["number"] != number - 1
        shown.append({"number": number, "gap": gap, "problems": wrong.get(number, []), **_piece(lines[number - 1], wrong.get(number, []))})
    return shown


def _piece(line: str, problems_there: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The part of a line that is shown: that with the first mistake."""
    column = int(problems_there[0]["column"]) if problems_there else 1
    begin = max(0, column - _WIDTH // 2) if len(line) > _WIDTH else 0
    return {"text": line[begin : begin + _WIDTH], "before": begin > 0, "after": len(line) > begin + _WIDTH}


def _given(visit: visits.Visit) -> str:
    """The manifest that was sent: a file, or else the text. Raises InvalidArgument, TooLarge."""
    file = visit.file("file")
    if file is None:
        text = visit.raw_field("manifest").replace("\r\n", "\n")
        if not text.strip():
            raise errors.InvalidArgument("There is no manifest yet.", hint="Choose a file, or type or paste the text.")
        return text
    content = file.file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise errors.TooLarge(f"A manifest can have at most {MAX_BYTES // 1024 // 1024} MB.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise errors.InvalidArgument("The file is not a text in UTF-8.", hint="A manifest is a JSON text.") from error


def submit(visit: visits.Visit) -> responses.Response:
    """Check a manifest and, if that is wanted and nothing is wrong, deploy it."""
    text = ""
    try:
        text = _given(visit)
        checked = replies.mapping(visit.director.post("/check_manifest", {"manifest": text}), "what is wrong with a manifest")
        found = replies.each(checked.get("problems"), replies.mapping, "a list of problems")
        if found or visit.field("action") == "check":
            return _page(visit, text, found=found, checked=None if found else checked)
        return _deploy(visit, text)
    except errors.ConPaaSError as error:
        if upstream.session_ended(error):
            raise
        return _page(visit, text, problem=problems.describe(error))


def _deploy(visit: visits.Visit, text: str) -> responses.Response:
    aid = visit.director.upload_manifest(text, visit.field("cloud") or "default")
    visit.tell("The application is being made. Its page shows how far it has come; if a part fails, everything of it is undone.")
    return visit.redirect("/apps" if aid is None else f"/apps/{aid}")


# Ready-made applications


def _ready_made_all(visit: visits.Visit) -> list[Mapping[str, Any]]:
    """What can be deployed by a click; nothing at a Director that is too old to have any."""
    try:
        return replies.each(visit.director.get("/ready_made"), replies.mapping, "a list of ready-made applications")
    except errors.ConPaaSError as error:
        if not upstream.not_offered(error):
            raise
        return []


def _ready_made(visit: visits.Visit, name: str) -> Mapping[str, Any]:
    for one in _ready_made_all(visit):
        if one.get("name") == name:
            return one
    raise errors.NotFound("There is no such ready-made application.")


def deploy_ready_made(visit: visits.Visit) -> responses.Response:
    """Deploy a ready-made application under a name of the user's."""
    chosen = _ready_made(visit, visit.field("name"))
    if not chosen.get("available"):
        raise errors.WrongState(replies.text(chosen.get("missing")) or "This application is not prepared on this Director.")
    document = dict(replies.mapping(chosen.get("manifest"), "a manifest"))
    if visit.field("application"):
        document["Application"] = visit.field("application")
    try:
        return _deploy(visit, json.dumps(document))
    except errors.ConPaaSError as error:
        if upstream.session_ended(error):
            raise
        return _page(visit, problem=problems.describe(error))


# The form that writes a manifest


def show_form(visit: visits.Visit) -> responses.Response:
    """An empty form."""
    return _form_page(visit, [])


def _form_page(
    visit: visits.Visit, numbers: list[tuple[int, str]], problem: problems.Problem | None = None, added: str = ""
) -> responses.Response:
    """The form with services of these numbers and types, and a new one of the type `added`, which is to be started."""
    known = manifest_form.kinds(_schema(visit))
    cards = [manifest_form.card(known[kind], number, visit.raw_field) for number, kind in numbers if kind in known]
    if added in known:
        number = max([number for number, _ in numbers], default=-1) + 1
        cards.append(manifest_form.card(known[added], number, {f"{number}.Start": "1"}.get))
    return visit.render(
        "manifests/form.html",
        problem.status if problem else 200,
        application=visit.field("application"),
        cards=cards,
        kinds=list(known.values()),
        clouds=visit.upstream.clouds(),
        problem=problem,
        full=len(cards) >= manifest_form.MAX_SERVICES,
    )


def _schema(visit: visits.Visit) -> Mapping[str, Any]:
    found: Mapping[str, Any] = visit.upstream.catalogue.get(
        "manifest_schema", lambda: replies.mapping(visit.director.get("/manifest_schema"), "a schema")
    )
    return found


def change_form(visit: visits.Visit) -> responses.Response:
    """Add a service to the form, take one out of it, or write the manifest."""
    numbers = _numbers(visit)
    action, _, argument = visit.field("action").partition(":")
    if action == "add" and len(numbers) < manifest_form.MAX_SERVICES:
        return _form_page(visit, numbers, added=argument)
    if action == "remove":
        return _form_page(visit, [one for one in numbers if str(one[0]) != argument])
    try:
        return _written(visit, numbers)
    except errors.InvalidArgument as error:
        return _form_page(visit, numbers, problems.describe(error))


def _numbers(visit: visits.Visit) -> list[tuple[int, str]]:
    """The services of the form that was sent: what its hidden fields `services` say, `number:type` each."""
    found = []
    for value in visit.form.getlist("services"):
        number, _, kind = str(value).partition(":")
        if number.isascii() and number.isdigit() and len(number) < 6:
            found.append((int(number), kind))
    return found[: manifest_form.MAX_SERVICES]


def _written(visit: visits.Visit, numbers: list[tuple[int, str]]) -> responses.Response:
    """The page with the manifest that the form means, checked."""
    known = manifest_form.kinds(_schema(visit))
    chosen = [(number, known[kind]) for number, kind in numbers if kind in known]
    if not visit.field("application"):
        raise errors.InvalidArgument("Give the application a name.")
    text = _pretty(manifest_form.document(visit.field("application"), chosen, visit.raw_field))
    checked = replies.mapping(visit.director.post("/check_manifest", {"manifest": text}), "what is wrong with a manifest")
    found = replies.each(checked.get("problems"), replies.mapping, "a list of problems")
    return _page(visit, text, found=found, checked=None if found else checked)


# And back


def download(visit: visits.Visit) -> responses.Response:
    """The manifest of an application, as a file."""
    application = visit.application()
    return visit.download(_pretty(visit.director.download_manifest(application.aid)), f"{application.name}.mnf", "application/json")


ROUTES: Final = [
    Page(_FIRST, show),
    Page(_FIRST, submit, methods=("POST",), upload=True),
    Page(f"{_FIRST}/ready-made", deploy_ready_made, methods=("POST",)),
    Page(f"{_FIRST}/form", show_form),
    Page(f"{_FIRST}/form", change_form, methods=("POST",)),
    Page("/apps/{aid:int}/manifest", download),
]
