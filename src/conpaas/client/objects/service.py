"""The verbs that services of every type have: `cps-service`, and the common part of every typed program."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from conpaas.client import grammar, handles, logfiles, moves, replies, session
from conpaas.client.objects import application as application_object
from conpaas.core import errors

COLUMNS = ("aid", "sid", "type", "name", "status")
NODE_COLUMNS = ("aid", "sid", "role", "ip", "agent_id", "cloud")
DEFAULT_ROLES = {"count": 1}


def find(run: session.Session, app: str, srv: str, service_type: str | None) -> handles.Handle:
    """The service that APP SRV mean."""
    found = run.application(app)
    return handles.Handle(run, found, run.service(found, srv, service_type))


def add_common_verbs(group: grammar.Group, service_type: str | None, roles: Mapping[str, int]) -> None:
    """Add the verbs of every service; `service_type` None means services of any type."""
    _add_listing(group, service_type)
    _add_life_cycle(group, service_type)
    _add_inspection(group, service_type)
    _add_logs(group, service_type)
    _add_nodes(group, service_type, dict(roles))
    _add_migration(group, service_type)


def _add_listing(group: grammar.Group, service_type: str | None) -> None:
    app, srv = grammar.application_argument(), grammar.service_argument(service_type)

    @group.verb("list", grammar.option("-a", "--application", "app_name_or_id", metavar="ID_OR_NAME", help="Only of this application."))
    def list_services(run: session.Session, app_name_or_id: str | None) -> None:
        """List services and their states."""
        aid = run.application(app_name_or_id).aid if app_name_or_id else None
        services = [s for s in run.director.services() if aid in (None, s.aid) and service_type in (None, s.type)]
        run.out.table(COLUMNS, service_rows(run, services), "No existing services.")

    @group.verb("rename", app, srv, grammar.argument("new_name"))
    def rename(run: session.Session, app_name_or_id: str, serv_name_or_id: str, new_name: str) -> None:
        """Give a service another name."""
        found = find(run, app_name_or_id, serv_name_or_id, service_type)
        run.director.rename_service(found.app_id, found.service_id, new_name)
        text = f"Service {found.service_id} of application {found.app_id} has been renamed to '{new_name}'."
        run.out.show(text, {"aid": found.app_id, "sid": found.service_id, "name": new_name})

    @group.verb("remove", app, srv)
    def remove(run: session.Session, app_name_or_id: str, serv_name_or_id: str) -> None:
        """Stop a service and remove it."""
        found = find(run, app_name_or_id, serv_name_or_id, service_type)
        run.confirm(f"Remove service '{found.name}' of application '{found.app_name}' with its data?")
        run.director.remove_service(found.app_id, found.service_id)
        text = f"Service {found.service_id} of application {found.app_id} has been successfully removed."
        run.out.show(text, {"aid": found.app_id, "sid": found.service_id, "result": "done"})


def service_rows(run: session.Session, services: list[replies.Service]) -> list[dict[str, Any]]:
    """Table rows with the state that each application's manager tells, N/A if it does not."""
    states = application_states(run, sorted({s.aid for s in services}))
    return [
        {"aid": s.aid, "sid": s.sid, "type": s.type, "name": s.name, "status": states.get(s.aid, {}).get(s.sid, "N/A")}
        for s in sorted(services, key=lambda s: (s.aid, s.sid))
    ]


def application_states(run: session.Session, aids: list[int]) -> dict[int, dict[int, str]]:
    """The states of the services by application; an application whose manager does not answer is left out."""
    import concurrent.futures

    records = {a.aid: a for a in run.director.applications()} if aids else {}
    managers = {aid: run.manager(records[aid]) for aid in aids if aid in records and records[aid].manager}
    states: dict[int, dict[int, str]] = {}
    with concurrent.futures.ThreadPoolExecutor(max_workers=8) as pool:
        asked = {aid: pool.submit(manager.states) for aid, manager in managers.items()}
        for aid, answer in asked.items():
            try:
                states[aid] = answer.result()
            except errors.ConPaaSError as error:
                run.out.warning(f"The states of application {aid} are unknown: {str(error).splitlines()[0]}")
    return states


