"""`cps-<type>`: the common verbs for services of one type, and those that the type's own plug-in adds."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import click

from conpaas.client import complete, grammar, handles, plugins, session, verbs
from conpaas.client.objects import service as service_object
from conpaas.core import errors

PLUGINS = "conpaas.cli"
_TYPES: dict[str, Any] = {
    "text": click.STRING,
    "integer": click.INT,
    "file": click.Path(allow_dash=True),
    "output": click.Path(allow_dash=True, writable=True),
}


def load(service_type: str) -> grammar.Group:
    """The command of one service type."""
    found = plugin(service_type)
    group = grammar.Group(service_type, help=f"Services of type {service_type}.")

    @group.verb("add", grammar.application_argument())
    def add(run: session.Session, app_name_or_id: str) -> None:
        """Add a service of this type to a running application."""
        service_object.add_service(run, service_type, app_name_or_id)

    service_object.add_common_verbs(group, service_type, found.roles)
    add_plugin_verbs(group, found, service_type)
    return group


def service(name: str) -> grammar.Group:
    """`cps-service`: services of any type."""
    group = grammar.Group(name, help="Add, start, scale and inspect services of any type.")

    @group.verb("get_types")
    def get_types(run: session.Session) -> None:
        """List the service types that can be added."""
        types = run.director.service_types()
        run.out.show("\n".join(types), types)

    @group.verb("add", grammar.argument("service_type", shell_complete=complete.types), grammar.application_argument())
    def add(run: session.Session, service_type: str, app_name_or_id: str) -> None:
        """Add a service to a running application."""
        service_object.add_service(run, service_type, app_name_or_id)

    service_object.add_common_verbs(group, None, service_object.DEFAULT_ROLES)
    volumes = plugins.VerbGroup(name)
    volumes.volume_verbs()
    add_plugin_verbs(group, volumes, None)
    return group


def plugin(service_type: str) -> plugins.VerbGroup:
    """What the type's plug-in fills in; a type without plug-in has only the common verbs."""
    found = plugins.VerbGroup(service_type)
    for point in importlib.metadata.entry_points(group=PLUGINS, name=service_type):
        try:
            point.load()(found)
        except (ImportError, AttributeError) as error:
            raise errors.ConfigurationError(f"The verbs of service type '{service_type}' cannot be loaded: {error}") from error
    return found


def add_plugin_verbs(group: grammar.Group, found: plugins.VerbGroup, service_type: str | None) -> None:
    """Turn the verbs of a plug-in into commands."""
    for verb in found.verbs.values():
        group.add_command(_command(verb, service_type))


def _command(verb: verbs.Verb, service_type: str | None) -> grammar.Verb:
    names: list[click.Parameter] = [grammar.application_argument()]
    if verb.target == "service":
        names.append(grammar.service_argument(service_type))
    params = names + [_parameter(p) for p in verb.parameters]
    files = [p.keyword for p in verb.parameters if p.kind == "file"]

    def invoke(run: session.Session, /, app_name_or_id: str, serv_name_or_id: str | None = None, **values: Any) -> None:
        for keyword in files:
            if values.get(keyword) is not None:
                service_object.readable_file(values[keyword])
        if serv_name_or_id is None:
            handle = handles.Handle(run, run.application(app_name_or_id))
        else:
            handle = service_object.find(run, app_name_or_id, serv_name_or_id, service_type)
        if verb.destructive:
            run.confirm(verb.destructive)
        verb.function(handle, **values)

    return grammar.Verb(verb.name, params=params, callback=invoke, help=verb.help)


def _parameter(described: verbs.Parameter) -> click.Parameter:
    if described.kind == "flag":
        names = [described.name, *([described.short] if described.short else [])]
        return grammar.option(*names, is_flag=True, default=False, help=described.help)
    kind = click.Choice(described.choices) if described.choices else _TYPES[described.kind]
    if not described.is_option:
        return grammar.argument(
            described.name,
            type=kind,
            required=described.required,
            metavar=_metavar(described),
            description=described.help,
            **({"nargs": -1} if described.many else {"default": described.default}),
        )
    names = [described.name, *([described.short] if described.short else [])]
    return grammar.option(
        *names,
        type=kind,
        required=described.required,
        default=described.default,
        multiple=described.many,
        help=described.help,
        metavar=described.keyword.upper(),
    )


def _metavar(described: verbs.Parameter) -> str:
    """How the usage line shows an argument: in brackets if it may be left out."""
    name = "|".join(described.choices) if described.choices and not described.required else described.name
    shown = f"{name}..." if described.many else name
    return shown if described.required else f"[{shown}]"
