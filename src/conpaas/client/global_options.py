"""The options that every command takes, anywhere on its line, and what was given for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

_KEY = "conpaas.options"


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """Keep a global option's value for the whole line; the rightmost one wins."""
    if value is not None and param.name is not None:
        ctx.meta.setdefault(_KEY, {})[param.name] = value
    return value


def given(ctx: click.Context) -> Mapping[str, Any]:
    """The global options given on this line, by name."""
    found: Mapping[str, Any] = ctx.meta.get(_KEY, {})
    return found


def is_one(param: click.Parameter) -> bool:
    """Whether this is a global option, not one of a verb's own."""
    return param.callback is _remember


def _global(*names: str, **settings: Any) -> click.Option:
    return click.Option(names, expose_value=False, callback=_remember, default=None, **settings)


def every() -> list[click.Option]:
    """A fresh set of the options that every command takes."""
    return [
        _global("-d", "--debug", is_flag=True, help="Log what happens, and show tracebacks."),
        _global("--conf_file", metavar="FILE", help="Read this configuration file instead of the usual ones."),
        _global("--director_url", metavar="URL", help="The Director's address."),
        _global("--username", metavar="USERNAME", help="The user's name."),
        _global(
            "--password",
            metavar="PASSWORD",
            help="The user's password (CPS_PASSWORD keeps it off the line).",
        ),
        _global("-o", "--output", type=click.Choice(["table", "json", "name"]), help="How results are printed."),
        _global("--color", type=click.Choice(["auto", "always", "never"]), help="When to use colours."),
        _global("--wait/--no-wait", help="Wait for what the command begins, or not."),
        _global("--timeout", metavar="TIME", help="The longest wait: 90s, 10m, 1h; 0 for no limit (default 30m)."),
        _global("-y", "--yes", is_flag=True, help="Never ask for confirmation."),
    ]
