"""Verbs as data: what a verb of a service type is called, takes and runs, before the command line makes a command of it."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal

Kind = Literal["text", "integer", "file", "output", "flag"]
Target = Literal["service", "application"]
VerbFunction = Callable[..., None]


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One argument (`name` without dashes) or option (`name` starts with `--`) of a verb.

    `kind`: text, integer, file (an existing readable file, `-` for standard input), output (a file to write, `-` for
    standard output) or flag (option without value). `completes` names what the shell offers: agents, codes, clouds.
    With `many`, it may stand any number of times (an argument: the last one only) and its value is a tuple.
    """

    name: str
    kind: Kind = "text"
    help: str = ""
    short: str | None = None
    default: Any = None
    required: bool = True
    choices: tuple[str, ...] = ()
    completes: str = ""
    many: bool = False

    @property
    def is_option(self) -> bool:
        return self.name.startswith("--")

    @property
    def keyword(self) -> str:
        """The keyword the verb's function gets the value by."""
        return self.name.lstrip("-").replace("-", "_")


@dataclasses.dataclass(frozen=True)
class Verb:
    """One verb of a service type. `destructive` is the question asked on a terminal before it runs."""

    name: str
    function: VerbFunction
    parameters: tuple[Parameter, ...] = ()
    target: Target = "service"
    destructive: str | None = None

    @property
    def help(self) -> str:
        """The first paragraph of the function's docstring."""
        return inspect.cleandoc(self.function.__doc__ or "").split("\n\n")[0].replace("\n", " ")


class VerbTable:
    """Verbs by name, and the words to describe them with."""

    def __init__(self) -> None:
        self.verbs: dict[str, Verb] = {}

    def argument(
        self,
        name: str,
        *,
        kind: Kind = "text",
        help: str = "",
        required: bool = True,
        choices: Sequence[str] = (),
        completes: str = "",
        many: bool = False,
    ) -> Parameter:
        """Describe a positional argument; it comes after APP SRV, in the order of the parameters of `verb`."""
        return Parameter(name, kind, help, required=required, choices=tuple(choices), completes=completes, many=many)

    def option(
        self,
        name: str,
        short: str | None = None,
        *,
        kind: Kind = "text",
        help: str = "",
        default: Any = None,
        required: bool = False,
        choices: Sequence[str] = (),
        completes: str = "",
        many: bool = False,
    ) -> Parameter:
        """Describe an option, such as `option("--parameters", "-p", default="")`."""
        return Parameter(name, kind, help, short, default, required, tuple(choices), completes, many)

    def flag(self, name: str, short: str | None = None, *, help: str = "") -> Parameter:
        """Describe an option without value, False unless given."""
        return Parameter(name, "flag", help, short, default=False, required=False)

    def verb(
        self, name: str, *parameters: Parameter, target: Target = "service", destructive: str | None = None
    ) -> Callable[[VerbFunction], VerbFunction]:
        """Register the decorated function as a verb (its docstring is the help); a later one of the same name wins."""

        def register(function: VerbFunction) -> VerbFunction:
            self.verbs[name] = Verb(name, function, parameters, target, destructive)
            return function

        return register
