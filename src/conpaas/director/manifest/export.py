"""Writing the manifest of an application that exists: made again from it, the application has the same services, nodes and code.

Files travel in it as `data:` URLs. Nothing is changed by that, neither here nor at the manager.
"""

from __future__ import annotations

import collections
import json
from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa

from conpaas.core import data_urls, errors, node
from conpaas.core import services as service_types
from conpaas.core.operations import State
from conpaas.director import db, inventory, managers, models
from conpaas.director.manifest import schema

RPC_TIMEOUT: Final = 20.0
MAX_FILE: Final = 2 * 1024 * 1024
"""Bytes of one file in a manifest."""
_RUNS: Final = frozenset({State.PROLOGUE, State.RUNNING, State.ADAPTING})
_NO_SCRIPT: Final = "No startup script"


def export(
    database: db.Database, rpc: managers.Managers, aid: int, registry: service_types.Registry = service_types.registry
) -> dict[str, Any]:
    """The manifest of an application. Raises WrongState while its services cannot tell, TooLarge when it would not be accepted again."""
    with database.reader() as session:
        application = session.get(models.Application, aid)
        if application is None:
            raise errors.NotFound(f"The appid {aid} does not exist")
        name, started = application.name, application.manager_ip is not None
        rows = session.scalars(sa.select(models.Service).where(models.Service.application_id == aid).order_by(models.Service.sid)).all()
        machines = inventory.of_application(session, aid, states=("running",))
        services = [(row.sid, row.type, row.name) for row in rows]
    if services and not started:
        raise errors.WrongState(f"Application {aid} is being stopped.", hint="Its services can be exported while it runs only.")
    exported = [_service(rpc, aid, sid, kind, title, machines) for sid, kind, title in services]
    titles = {sid: title for sid, _, title in services}
    for made in exported:
        _name_peers(made, titles, registry)
    manifest = {"Application": name, "Services": exported}
    size = len(json.dumps(manifest))
    if size > schema.MAX_TEXT * 3 // 4:
        raise errors.TooLarge(
            f"The manifest would have {size} bytes, which is more than a Director accepts.",
            hint="Have less code enabled, and put URLs of archives into the manifest yourself.",
        )
    return manifest


def _service(rpc: managers.Managers, aid: int, sid: int, kind: str, title: str, machines: list[inventory.Machine]) -> dict[str, Any]:
    state = State(rpc.get(aid, "get_service_info", sid, timeout=RPC_TIMEOUT)["state"])
    own = [machine for machine in machines if machine.service_id == sid]
    made: dict[str, Any] = {"Type": kind, "ServiceName": title, "Start": int(state in _RUNS)}
    if own:
        made["Cloud"] = node.outer_cloud(own[0].cloud)
        made["StartupInstances"] = dict(collections.Counter(machine.node_role for machine in own))
    script = _script(rpc, aid, sid)
    if script:
        made["StartupScript"] = data_urls.encode("startup-script.sh", script.encode())
    fields: dict[str, Any] = rpc.get(aid, "export_manifest", sid, {"limit": MAX_FILE}, timeout=RPC_TIMEOUT)["fields"]
    return made | fields


def _name_peers(made: dict[str, Any], titles: Mapping[int, str], registry: service_types.Registry) -> None:
    """Other services are named in a manifest."""
    for field in registry.get(made["Type"]).manifest_fields if made["Type"] in registry.available() else ():
        for entry in made.get(field.name, []) if field.peer else []:
            title = titles.get(entry[field.peer], "")
            if [*titles.values()].count(title) != 1:
                raise errors.WrongState(
                    f"The manifest would name a service '{title}', and that is not the name of exactly one.",
                    hint="Rename one of them first.",
                )
            entry[field.peer] = title


def _script(rpc: managers.Managers, aid: int, sid: int) -> str:
    try:
        return str(rpc.get(aid, "get_startup_script", 0, {"sid": sid}, timeout=RPC_TIMEOUT))
    except errors.Unreachable:
        raise
    except errors.RemoteError as error:
        if str(error) != _NO_SCRIPT:
            raise
        return ""
