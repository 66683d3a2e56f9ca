"""The commands of `cpsclient` on a service: those of every type, then those of each type."""

from __future__ import annotations

import base64
import binascii
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from conpaas.client import asking, codeverbs, handles, logfiles, moves, replies
from conpaas.client.classic import line
from conpaas.core import errors

Service = handles.Handle


@dataclasses.dataclass(frozen=True)
class Verb:
    """One command on a service. `usage` names its arguments after the two ids; those in brackets are optional."""

    run: Callable[[Service, line.Arguments], None]
    usage: str
    about: str

    @property
    def least(self) -> int:
        return sum(1 for word in self.usage.split() if not word.startswith("["))

    @property
    def most(self) -> int:
        return len(self.usage.split())


def _say(service: Service, text: str) -> None:
    service.run.out.show(text)


def _state(service: Service) -> str:
    return replies.text(service.manager.service_info(service.service_id).get("state"))


# -- every type


def _start(service: Service, args: line.Arguments) -> None:
    service.manager.start_service(service.service_id, args[0] if args else "default")
    _say(service, "Your service is starting up.")


def _stop(service: Service, _: line.Arguments) -> None:
    _say(service, "Stopping service... ")
    state = _state(service)
    if state != "RUNNING":
        raise errors.WrongState(f"Service is in '{state}' state. We can not stop it.")
    _say(service, f"Service is in '{state}' state. Shutting it down.")
    service.manager.stop_service(service.service_id)


def _remove(service: Service, _: line.Arguments) -> None:
    state = _state(service)
    if state not in ("STOPPED", "INIT"):
        raise errors.WrongState(f"Service is in '{state}' state. We can not remove it.")
    with line.doing(service.run, "Removing service... "):
        service.run.director.remove_service(service.app_id, service.service_id)


def _rename(service: Service, args: line.Arguments) -> None:
    with line.doing(service.run, "Renaming service... "):
        service.run.director.rename_service(service.app_id, service.service_id, args[0])


def _info(service: Service, _: line.Arguments) -> None:
    record = {"aid": service.app_id, "sid": service.service_id, "type": service.type, "name": service.name}
    info = {key: value for key, value in service.manager.service_info(service.service_id).items() if key not in record}
    service.pairs(record | info)
    for node in _nodes(service):
        _say(service, f"{node.role} {node.ip}")


def _nodes(service: Service) -> list[replies.Node]:
    return [service.manager.node(service.service_id, node_id, role) for role, node_id in service.manager.node_ids(service.service_id)]


def _logs(service: Service, _: line.Arguments) -> None:
    _say(service, logfiles.tail(logfiles.Source(service.manager, service.service_id)))


def _list_nodes(service: Service, _: line.Arguments) -> None:
    for node in _nodes(service):
        _say(service, f"{node.role}: node {node.vmid or node.id} from cloud {node.cloud} with IP address {node.ip}")


def _startup_script(service: Service, args: line.Arguments) -> None:
    service.application.upload("upload_startup_script", {"script": _file(args[0])}, sid=service.service_id)
    _say(service, "Startup script uploaded correctly.")


def _file(path: str) -> str:
    if not Path(path).is_file():
        raise errors.InvalidArgument(f"Cannot read '{path}'")
    return path


COMMON = {
    "start": Verb(_start, "[cloud]", "start the service"),
    "stop": Verb(_stop, "", "stop the service"),
    "remove": Verb(_remove, "", "remove the service"),
    "rename": Verb(_rename, "newname", "rename the service"),
    "info": Verb(_info, "", "get service details"),
    "logs": Verb(_logs, "", "get the service manager's log"),
    "list_nodes": Verb(_list_nodes, "", "list the service's nodes"),
    "startup_script": Verb(_startup_script, "filename", "upload a startup script"),
}


# -- nodes


def _add(*roles: str) -> Verb:
    """add_nodes with one count for each role, then the cloud."""

    def run(service: Service, args: line.Arguments) -> None:
        counts = {role: line.number(text) for role, text in zip(roles, args, strict=False)}
        service.manager.add_nodes(service.service_id, counts, args[len(roles)] if len(args) > len(roles) else "default")
        _say(service, f"Starting {sum(counts.values())} new nodes.")

    return Verb(run, f"{' '.join(_counts(roles))} [cloud]", "add nodes")


