"""Declaring which methods of an object can be called from outside.

    @expose("POST", Param("codeVersionId", Text()))
    def enable_code(self, code_version_id: str, caller: identity.PeerIdentity) -> dict:
        '''Switch to another code version.'''

The name of the call is the attribute's name. A subclass that overrides a method without the decorator un-exposes it.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, Final, Literal, TypeVar

from conpaas.core import params as params_

Verb = Literal["GET", "POST", "UPLOAD"]
VERBS: Final = ("GET", "POST", "UPLOAD")

_MARK = "_conpaas_declaration"
_Handler = TypeVar("_Handler", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True, slots=True)
class _Declaration:
    verb: Verb
    params: tuple[params_.Param, ...]
    wants_caller: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Exposed:
    """One callable method: `func` is bound to its object (or a plain function when read from a class)."""

    verb: Verb
    name: str
    params: tuple[params_.Param, ...]
    help: str
    func: Callable[..., Any]
    wants_caller: bool = False

    def call(self, given: Any, caller: Any) -> Any:
        """Check the arguments as they came from the wire and call the method; raises ConPaaSError."""
        arguments = params_.check_arguments(self.params, given)
        if self.wants_caller:
            arguments["caller"] = caller
        return self.func(**arguments)


def expose(verb: Verb, *params: params_.Param) -> Callable[[_Handler], _Handler]:
    """Mark a method as callable from outside, with these parameters.

    The handler gets each parameter as the keyword `Param.arg`, and the caller's identity as `caller` if its signature has
    that name. It returns any JSON value (None means {}) or rpc.FileDownload, and raises ConPaaSError to answer an error.
    A declaration that does not fit the signature raises TypeError at import time.
    """
    if verb not in VERBS:
        raise TypeError(f"expose() takes one of {', '.join(VERBS)}, not {verb!r}")

    def mark(handler: _Handler) -> _Handler:
        names = _check_signature(handler, verb, params)
        setattr(handler, _MARK, _Declaration(verb, params, "caller" in names))
        return handler

    return mark


def _check_signature(handler: Callable[..., Any], verb: Verb, params: tuple[params_.Param, ...]) -> set[str]:
    """Refuse a declaration that the handler could not be called with; returns the names in its signature."""
    where = f"@expose on {handler.__qualname__}"
    wire_names = [param.name for param in params]
    arguments = [param.arg for param in params]
    if len(set(wire_names)) < len(wire_names) or len(set(arguments)) < len(arguments):
        raise TypeError(f"{where}: a parameter is declared twice")
    if verb != "UPLOAD" and any(isinstance(param.type, params_.Upload) for param in params):
        raise TypeError(f"{where}: only UPLOAD methods take files")
    signature = list(inspect.signature(handler).parameters.values())[1:]
    names = {parameter.name for parameter in signature}
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in signature)
    missing = [argument for argument in arguments if argument not in names]
    if missing and not takes_any:
        raise TypeError(f"{where}: the method does not take {', '.join(missing)}")
    for parameter in signature:
        optional = parameter.default is not parameter.empty or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        if not optional and parameter.name not in arguments and parameter.name != "caller":
            raise TypeError(f"{where}: parameter {parameter.name} is not declared")
    return names


def exposed_methods(obj: object) -> dict[tuple[str, str], Exposed]:
    """The exposed methods of an instance (or, unbound, of a class), by (verb, name), inherited ones included."""
    owner = obj if isinstance(obj, type) else type(obj)
    methods: dict[tuple[str, str], Exposed] = {}
    for name in dir(owner):
        declaration = getattr(inspect.getattr_static(owner, name), _MARK, None)
        if isinstance(declaration, _Declaration):
            func = getattr(obj, name)
            methods[declaration.verb, name] = Exposed(
                declaration.verb, name, declaration.params, _first_paragraph(func), func, declaration.wants_caller
            )
    return methods


def _first_paragraph(func: Callable[..., Any]) -> str:
    documentation = inspect.getdoc(func) or ""
    return " ".join(documentation.split("\n\n", maxsplit=1)[0].split())
