"""`status`, `history`, `logs` and `wait`: looking at applications and services, whatever their type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from conpaas.client import api, complete, grammar, handles, logfiles, replies, session, waiting
from conpaas.client.objects import service as service_object
from conpaas.core import errors

STATES = ("INIT", "PROLOGUE", "RUNNING", "ADAPTING", "EPILOGUE", "STOPPED", "ERROR")
COLUMNS = ("aid", "application", "sid", "service", "type", "status", "nodes", "address")


def _optional_service() -> Any:
    return grammar.argument("serv_name_or_id", required=False, shell_complete=complete.services(None))


def find(run: session.Session, app: str, srv: str | None) -> handles.Handle:
    """The service that APP SRV mean, or the application manager without SRV (or with 0)."""
    found = run.application(app)
    if srv is None or srv == str(api.APPLICATION_MANAGER):
        return handles.Handle(run, found)
    return handles.Handle(run, found, run.service(found, srv))


# -- status


def status(name: str) -> grammar.Verb:
    """`status`."""
    return grammar.Verb(name, callback=_status, help="Show all applications, services, nodes and the credit left.")


def _status(run: session.Session) -> None:
    rows = status_rows(run)
    credit = run.director.credit()
    if run.out.form == "json":
        run.out.json({"credit": credit, "applications": _nested(rows)})
        return
    if run.out.form == "table" and run.out.interactive and rows:
        _draw(run, rows)
    else:
        run.out.table(
            COLUMNS, [{key: "" if value is None else value for key, value in row.items()} for row in rows], "No existing applications."
        )
    if run.out.form == "table":
        run.out.show(f"Credit: {credit}")


def status_rows(run: session.Session) -> list[dict[str, Any]]:
    """One row per application, followed by one per service of it."""
    applications = sorted(run.director.applications(), key=lambda a: a.aid)
    services = run.director.services()
    states = service_object.application_states(run, [a.aid for a in applications if a.manager])
    resources = run.director.resources()
    rows = []
    for application in applications:
        nodes = sum(1 for r in resources if r.aid == application.aid)
        rows.append(
            dict.fromkeys(COLUMNS)
            | {"aid": application.aid, "application": application.name, "status": application.status, "nodes": nodes}
            | {"address": application.manager}
        )
        own = sorted((s for s in services if s.aid == application.aid), key=lambda s: s.sid)
        rows.extend(_service_row(run, application, s, states.get(application.aid, {}).get(s.sid, "N/A")) for s in own)
    return rows


def _service_row(run: session.Session, application: replies.Application, service: replies.Service, state: str) -> dict[str, Any]:
    addresses: list[str] = []
    if state in ("RUNNING", "ADAPTING"):
        handle = handles.Handle(run, application, service)
        try:
            nodes = {row["agent_id"]: str(row["ip"]) for row in service_object.node_rows(run, handle)}
            addresses = list(nodes.values())
        except errors.ConPaaSError as error:
            run.out.warning(f"The nodes of service {service.sid} of application {application.aid} are unknown: {error}")
    return {
        "aid": application.aid,
        "application": None,
        "sid": service.sid,
        "service": service.name,
        "type": service.type,
        "status": state,
        "nodes": len(addresses),
        "address": ", ".join(addresses),
    }


def _nested(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    nested: list[dict[str, Any]] = []
    for row in rows:
        if row["sid"] is None:
            head = {"aid": row["aid"], "name": row["application"], "status": row["status"], "nodes": row["nodes"]}
            nested.append({**head, "manager": row["address"], "services": []})
        else:
            addresses = row["address"].split(", ") if row["address"] else []
            service = {"sid": row["sid"], "name": row["service"], "type": row["type"], "status": row["status"]}
            nested[-1]["services"].append({**service, "nodes": row["nodes"], "addresses": addresses})
    return nested


def _draw(run: session.Session, rows: Sequence[dict[str, Any]]) -> None:
    import rich.box
    import rich.console
    import rich.table
    import rich.text

    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, justify="right" if column in ("aid", "sid", "nodes") else "left", overflow="fold")
    for row in rows:
        cells = ["" if row[column] is None else str(row[column]) for column in COLUMNS]
        shown = [rich.text.Text.from_ansi(run.out.state(cell)) if cell in STATES else rich.text.Text(cell) for cell in cells]
        table.add_row(*shown, style="bold" if row["sid"] is None else "")
    rich.console.Console(file=run.out.stdout, no_color=not run.out.colours).print(table)


# -- history


def history(name: str) -> grammar.Verb:
    """`history APP [SRV]`."""
    params = [grammar.application_argument(), _optional_service()]
    return grammar.Verb(name, params=params, callback=_history, help="Show what was done to an application or service.")


def _history(run: session.Session, app_name_or_id: str, serv_name_or_id: str | None) -> None:
    if serv_name_or_id is not None:
        service_object.print_history(run, find(run, app_name_or_id, serv_name_or_id))
        return
    done = list(reversed(run.director.application_history(run.application(app_name_or_id).aid)))
    lines = [f"{service_object.local_time(op.started)} {op.kind} {run.out.state(op.status)} {op.error}".rstrip() for op in done]
    data = [{"time": op.started, "kind": op.kind, "status": op.status, "reason": op.error} for op in done]
    run.out.show("\n".join(lines), data)


# -- wait


def wait(name: str) -> grammar.Verb:
    """`wait APP [SRV] --for STATE`."""
    import click

    state = grammar.option(
        "--for",
        "wanted",
        type=click.Choice(STATES, case_sensitive=False),
        default="RUNNING",
        show_default=True,
        help="The state to wait for.",
    )
    params = [grammar.application_argument(), _optional_service(), state]
    return grammar.Verb(name, params=params, callback=_wait, help="Wait until an application or service is in a state.")


def _wait(run: session.Session, app_name_or_id: str, serv_name_or_id: str | None, wanted: str) -> None:
    wanted = wanted.upper()
    found = find(run, app_name_or_id, serv_name_or_id)
    of_application = found.service_record is None

    def current() -> tuple[str, str]:
        if of_application:
            now = run.director.application(found.app_id)
            return now.status, now.reason
        info = found.manager.service_info(found.service_id)
        return replies.text(info.get("state")), replies.text(info.get("reason"))

    what = f"application {found.app_id}" if of_application else f"service {found.service_id} of application {found.app_id}"
    with waiting.progress(run.out, f"Waiting for {what} to be {wanted}...") as report:

        def probe() -> waiting.Outcome | None:
            state, reason = current()
            report(state)
            if state == wanted:
                return waiting.Outcome(True, state)
            return waiting.Outcome(False, state, reason) if state == "ERROR" else None

        outcome = waiting.poll(probe, f"{what} to be {wanted}", timeout=run.settings.timeout, clock=run.clock)
    if not outcome.ok:
        run.fail(f"{what[0].upper()}{what[1:]} is in state ERROR{': ' + outcome.reason if outcome.reason else '.'}")
    about = {"aid": found.app_id, "sid": found.service_id or None, "state": outcome.state}
    run.out.show(f"{what[0].upper()}{what[1:]} is {outcome.state}.", about)


# -- logs


def logs(name: str) -> grammar.Verb:
    """`logs APP [SRV]`."""
    params = [
        grammar.application_argument(),
        _optional_service(),
        grammar.option("--agent", metavar="AGENT_ID", help="The log of this node instead of the manager's."),
        grammar.option(
            "--file",
            "filename",
            metavar="NAME",
            help="A log of the nodes (see list_agent_logs) or part of its name, such as access; without --agent, of all nodes.",
        ),
        grammar.option("-f", "--follow", is_flag=True, help="Go on printing what is added, until Ctrl-C."),
        grammar.option("-n", "--tail", type=int, metavar="N", help="Only the last N lines."),
    ]
    return grammar.Verb(name, params=params, callback=_logs, help="Print the log of an application, a service or one of its nodes.")


def _logs(
    run: session.Session,
    app_name_or_id: str,
    serv_name_or_id: str | None,
    agent: str | None,
    filename: str | None,
    follow: bool,
    tail: int | None,
) -> None:
    if tail is not None and tail < 0:
        raise errors.InvalidArgument(f"Invalid number of lines {tail}.")
    found = find(run, app_name_or_id, serv_name_or_id)
    sources = _sources(found, agent, filename)
    if run.out.form == "json" and not follow:
        logs = [{"agent": one.agent, "filename": one.filename, "log": logfiles.tail(one, tail)} for one in sources]
        run.out.json({"log": logs[0]["log"]} if len(logs) == 1 else {"logs": logs})
    elif len(sources) == 1:
        logfiles.show(sources[0], run.out, tail, following=follow, clock=run.clock)
    else:
        labelled = [(f"{one.agent} {one.filename}", one) for one in sources]
        logfiles.show_several(labelled, run.out, tail, following=follow, clock=run.clock)


def _sources(found: handles.Handle, agent: str | None, filename: str | None) -> list[logfiles.Source]:
    """The log of the manager, or of a node; with `filename`, those that are called so or, if none is, have that in their names."""
    if filename is None:
        return [logfiles.Source(found.manager, found.service_id, agent)]
    ids = [agent] if agent else list(dict.fromkeys(node_id for _, node_id in found.manager.node_ids(found.service_id)))
    names = [(node_id, log.filename) for node_id in ids for log in found.manager.node(found.service_id, node_id).logs]
    fitting = [one for one in names if one[1] == filename] or [one for one in names if filename in one[1]]
    if not fitting and agent:
        fitting = [(agent, filename)]  # the manager tells which there are
    if not fitting:
        raise errors.NotFound(f"No node of '{found.name}' has a log '{filename}'.", hint="list_agent_logs tells which a node has")
    return [logfiles.Source(found.manager, found.service_id, node_id, name) for node_id, name in fitting]
