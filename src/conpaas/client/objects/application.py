"""`cps-application`: applications, each with its own manager."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from conpaas.client import api, grammar, handles, logfiles, replies, session, waiting
from conpaas.core import errors

APP = grammar.application_argument()
COLUMNS = ("aid", "name", "manager", "cloud", "status")
group = grammar.Group("application", help="Create, start, stop and inspect applications.")


def row(application: replies.Application) -> dict[str, Any]:
    """One application as a table row."""
    return {name: getattr(application, name) for name in COLUMNS}


@group.verb("create", grammar.argument("app_name"))
def create(run: session.Session, app_name: str) -> None:
    """Create an application."""
    made = run.director.create_application(app_name)
    run.out.show(f"Application '{made.name}' created with id {made.aid}.", row(made), name=str(made.aid))


@group.verb("delete", APP)
def delete(run: session.Session, app_name_or_id: str) -> None:
    """Stop and delete an application with all its services."""
    found = run.application(app_name_or_id)
    run.confirm(f"Delete application '{found.name}' with everything in it?")
    run.director.delete_application(found.aid)
    run.out.show(f"Application '{found.name}' with id {found.aid} has been deleted.", {"aid": found.aid, "result": "done"})


@group.verb("list")
def list_applications(run: session.Session) -> None:
    """List your applications."""
    found = run.director.applications()
    data = [{**row(one), **({"reason": one.reason} if one.reason else {})} for one in found]
    run.out.table(COLUMNS, [row(one) for one in found], "No existing applications.", data)
    for one in found:
        if one.status == "ERROR" and one.reason and run.out.form == "table":
            run.out.warning(f"Application '{one.name}' is in ERROR: {one.reason}")


@group.verb("rename", APP, grammar.argument("new_name"))
def rename(run: session.Session, app_name_or_id: str, new_name: str) -> None:
    """Give an application another name."""
    found = run.application(app_name_or_id)
    run.director.rename_application(found.aid, new_name)
    run.out.show(
        f"Application with id {found.aid} has been renamed from '{found.name}' to '{new_name}'.", {"aid": found.aid, "name": new_name}
    )


@group.verb("start", APP, grammar.cloud_option(default=None))
def start(run: session.Session, app_name_or_id: str, cloud: str | None) -> None:
    """Start an application's manager and wait until it runs."""
    found = run.application(app_name_or_id)
    if cloud is not None:
        run.cloud(cloud)
    sentence = f"Application '{found.name}' with id {found.aid} is starting"
    _wait_until_running(run, found.aid, sentence, lambda: run.director.start_application(found.aid, cloud))


def _wait_until_running(run: session.Session, aid: int | None, sentence: str, request: Any) -> None:
    def state(reply: Any) -> waiting.Seen:
        now = run.director.application(aid if aid is not None else replies.integer(replies.mapping(reply).get("aid"), "an application"))
        return waiting.Seen(now.status, now.reason, waiting.describe(now.operation) if now.operation else "")

    run.resume_hint = f"cps-tools wait {aid} --for RUNNING"
    run.change(sentence, request, until=("RUNNING",), state=state, about={"aid": aid}, advice=f"see 'cps-tools history {aid}'")


@group.verb("stop", APP)
def stop(run: session.Session, app_name_or_id: str) -> None:
    """Stop all virtual machines of an application; its services are forgotten."""
    found = run.application(app_name_or_id)
    run.confirm(f"Stop application '{found.name}'? Its services and their data are lost.")
    run.director.stop_application(found.aid)
    run.out.show(f"Application '{found.name}' with id {found.aid} was stopped.", {"aid": found.aid, "result": "done"})


@group.verb("recover", APP)
def recover(run: session.Session, app_name_or_id: str) -> None:
    """Bring every service that is in ERROR back."""
    found = run.application(app_name_or_id)
    manager = run.manager(found)
    broken = sorted(sid for sid, state in manager.states().items() if state == "ERROR" and sid != api.APPLICATION_MANAGER)
    if not broken:
        run.out.show("No service needs to be recovered.", {"aid": found.aid, "recovered": []})
    for sid in broken:
        recover_service(run, found, sid)


def recover_service(run: session.Session, found: replies.Application, sid: int) -> None:
    """Recover one service of an application and wait for it."""
    handle = handles.Handle(run, found, replies.Service(sid, "", "", found.aid))
    handle.change(
        f"Service {sid} of application {found.aid} is recovering",
        lambda: run.manager(found).recover_service(sid),
        until=("RUNNING", "STOPPED", "INIT"),
    )


@group.verb("get_log", APP)
def get_log(run: session.Session, app_name_or_id: str) -> None:
    """Print the log of the application manager."""
    log = logfiles.tail(logfiles.Source(run.manager(run.application(app_name_or_id)), api.APPLICATION_MANAGER))
    run.out.show(log, {"log": log})


@group.verb("get_info", APP)
def get_info(run: session.Session, app_name_or_id: str) -> None:
    """Print the managers' states, the nodes and the volumes of an application."""
    found = run.application(app_name_or_id)
    info = run.manager(found).application_info()
    run.out.show("\n".join(_info_lines(found, info)), {"aid": found.aid, "name": found.name, **info})


def _info_lines(found: replies.Application, info: Mapping[str, Any]) -> list[str]:
    states = replies.mapping(info.get("states"), "the states of an application")
    lines = [f"Application name: {found.name}", f"Application id: {found.aid}", "Manager states:"]
    lines.append(f"\tApplication manager: {states.get('0', 'N/A')}")
    others = sorted((replies.integer(sid, "a service id"), state) for sid, state in states.items() if sid != "0")
    lines.extend(f"\tService manager {sid}: {state}" for sid, state in others)
    for title, key in (("Nodes:", "nodes"), ("Volumes:", "volumes")):
        lines.append(title)
        lines.extend(f"\t{name}" for name in replies.sequence(info.get(key) or [], f"a list of {key}"))
    return lines


group.verb("info", APP, hidden=True)(get_info)


@group.verb("manifest", grammar.argument("manifest_file"), grammar.cloud_option())
def manifest(run: session.Session, manifest_file: str, cloud: str) -> None:
    """Create an application with its services as a manifest file describes it."""
    text = read_manifest(manifest_file)
    run.cloud(cloud)
    aid = run.director.upload_manifest(text, cloud)
    if aid is None:
        run.out.show("Application is created based on the specified manifest.", {"result": "done"})
        return
    _wait_until_running(run, aid, f"Application {aid} is being created based on the specified manifest", lambda: {"aid": aid})


@group.verb("download_manifest", APP)
def download_manifest(run: session.Session, app_name_or_id: str) -> None:
    """Print the manifest that would create an application again."""
    found = run.director.download_manifest(run.application(app_name_or_id).aid)
    run.out.show(json.dumps(found, indent=2, ensure_ascii=False), found)


def read_manifest(path: str) -> str:
    """The text of a manifest file, checked as far as the client can."""
    try:
        text = handles.read_text(path)
    except errors.InvalidArgument as error:
        raise errors.InvalidArgument("The specified path does not contain a file", hint=str(error)) from error
    try:
        parsed = json.loads(text)
    except ValueError as error:
        raise errors.InvalidArgument("The uploaded manifest is not valid json", hint=str(error)) from error
    services = parsed.get("Services", []) if isinstance(parsed, dict) else None
    if not isinstance(services, list):
        raise errors.InvalidArgument("The uploaded manifest is not valid json", hint="it must be an object with a list of Services")
    for service in services:
        if not isinstance(service, dict) or not service.get("Type"):
            raise errors.InvalidArgument('The "Type" field is mandatory')
    return text