def _take(*roles: str) -> Verb:
    """remove_nodes with one count for each role."""

    def run(service: Service, args: line.Arguments) -> None:
        counts = {role: line.number(text) for role, text in zip(roles, args, strict=False)}
        service.manager.remove_nodes(service.service_id, counts)
        _say(service, f"Removing {sum(counts.values())} nodes.")

    return Verb(run, " ".join(_counts(roles)), "remove nodes")


def _migrate(service: Service, args: line.Arguments) -> None:
    plan, delay = moves.plan_in(args[0]), line.number(args[1]) if len(args) > 1 else 0
    service.post("migrate_nodes", migration_plan=plan, delay=delay)
    later = f" with a delay of {delay} seconds" if delay else ""
    text = f"Migration of nodes {args[0]} has been successfully started"
    _say(service, f"{text} for {service.type} service {service.service_id}{later}.")


MIGRATE = {"migrate_nodes": Verb(_migrate, "c1:vmid:c2[,c1:vmid:c2]* [delay]", "move nodes to other clouds")}


def _counts(roles: Sequence[str]) -> list[str]:
    return ["count"] if roles == ("count",) else [f"{role}s" for role in roles]


# -- code


def _list_keys(service: Service, _: line.Arguments) -> None:
    keys = replies.sequence(replies.mapping(service.get("list_authorized_keys")).get("authorizedKeys") or [])
    _say(service, "\n".join(map(str, keys)))


def _upload_key(service: Service, args: line.Arguments) -> None:
    _say(service, replies.text(replies.mapping(service.upload("upload_authorized_key", {"key": _file(args[0])})).get("outcome")))


def _list_uploads(service: Service, _: line.Arguments) -> None:
    for version in codeverbs.code_versions(service):
        _say(service, f'{"* " if version.current else "  "}{version.id}: {version.filename} "{version.description}"')


def _upload_code(service: Service, args: line.Arguments) -> None:
    reply = replies.mapping(service.upload("upload_code_version", {"code": _file(args[0])}))
    _say(service, f"Code version {reply.get('codeVersionId')} uploaded")


def _download_code(service: Service, args: line.Arguments) -> None:
    found = [version for version in codeverbs.code_versions(service) if version.id == args[0]]
    if not found:
        raise errors.NotFound(f"Cannot download code: invalid version {args[0]}")
    name = handles.safe_name(found[0].filename, found[0].id)
    service.download("download_code_version", name, codeVersionId=args[0])
    _say(service, f"{name} written")


def _delete_code(service: Service, args: line.Arguments) -> None:
    service.post("delete_code_version", codeVersionId=args[0])
    _say(service, f"{args[0]} deleted")


def _enable_code(service: Service, args: line.Arguments) -> None:
    method = f"update_{service.type}_configuration" if service.type in ("php", "java") else "enable_code"
    service.post(method, codeVersionId=args[0])
    _say(service, f"{args[0]} enabled")


CODE = {
    "list_keys": Verb(_list_keys, "", "list the SSH keys that may push code"),
    "upload_key": Verb(_upload_key, "filename", "upload an SSH key"),
    "list_uploads": Verb(_list_uploads, "", "list the code versions"),
    "upload_code": Verb(_upload_code, "filename", "upload a code version"),
    "download_code": Verb(_download_code, "version", "download a code version"),
    "delete_code": Verb(_delete_code, "version", "delete a code version"),
    "enable_code": Verb(_enable_code, "version", "activate a code version"),
}


def _toggle_debug(service: Service, _: line.Arguments) -> None:
    settings = replies.mapping(replies.mapping(service.get("get_configuration")).get("phpconf") or {})
    mode = "Off" if settings.get("display_errors") == "On" else "On"
    service.post("update_php_configuration", phpconf={"display_errors": mode})
    _say(service, f"Debug mode is now {mode}")


# -- generic, helloworld


def _script(command: str) -> Verb:
    def run(service: Service, args: line.Arguments) -> None:
        service.post("execute_script", command=command, parameters=args[0] if args else "")
        _say(service, f"Service started executing '{command}.sh' on all the agents...")

    return Verb(run, "[parameters]", f"execute {command}.sh on all the agents")


