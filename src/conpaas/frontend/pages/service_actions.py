"""What can be done to a service: what all services have (start, scale, rename …), and what its type declares."""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from starlette import responses

from conpaas.client import api
from conpaas.core import errors
from conpaas.frontend import actions, panels, problems, visits
from conpaas.frontend.pages import service
from conpaas.frontend.routing import Page, Stream

UPLOAD_SILENCE: Final = 3600.0
"""Seconds that a manager may say nothing about a file that it works on."""
MAX_NODES: Final = 100
SCRIPT_BYTES: Final = 1_000_000


@dataclasses.dataclass(frozen=True)
class Form:
    """The form of a request, as `actions` reads it."""

    visit: visits.Visit

    def text(self, name: str) -> str | None:
        value = self.visit.form.get(name)
        return value if isinstance(value, str) else None

    def texts(self, name: str) -> list[str]:
        return [value for value in self.visit.form.getlist(name) if isinstance(value, str)]

    def file(self, name: str) -> actions.Uploaded | None:
        found = self.visit.file(name)
        if found is None:
            return None
        size = found.size if found.size is not None else found.file.seek(0, os.SEEK_END)
        found.file.seek(0)
        return actions.Uploaded(found.filename or "file", found.file, size)


def do(visit: visits.Visit) -> responses.Response:
    """Run one action: a declared one by its key, or one of those that all services have."""
    subject = service.Subject.of(visit)
    name = str(visit.request.path_params["action"])
    common = COMMON.get(name)
    if common is not None:
        return _do_common(subject, name, common)
    deed = subject.declaration.deed(name)
    if deed is None or deed.kind != "action":
        raise errors.NotFound("There is no such action.", hint="Reload the page of the service; what it offers may have changed.")
    sent = Form(visit)
    try:
        prepared = actions.prepare(deed, sent, subject.service.name)
        reply = _call(subject, prepared)
    except actions.Refused as error:
        return _refused(subject, actions.attempt(deed, sent, error.problems), 422)
    except errors.ConPaaSError as error:
        described = problems.describe(error)
        return _refused(subject, actions.attempt(deed, sent, {"": described.text}, described.hint), described.status)
    visit.frontend.hub.hurry(subject.topic.key)
    part = subject.declaration.part_of(deed)
    target = f"{subject.here}#{part.key.partition('.')[0]}" if part is not None else subject.here
    done = deed.done or f"{deed.label}: done."
    once = actions.seen_once(deed, prepared, reply)
    if once:
        return _shown_once(subject, once, done, target)
    visit.tell(done)
    return visit.redirect(target)


def _call(subject: service.Subject, prepared: actions.Prepared) -> Any:
    call, manager = prepared.call, subject.manager
    target = api.APPLICATION_MANAGER if call.application else subject.service.sid
    if call.verb != "UPLOAD":
        return manager.post(call.method, target, call.params)
    fields = {name: _as_text(value) for name, value in call.params.items() if value is not None}
    return manager.upload(call.method, target, prepared.files, fields, timeout=UPLOAD_SILENCE)


def _as_text(value: Any) -> str:
    """A value as a part of a multipart form."""
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _refused(subject: service.Subject, attempt: panels.Attempt, status: int) -> responses.Response:
    """The page again, with what is wrong beside the form; for a script, that as JSON."""
    if not subject.visit.scripted:
        return service.render(subject, status, attempt)
    fields = {name: text for name, text in attempt.problems.items() if name}
    whole = attempt.problems.get("") or "Nothing was done."
    return subject.visit.json({"error": whole, "hint": attempt.hint, "fields": fields}, status)


def _shown_once(subject: service.Subject, once: Mapping[str, str], done: str, target: str) -> responses.Response:
    """A page with what nobody can ask for again. It is in no address, no log and no store."""
    values = {**subject.topic.values(subject.look()), "once": once, "done": done, "target": target}
    return subject.visit.render("service/once.html", **values)


# -- what all services have

Deed = Callable[[service.Subject], str]


def _do_common(subject: service.Subject, name: str, function: Deed) -> responses.Response:
    visit = subject.visit
    try:
        done = function(subject)
    except errors.ConPaaSError as error:
        described = problems.describe(error)
        if visit.scripted:
            return visit.json({"error": described.text, "hint": described.hint}, described.status)
        return service.render(subject, described.status, failed={"name": name, "text": described.text, "hint": described.hint})
    visit.frontend.hub.hurry(subject.topic.key)
    visit.tell(done)
    gone = name == "remove"
    return visit.redirect(f"/apps/{subject.service.aid}" if gone else subject.here)


def _cloud(subject: service.Subject, name: str = "cloud") -> str:
    """A cloud that the form names, or the first one."""
    chosen = subject.visit.field(name) or "default"
    known = subject.visit.upstream.clouds()
    if chosen not in known and chosen != "default":
        raise errors.InvalidArgument(f"There is no cloud '{chosen[:60]}' here.")
    return chosen


def _confirmed(subject: service.Subject) -> None:
    """Have the name of the service typed. Raises InvalidArgument."""
    if subject.visit.field("typed") != subject.service.name.strip():
        raise errors.InvalidArgument(f"Type the name of the service, {subject.service.name}, to confirm; nothing was done.")


