"""The programs: `cps-tools OBJECT VERB`, and `cps-OBJECT VERB` for every object."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import click

import conpaas
from conpaas.client import grammar, runtime
from conpaas.core import errors

OBJECTS: Mapping[str, tuple[str, str]] = {
    "user": ("conpaas.client.objects.user:group", "Your account and certificate; on the Director's host, its users."),
    "cloud": ("conpaas.client.objects.cloud:group", "List clouds and the virtual machines in them."),
    "application": ("conpaas.client.objects.application:group", "Create, start, stop and inspect applications."),
    "service": ("conpaas.client.typed:service", "Add, start, scale and inspect services of any type."),
    "director": ("conpaas.client.objects.director:group", "Ask the Director about itself."),
}
COMMANDS: Mapping[str, tuple[str, str]] = {
    "login": ("conpaas.client.objects.account:login", "Get to know a Director, get a certificate, and remember both."),
    "logout": ("conpaas.client.objects.account:logout", "Delete the key and certificate stored on this machine."),
    "whoami": ("conpaas.client.objects.account:whoami", "Print who you are for the Director, and until when."),
    "status": ("conpaas.client.objects.views:status", "Show all applications, services, nodes and the credit left."),
    "logs": ("conpaas.client.objects.views:logs", "Print the log of an application, a service or one of its nodes."),
    "history": ("conpaas.client.objects.views:history", "Show what was done to an application or service."),
    "wait": ("conpaas.client.objects.views:wait", "Wait until an application or service is in a state."),
    "completion": ("conpaas.client.objects.completion:completion", "Print a script for completion in bash, zsh or fish."),
}


def _types() -> tuple[str, ...]:
    """The names of the service types installed here; cheaper than loading them."""
    import importlib.metadata

    groups = ("conpaas.services", "conpaas.cli")
    return tuple(sorted({point.name for group in groups for point in importlib.metadata.entry_points(group=group)}))


def programs() -> tuple[str, ...]:
    """The names of all programs."""
    return ("cps-tools", *(f"cps-{name}" for name in (*OBJECTS, *_types())))


def tools() -> grammar.Group:
    """The command `cps-tools`."""
    types = {name: ("conpaas.client.typed:load", f"Services of type {name}.") for name in _types() if name not in OBJECTS}
    group = grammar.Group(
        "cps-tools",
        lazy={**OBJECTS, **types, **COMMANDS},
        help="Run applications made of elastic services.",
        epilog="'cps-tools OBJECT -h' lists the verbs of an object; 'cps-OBJECT' is short for 'cps-tools OBJECT'.",
        subcommand_metavar="OBJECT VERB [ARGS]...",
    )
    return _with_version(group, "cps-tools")


def _with_version(group: grammar.Group, program: str) -> grammar.Group:
    def show(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            click.echo(f"{program} {conpaas.__version__}")
            ctx.exit()

    option = click.Option(["--version"], is_flag=True, expose_value=False, is_eager=True, callback=show, help="Show the version.")
    group.params.append(option)
    return group


def main(args: Sequence[str] | None = None) -> int:
    """Run `cps-tools`; the exit code."""
    return runtime.run(tools, "cps-tools", args)


def run_object(name: str, args: Sequence[str] | None = None) -> int:
    """Run `cps-<name>`; the exit code."""

    def command() -> click.Command:
        found = tools().get_command(click.Context(click.Command("cps-tools")), name)
        if not isinstance(found, grammar.Group):
            raise errors.NotFound(f"There is no object '{name}' here.", hint="'cps-tools -h' lists the objects")
        return _with_version(found, f"cps-{name}")

    return runtime.run(command, f"cps-{name}", args)


def _program(name: str) -> Callable[[], int]:
    def run() -> int:
        return run_object(name)

    run.__doc__ = f"Run `cps-{name}`; the exit code."
    return run


main_user = _program("user")
main_cloud = _program("cloud")
main_application = _program("application")
main_service = _program("service")
main_director = _program("director")
main_helloworld = _program("helloworld")
main_generic = _program("generic")
main_php = _program("php")
main_java = _program("java")
main_mysql = _program("mysql")


def __getattr__(name: str) -> Callable[[], int]:
    """`main_<type>`: the entry point of the program of any other service type."""
    if name.startswith("main_"):
        return _program(name.removeprefix("main_"))
    raise AttributeError(name)