def _script_status(service: Service, _: line.Arguments) -> None:
    agents = replies.mapping(replies.mapping(service.get("get_script_status")).get("agents") or {})
    for agent, scripts in sorted(agents.items()):
        _say(service, f"\nAgent {agent}:")
        for script, status in replies.mapping(scripts).items():
            _say(service, f"  {script}\t{status}")
    if not agents:
        _say(service, "No generic agents are running")


def _agent_log(service: Service, args: line.Arguments) -> None:
    filename = args[1] if len(args) > 1 else None
    _say(service, logfiles.tail(logfiles.Source(service.manager, service.service_id, args[0], filename)))


def _list_volumes(service: Service, _: line.Arguments) -> None:
    volumes = service.manager.volumes(service.service_id)
    for volume in volumes:
        _say(service, f"{volume.name}: size {volume.size} MB, {f'attached to {volume.agent}' if volume.agent else 'spare'}")
    if not volumes:
        _say(service, "No volumes defined")


def _create_volume(service: Service, args: line.Arguments) -> None:
    application = service.application
    sentence = f"Creating volume {args[0]}"
    application.change(
        sentence, lambda: application.post("create_volume", volumeName=args[0], volumeSize=line.number(args[1]), agentId=args[2])
    )


def _delete_volume(service: Service, args: line.Arguments) -> None:
    application = service.application
    application.change(f"Deleting volume {args[0]}", lambda: application.post("delete_volume", volumeName=args[0]))


def _helloworld(service: Service, _: line.Arguments) -> None:
    reply = service.get("get_helloworld")
    _say(service, replies.text(reply.get("helloworld") if isinstance(reply, dict) else reply))


# -- mysql


def _set_password(service: Service, args: line.Arguments) -> None:
    password = args[0] if args else asking.secret("New password: ", confirm=True)
    service.post("set_password", user="mysqldb", password=password)
    _say(service, "MySQL password updated successfully.")


def _dump(service: Service, _: line.Arguments) -> None:
    service.download("sqldump", handles.STANDARD_STREAM)


def _load_dump(service: Service, args: line.Arguments) -> None:
    service.upload("load_dump", {"mysqldump_file": _file(args[0])})
    _say(service, "MySQL dump loaded successfully.")


# -- xtreemfs


def _xfs_volume(method: str, sentence: str) -> Callable[[Service, line.Arguments], None]:
    def run(service: Service, args: line.Arguments) -> None:
        service.post(method, volumeName=args[0])
        _say(service, sentence.format(args[0]))

    return run


def _xfs_volumes(service: Service, _: line.Arguments) -> None:
    _say(service, replies.text(replies.mapping(service.get("listVolumes")).get("volumes")))


def _certificate(method: str, names: Sequence[str]) -> Callable[[Service, line.Arguments], None]:
    """Get a PKCS#12 certificate; the last argument is the file to write."""

    def run(service: Service, args: line.Arguments) -> None:
        params: dict[str, object] = dict(zip(names, args, strict=False))
        params["adminflag"] = str(params["adminflag"]).lower() in ("yes", "y", "true", "t", "1")
        reply = replies.mapping(service.post(method, **params))
        try:
            content = base64.b64decode(replies.text(reply.get("cert")), validate=True)
            Path(args[-1]).write_bytes(content)
        except binascii.Error as error:
            raise replies.malformed("a certificate", reply) from error
        except OSError as error:
            raise errors.ConPaaSError(f"Cannot write '{args[-1]}': {error.strerror}") from error
        _say(service, f"{args[-1]} written")

    return run


def _policies(service: Service, args: line.Arguments) -> None:
    _say(service, replies.text(replies.mapping(service.get(f"list_{_policy(args[0])}_policies")).get("policies")))


def _set_policy(service: Service, args: line.Arguments) -> None:
    kind = _policy(args[0])
    factor = {"factor": args[3]} if len(args) > 3 else {}
    reply = replies.mapping(service.post(f"set_{kind}_policy", volumeName=args[1], policy=args[2], **factor))
    _say(service, replies.text(reply.get("stdout")))


