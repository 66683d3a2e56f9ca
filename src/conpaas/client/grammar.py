"""The grammar of the command line, on top of click.

- the global options are accepted anywhere on the line (where a verb has an option of the same name, the verb's wins);
- long options may be shortened to any unique prefix; a verb's own options come before the global ones;
- every verb with underscores is also known with dashes; every object has a verb `help`;
- a group loads a command's module when the command is used, not when the program starts.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import click

from conpaas.client import complete, global_options

_CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _Common(click.Command):
    """What commands and groups share: the global options and shortened option names."""

    def add_global_options(self) -> None:
        taken = {name for param in self.params for name in (*param.opts, *param.secondary_opts)}
        named = {param.name for param in self.params}
        for option in global_options.every():
            if option.name not in named and not taken.intersection(option.opts):
                self.params.append(option)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, self._expanded(ctx, args))

    def _expanded(self, ctx: click.Context, args: list[str]) -> list[str]:
        """`args` with shortened long options written out; values of options stay as they are."""
        known = {name: param for param in self.get_params(ctx) if isinstance(param, click.Option) for name in _names(param)}
        whole_line = ctx.allow_interspersed_args
        expanded: list[str] = []
        tokens = iter(args)
        for written in tokens:
            if written == "--" or (not written.startswith("-") and not whole_line):
                expanded.append(written)
                break
            name, equals, value = written.partition("=")
            if name.startswith("--"):
                name = _full_name(name, known)
            expanded.append(name + equals + value)
            option = known.get(name)
            if option is not None and not equals and not option.is_flag and not option.count:
                expanded.extend(value for value in [next(tokens, None)] if value is not None)
        return expanded + list(tokens)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Arguments, own options, then the global ones, each under a heading."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": [], "Global options": []}
        for param in self.get_params(ctx):
            if isinstance(param, click.Argument):
                sections["Arguments"].append((param.make_metavar(ctx), getattr(param, "description", "")))
                continue
            record = param.get_help_record(ctx)
            if record is not None:
                sections["Global options" if global_options.is_one(param) else "Options"].append(record)
        for title, records in sections.items():
            if records and any(text for _, text in records):
                with formatter.section(title):
                    formatter.write_dl(records)
        if isinstance(self, click.Group):
            self.format_commands(ctx, formatter)


def _names(option: click.Option) -> list[str]:
    return [*option.opts, *option.secondary_opts]


def _full_name(name: str, known: Mapping[str, click.Option]) -> str:
    """The option that `name` is a unique prefix of: among the verb's own ones first, then among the global ones."""
    if name in known or len(name) < 3:
        return name
    matching = {full: option for full, option in known.items() if full.startswith(name)}
    own = {id(option): full for full, option in matching.items() if not global_options.is_one(option)}
    common = {id(option): full for full, option in matching.items() if global_options.is_one(option)}
    for found in (own, common):
        if len(found) == 1:
            return next(iter(found.values()))
        if found:
            break
    return name


class Verb(_Common):
    """A verb. Its function gets the session first, then its parameters by name."""

    def __init__(self, name: str, *, need_file: bool = True, **kwargs: Any) -> None:
        kwargs["context_settings"] = dict(_CONTEXT_SETTINGS)
        super().__init__(name, **kwargs)
        self.need_file = need_file
        if any(isinstance(p, click.Argument) and p.type is click.INT for p in self.params):
            self.context_settings["ignore_unknown_options"] = True  # a negative number is no option
        self.add_global_options()

    def invoke(self, ctx: click.Context) -> Any:
        from conpaas.client import runtime

        factory = ctx.find_root().obj or runtime.open_session
        ctx.obj = factory(global_options.given(ctx), need_file=self.need_file)
        ctx.meta["conpaas.session"] = ctx.obj
        ctx.call_on_close(ctx.obj.close)
        assert self.callback is not None
        return ctx.invoke(self.callback, ctx.obj, **ctx.params)


class Group(_Common, click.Group):
    """An object, or the program itself. `lazy` maps names to (`module:attribute`, help line)."""

    def __init__(self, *args: Any, lazy: Mapping[str, tuple[str, str]] | None = None, **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", dict(_CONTEXT_SETTINGS))
        kwargs.setdefault("subcommand_metavar", "VERB [ARGS]...")
        kwargs.setdefault("no_args_is_help", False)
        super().__init__(*args, **kwargs)
        self.lazy = dict(lazy or {})
        self.add_global_options()
        self.add_command(_help_verb(self))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*dict.fromkeys([*(name for name in self.commands if name != "help"), *self.lazy, "help"])]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for name in (cmd_name, cmd_name.replace("-", "_")):
            if name in self.commands:
                return self.commands[name]
            if name in self.lazy:
                module, _, attribute = self.lazy[name][0].partition(":")
                found = getattr(importlib.import_module(module), attribute)
                command = found(name) if inspect.isfunction(found) else found
                self.commands[name] = command
                return command
        return None

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        command = self.get_command(ctx, name)
        if command is None and not ctx.resilient_parsing:
            known = [n for n in self.list_commands(ctx) if not self._is_hidden(n)]
            close = difflib.get_close_matches(name.replace("-", "_"), known, n=1, cutoff=0.5)
            suggestion = f" Did you mean '{close[0]}'?" if close else ""
            ctx.fail(f"invalid choice: '{name}'.{suggestion} Choose from {', '.join(known)}.")
        return (command.name if command else None), command, args[1:]

    def _is_hidden(self, name: str) -> bool:
        return name in self.commands and self.commands[name].hidden

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = []
        for name in self.list_commands(ctx):
            if name in self.commands:
                if not self.commands[name].hidden:
                    rows.append((name, self.commands[name].get_short_help_str(limit=90)))
            else:
                rows.append((name, self.lazy[name][1]))
        with formatter.section("Verbs" if ctx.parent or ctx.info_name != "cps-tools" else "Objects and commands"):
            formatter.write_dl(rows)

    def verb(self, name: str, *params: click.Parameter, hidden: bool = False, need_file: bool = True) -> Callable[..., Any]:
        """Register the decorated function as a verb; its docstring is the help."""

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            text = inspect.cleandoc(function.__doc__ or "")
            self.add_command(Verb(name, params=list(params), callback=function, help=text, hidden=hidden, need_file=need_file))
            return function

        return register


def _help_verb(group: click.Group) -> click.Command:
    def show() -> None:
        ctx = click.get_current_context()
        assert ctx.parent is not None
        click.echo(group.get_help(ctx.parent))

    return click.Command("help", callback=show, help="Show this help.", context_settings=dict(_CONTEXT_SETTINGS))


class Argument(click.Argument):
    """A positional argument with a description for the help page."""

    description = ""


def argument(name: str, *, description: str = "", **settings: Any) -> Argument:
    """A positional argument; its metavar is its name."""
    settings.setdefault("metavar", name)
    made = Argument([name], **settings)
    made.description = description
    return made


def option(*names: str, **settings: Any) -> click.Option:
    """An option."""
    return click.Option(names, **settings)


def application_argument() -> click.Argument:
    """APP: an application's name or id."""
    return argument("app_name_or_id", description="An application's name or id.", shell_complete=complete.applications)


def service_argument(service_type: str | None = None) -> click.Argument:
    """SRV: a service's name or id."""
    return argument("serv_name_or_id", description="A service's name or id.", shell_complete=complete.services(service_type))


def cloud_option(default: str | None = "default") -> click.Option:
    """-c/--cloud NAME."""
    return option("-c", "--cloud", metavar="NAME", default=default, shell_complete=complete.clouds, help="The cloud to use.")