def add_service(run: session.Session, service_type: str, app: str) -> None:
    """Add a service of a type to an application."""
    made = run.director.add_service(service_type, run.application(app).aid)
    run.out.show(
        f"Service {service_type} successfully added to application {made.aid} with id {made.sid}.",
        {"aid": made.aid, "sid": made.sid, "type": made.type or service_type, "name": made.name},
        name=str(made.sid),
    )


def _add_life_cycle(group: grammar.Group, service_type: str | None) -> None:
    app, srv = grammar.application_argument(), grammar.service_argument(service_type)

    @group.verb("start", app, srv, grammar.cloud_option())
    def start(run: session.Session, app_name_or_id: str, serv_name_or_id: str, cloud: str) -> None:
        """Start a service and wait until it runs."""
        found = find(run, app_name_or_id, serv_name_or_id, service_type)
        run.cloud(cloud)
        sentence = f"Service {found.service_id} of application {found.app_id} is starting"
        found.change(sentence, lambda: found.manager.start_service(found.service_id, cloud))

    @group.verb("stop", app, srv)
    def stop(run: session.Session, app_name_or_id: str, serv_name_or_id: str) -> None:
        """Stop a service and wait until its nodes are gone."""
        found = find(run, app_name_or_id, serv_name_or_id, service_type)
        run.confirm(f"Stop service '{found.name}' of application '{found.app_name}'?")
        sentence = f"Service {found.service_id} of application {found.app_id} is stopping"
        found.change(sentence, lambda: found.manager.stop_service(found.service_id), until=("STOPPED",))

    @group.verb("recover", app, srv)
    def recover(run: session.Session, app_name_or_id: str, serv_name_or_id: str) -> None:
        """Bring a service that is in ERROR back to its last stable state."""
        found = find(run, app_name_or_id, serv_name_or_id, service_type)
        application_object.recover_service(run, found.record, found.service_id)


def _add_inspection(group: grammar.Group, service_type: str | None) -> None:
    app, srv = grammar.application_argument(), grammar.service_argument(service_type)

    @group.verb("get_state", app, srv)
    def get_state(run: session.Session, app_name_or_id: str, serv_name_or_id: str) -> None:
        """Print a service's state, and what else its manager tells about it."""
        found = find(run, app_name_or_id, serv_name_or_id, service_type)
        run.out.pairs(found.manager.service_info(found.service_id))

    @group.verb("get_script", app, srv)
    def get_script(run: session.Session, app_name_or_id: str, serv_name_or_id: str) -> None:
        """Print a service's startup script."""
        found = find(run, app_name_or_id, serv_name_or_id, service_type)
        script = found.manager.startup_script(found.service_id)
        run.out.show(script, {"script": script})

    @group.verb("set_script", app, srv, grammar.argument("filename", type=click.Path(allow_dash=True)))
    def set_script(run: session.Session, app_name_or_id: str, serv_name_or_id: str, filename: str) -> None:
        """Upload a script that every node created from now on runs when it starts (- is standard input)."""
        readable_file(filename)
        found = find(run, app_name_or_id, serv_name_or_id, service_type)
        found.application.upload("upload_startup_script", {"script": filename}, sid=found.service_id)
        run.out.show("Startup script uploaded successfully.", {"aid": found.app_id, "sid": found.service_id, "result": "done"})

    @group.verb("get_history", app, srv)
    def get_history(run: session.Session, app_name_or_id: str, serv_name_or_id: str) -> None:
        """Print a service's state changes."""
        print_history(run, find(run, app_name_or_id, serv_name_or_id, service_type))


def print_history(run: session.Session, found: handles.Handle) -> None:
    """Print `YYYY-MM-DD HH:MM:SS STATE REASON` per state change, in local time."""
    changes = found.manager.history(found.service_id)
    lines = [f"{local_time(c.time)} {run.out.state(c.state)} {c.reason}".rstrip() for c in changes]
    run.out.show("\n".join(lines), [{"time": c.time, "state": c.state, "reason": c.reason} for c in changes])