def _policy(kind: str) -> str:
    if kind not in ("osd_sel", "replica_sel", "replication", "striping"):
        raise errors.InvalidArgument(f"Unknown policy type '{kind}'")
    return kind


def _osd_size(service: Service, args: line.Arguments) -> None:
    service.post("set_osd_size", size=line.number(args[0]))
    _say(service, f"OSD volume size is now {args[0]} MBs.")


_WEB = {"add_nodes": _add("backend", "web", "proxy"), "remove_nodes": _take("backend", "web", "proxy"), **MIGRATE, **CODE}
_COUNTED = {"add_nodes": _add("count"), "remove_nodes": _take("count"), **MIGRATE}
BY_TYPE: dict[str, dict[str, Verb]] = {
    "php": {**_WEB, "toggle_debug": Verb(_toggle_debug, "", "switch the display of PHP errors on or off")},
    "java": _WEB,
    "mysql": {
        "add_nodes": _add("mysql"),
        "remove_nodes": _take("mysql"),
        "add_glb_nodes": _add("glb"),
        "remove_glb_nodes": _take("glb"),
        **MIGRATE,
        "set_password": Verb(_set_password, "[password]", "set the database password"),
        "sqldump": Verb(_dump, "", "dump all databases"),
        "load_dump": Verb(_load_dump, "filename", "load a dump"),
    },
    "xtreemfs": {
        "add_nodes": _add("osd"),
        "remove_nodes": _take("osd"),
        **MIGRATE,
        "list_volumes": Verb(_xfs_volumes, "", "list volumes"),
        "create_volume": Verb(_xfs_volume("createVolume", "Volume {} created."), "volume", "create a volume"),
        "delete_volume": Verb(_xfs_volume("deleteVolume", "Volume {} deleted."), "volume", "delete a volume"),
        "get_client_cert": Verb(
            _certificate("get_client_cert", ("passphrase", "adminflag")), "passphrase admin filename", "get a client certificate"
        ),
        "get_user_cert": Verb(
            _certificate("get_user_cert", ("user", "group", "passphrase", "adminflag")),
            "user group passphrase admin filename",
            "get a user certificate",
        ),
        "list_policies": Verb(_policies, "type", "list policies"),
        "set_policy": Verb(_set_policy, "type volume policy [factor]", "set a volume's policy"),
        "set_osd_size": Verb(_osd_size, "mbytes", "set the size of new OSD volumes"),
    },
    "generic": {
        **_COUNTED,
        **CODE,
        **{command: _script(command) for command in ("run", "interrupt", "cleanup")},
        "get_script_status": Verb(_script_status, "", "show the status of the scripts"),
        "get_agent_log": Verb(_agent_log, "agentid [filename]", "get an agent's log"),
        "list_volumes": Verb(_list_volumes, "", "list volumes"),
        "create_volume": Verb(_create_volume, "volume size_mb agentid", "create a volume"),
        "delete_volume": Verb(_delete_volume, "volume", "delete a volume"),
    },
    "helloworld": {**_COUNTED, "get_helloworld": Verb(_helloworld, "", "get the greeting of every node")},
}


def common_usage() -> list[tuple[str, str, str]]:
    """(command, arguments, description) of the commands of every type."""
    return [(name, verb.usage, verb.about) for name, verb in COMMON.items()]


def usage_of(service_type: str) -> list[tuple[str, str, str]]:
    """(command, arguments, description) of the commands of one type."""
    return [(name, verb.usage, verb.about) for name, verb in BY_TYPE.get(service_type, _COUNTED).items()]


def is_known(name: str) -> bool:
    """True if some type of service has this command."""
    return name in ("usage", "help") or name in COMMON or any(name in verbs for verbs in BY_TYPE.values())


def run(service: Service, name: str, args: line.Arguments) -> None:
    """Run one command on a service."""
    verb = BY_TYPE.get(service.type, _COUNTED).get(name) or COMMON.get(name)
    if verb is None:
        raise errors.NotFound(f"A {service.type} service has no command '{name}'")
    if not verb.least <= len(args) <= verb.most:
        raise line.Usage(f"Usage: {line.PROGRAM} {name} appid serviceid {verb.usage}".rstrip())
    verb.run(service, args)