def _start(subject: service.Subject) -> str:
    subject.manager.start_service(subject.service.sid, _cloud(subject))
    return f"{subject.service.name} is being started."


def _stop(subject: service.Subject) -> str:
    if subject.declaration.loses:
        _confirmed(subject)
    subject.manager.stop_service(subject.service.sid)
    return f"{subject.service.name} is being stopped."


def _recover(subject: service.Subject) -> str:
    subject.manager.recover_service(subject.service.sid)
    return f"{subject.service.name} is being brought back on the nodes that work."


def _remove(subject: service.Subject) -> str:
    _confirmed(subject)
    subject.visit.set_off(lambda: subject.visit.director.remove_service(subject.service.aid, subject.service.sid))
    return f"{subject.service.name} is being removed."


def _rename(subject: service.Subject) -> str:
    name = subject.visit.field("name")
    if not name:
        raise errors.InvalidArgument("A service needs a name.")
    subject.visit.director.rename_service(subject.service.aid, subject.service.sid, name)
    return f"The service is called {name} now."


def _scale(subject: service.Subject) -> str:
    """Add or remove nodes, by how many the form says of each role; not both at once."""
    wanted: dict[str, int] = {}
    for role in subject.declaration.roles:
        typed = subject.visit.field(f"nodes.{role.name}") or "0"
        number = typed.removeprefix("+").removeprefix("-").removeprefix("−")
        if not (number.isascii() and number.isdigit()) or int(number) > MAX_NODES:
            raise errors.InvalidArgument(
                f"The number of {role.label.lower()} must be a whole number up to {MAX_NODES}, not '{typed[:20]}'."
            )
        wanted[role.name] = -int(number) if typed[0] in "-−" else int(number)
    more = {role: count for role, count in wanted.items() if count > 0}
    less = {role: -count for role, count in wanted.items() if count < 0}
    if more and less:
        raise errors.InvalidArgument("Add nodes or remove nodes, one after the other; nothing was done.")
    if not more and not less:
        raise errors.InvalidArgument("Say how many nodes to add or to remove.")
    if more:
        subject.manager.add_nodes(subject.service.sid, more, _cloud(subject))
        return f"{_counted(more)} being added."
    subject.manager.remove_nodes(subject.service.sid, less)
    return f"{_counted(less)} being removed."


def _counted(roles: Mapping[str, int]) -> str:
    total = sum(roles.values())
    return f"{total} node{' is' if total == 1 else 's are'}"


def _remove_node(subject: service.Subject) -> str:
    node = subject.visit.field("node")
    subject.manager.remove_nodes(subject.service.sid, {}, [node])
    return f"The node {node} is being removed."


def _migrate(subject: service.Subject) -> str:
    node = subject.visit.field("node")
    seconds = subject.visit.field("delay") or "0"
    if not (seconds.isascii() and seconds.isdigit()):
        raise errors.InvalidArgument("The delay must be a whole number of seconds.")
    move = {"from_cloud": subject.visit.field("from_cloud"), "vmid": node, "to_cloud": _cloud(subject, "to_cloud")}
    subject.manager.post("migrate_nodes", subject.service.sid, {"nodes": [move], "delay": int(seconds)})
    return f"The node {node} is being moved: a new one takes its place, then it leaves."


def _startup_script(subject: service.Subject) -> str:
    chosen = subject.visit.file("file")
    script = chosen.file.read(SCRIPT_BYTES + 1) if chosen is not None else subject.visit.raw_field("script").replace("\r\n", "\n").encode()
    if len(script) > SCRIPT_BYTES:
        raise errors.TooLarge(f"A startup script has at most {SCRIPT_BYTES:,} bytes.")
    files = {"script": ("startup.sh", io.BytesIO(script))}
    subject.manager.upload("upload_startup_script", api.APPLICATION_MANAGER, files, {"sid": subject.service.sid})
    return "The startup script is kept; nodes that are created from now on run it."


COMMON: Final[Mapping[str, Deed]] = {
    "start": _start,
    "stop": _stop,
    "recover": _recover,
    "remove": _remove,
    "rename": _rename,
    "scale": _scale,
    "remove-node": _remove_node,
    "migrate": _migrate,
    "startup-script": _startup_script,
}


def startup_script(visit: visits.Visit) -> responses.Response:
    """The startup script, to be read and changed."""
    subject = service.Subject.of(visit)
    problem, script = "", ""
    try:
        script = subject.manager.startup_script(subject.service.sid)
    except errors.RemoteError as error:
        if "No startup script" not in str(error):
            problem = problems.describe(error).text
    except errors.ConPaaSError as error:
        problem = problems.describe(error).text
    return visit.render("service/script.html", script=script, problem=problem, **subject.topic.values(subject.look()))


def back(visit: visits.Visit) -> responses.Response:
    """Somebody who reloads the page of a form that was refused sees the service again; nothing is done."""
    return visit.redirect(service.HERE.format(aid=visit.number("aid"), sid=visit.number("sid")))


_BASE: Final = "/apps/{aid:int}/services/{sid:int}"

ROUTES: list[Page | Stream] = [
    Page(f"{_BASE}/do/{{action}}", do, methods=("POST",), upload=True),
    Page(f"{_BASE}/do/{{action}}", back),
    Page(f"{_BASE}/startup-script", startup_script),
]