def local_time(seconds: float) -> str:
    """`YYYY-MM-DD HH:MM:SS` in local time."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return "????-??-?? ??:??:??"


def readable_file(path: str) -> None:
    """Refuse a path that cannot be read before anything is sent."""
    if path != handles.STANDARD_STREAM:
        try:
            with Path(path).open("rb"):
                return
        except OSError as error:
            raise errors.InvalidArgument(f"Cannot read '{path}': {error.strerror or error}") from error


def _add_logs(group: grammar.Group, service_type: str | None) -> None:
    app, srv = grammar.application_argument(), grammar.service_argument(service_type)
    agent = grammar.argument("agent_id")

    @group.verb("get_log", app, srv)
    def get_log(run: session.Session, app_name_or_id: str, serv_name_or_id: str) -> None:
        """Print the log of a service's manager."""
        found = find(run, app_name_or_id, serv_name_or_id, service_type)
        log = logfiles.tail(logfiles.Source(found.manager, found.service_id))
        run.out.show(log, {"log": log})

    @group.verb("list_agent_logs", app, srv, agent)
    def list_agent_logs(run: session.Session, app_name_or_id: str, serv_name_or_id: str, agent_id: str) -> None:
        """List the logs that an agent offers."""
        found = find(run, app_name_or_id, serv_name_or_id, service_type)
        node = found.manager.node(found.service_id, agent_id)
        rows = [{"filename": log.filename, "description": log.description} for log in node.logs]
        run.out.table(("filename", "description"), rows, "No existing logs.")

    @group.verb("get_agent_log", app, srv, agent, grammar.option("-f", "--filename", metavar="NAME", help="One of list_agent_logs."))
    def get_agent_log(run: session.Session, app_name_or_id: str, serv_name_or_id: str, agent_id: str, filename: str | None) -> None:
        """Print a log of an agent, its own one by default."""
        found = find(run, app_name_or_id, serv_name_or_id, service_type)
        log = logfiles.tail(logfiles.Source(found.manager, found.service_id, agent_id, filename))
        run.out.show(log, {"log": log})


def _add_nodes(group: grammar.Group, service_type: str | None, roles: dict[str, int]) -> None:
    app, srv = grammar.application_argument(), grammar.service_argument(service_type)
    options = [
        grammar.option(f"--{role}", f"role_{role}", type=int, default=0, metavar="COUNT", help="Number of nodes.")
        if role == "count"
        else grammar.option(f"--{role}", f"role_{role}", type=int, default=0, metavar="COUNT", help=f"Number of {role} nodes.")
        for role in roles
    ]

    @group.verb("add_nodes", app, srv, *options, grammar.cloud_option())
    def add_nodes(run: session.Session, app_name_or_id: str, serv_name_or_id: str, cloud: str, **counts: int) -> None:
        """Add nodes to a running service and wait until they work."""
        nodes = _wanted_nodes(counts, roles)
        found = find(run, app_name_or_id, serv_name_or_id, service_type)
        run.cloud(cloud)
        sentence = f"Starting {sum(nodes.values())} new nodes for service {found.service_id} of application {found.app_id}"
        found.change(sentence, lambda: found.manager.add_nodes(found.service_id, nodes, cloud))

    ids = grammar.option("--node", "node_ids", multiple=True, metavar="AGENT_ID", help="Remove exactly this node (repeatable).")

    @group.verb("remove_nodes", app, srv, *options, ids)
    def remove_nodes(run: session.Session, app_name_or_id: str, serv_name_or_id: str, node_ids: tuple[str, ...], **counts: int) -> None:
        """Remove nodes from a running service and wait until they are gone."""
        found = find(run, app_name_or_id, serv_name_or_id, service_type)
        only_ids = bool(node_ids) and not any(counts.values())
        nodes = _roles_of(found, node_ids) if only_ids else _wanted_nodes(counts, roles)
        total = sum(nodes.values())
        run.confirm(f"Remove {total} nodes of service '{found.name}' of application '{found.app_name}'?")
        sentence = f"Removing {total} nodes for service {found.service_id} of application {found.app_id}"
        found.change(sentence, lambda: found.manager.remove_nodes(found.service_id, nodes, list(node_ids)), until=("RUNNING", "STOPPED"))

    @group.verb("list_nodes", app, srv)
    def list_nodes(run: session.Session, app_name_or_id: str, serv_name_or_id: str) -> None:
        """List a service's nodes."""
        found = find(run, app_name_or_id, serv_name_or_id, service_type)
        run.out.table(NODE_COLUMNS, node_rows(run, found), "No existing nodes.")


def _add_migration(group: grammar.Group, service_type: str | None) -> None:
    app, srv = grammar.application_argument(), grammar.service_argument(service_type)
    plan = grammar.argument("plan", metavar=moves.METAVAR, description="Node VMID moves from cloud FROM to cloud TO.")
    delay = grammar.option(
        "-d", "--delay", type=int, default=0, metavar="SECONDS", help="Let the former nodes serve so much longer, a day at most."
    )

    @group.verb("migrate_nodes", app, srv, plan, delay)
    def migrate_nodes(run: session.Session, app_name_or_id: str, serv_name_or_id: str, plan: str, delay: int) -> None:
        """Move nodes of a running service to other clouds and wait until that is done.

        New nodes take over first, the former ones leave then; with a delay they leave that much later, and nobody waits for it. In place of
        a VM's id, that of the node may be given as list_nodes shows it.
        """
        wanted = moves.plan_in(plan)
        found = find(run, app_name_or_id, serv_name_or_id, service_type)
        for cloud in {move["to_cloud"] for move in wanted}:
            run.cloud(cloud)
        run.confirm(f"Move {len(wanted)} nodes of service '{found.name}' of application '{found.app_name}'?")
        sentence = f"Migrating nodes {moves.in_words(wanted)} for service {found.service_id} of application {found.app_id}"
        found.change(sentence, lambda: found.post("migrate_nodes", migration_plan=wanted, delay=delay))
        if delay:
            run.out.note(f"The former nodes serve for {delay} seconds more and leave then.")


def _wanted_nodes(given: Mapping[str, int], roles: Mapping[str, int]) -> dict[str, int]:
    """Role → number as given, or the default set if all are 0."""
    counts = {name.removeprefix("role_"): number for name, number in given.items()}
    for number in counts.values():
        if number < 0:
            raise errors.InvalidArgument(f"Invalid number of nodes {number}.")
    return {role: counts.get(role, 0) for role in roles} if any(counts.values()) else dict(roles)


def _roles_of(found: handles.Handle, node_ids: tuple[str, ...]) -> dict[str, int]:
    """How many of the named nodes there are in each role."""
    roles: dict[str, int] = {}
    unknown = set(node_ids)
    for role, node_id in found.manager.node_ids(found.service_id):
        if node_id in unknown:
            unknown.discard(node_id)
            roles[role] = roles.get(role, 0) + 1
    if unknown:
        raise errors.NotFound(f"Unknown node '{sorted(unknown)[0]}' in service {found.service_id} of application {found.app_id}")
    return roles


def node_rows(run: session.Session, found: handles.Handle) -> list[dict[str, Any]]:
    """Table rows of a service's nodes, sorted by address; a node that cannot be queried has N/A in them."""
    rows = []
    for role, node_id in found.manager.node_ids(found.service_id):
        row: dict[str, Any] = {"aid": found.app_id, "sid": found.service_id, "role": role, "agent_id": node_id}
        try:
            node = found.manager.node(found.service_id, node_id, role)
            row |= {"ip": node.ip, "cloud": node.cloud}
        except errors.ConPaaSError:
            run.out.note("WARNING: got node identifier from list_nodes but failed on get_node_info.")
            row |= {"ip": "N/A", "cloud": "N/A"}
        rows.append(row)
    return sorted(rows, key=lambda row: _address_key(str(row["ip"])))


def _address_key(address: str) -> tuple[int, list[int], str]:
    """Sort addresses by their numbers, everything else after them."""
    parts = address.split(".")
    return (0, [int(part) for part in parts], "") if all(part.isdigit() for part in parts) else (1, [], address)
