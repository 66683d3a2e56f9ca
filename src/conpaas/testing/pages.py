"""Checks the page that a service type declares against what its manager answers: `page_problems("greeter") == []`."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence

from conpaas.core import application, expose, pages, params, services


def page_problems(service_type: str | services.ServiceType) -> list[str]:
    """What is wrong with the page of a service type, one sentence each; an empty list if nothing is.

    Every method must be exposed by the manager with that verb, every parameter must be one of the method's, and every parameter that
    the method requires must be filled. Roles must be the type's.
    """
    kind = services.registry.get(service_type) if isinstance(service_type, str) else service_type
    page = kind.load_page()
    checker = _Checker(expose.exposed_methods(kind.load_manager()), expose.exposed_methods(application.ApplicationManager))
    for panel in page.panels:
        for part in panel.parts:
            checker.where = f"the panel '{panel.title}'"
            checker.part(part)
    found = checker.problems
    found += [f"the role '{role.name}' is none of the service type's" for role in page.roles if role.name not in kind.roles]
    twice = [title for title, count in collections.Counter(panel.title for panel in page.panels).items() if count > 1]
    return found + [f"there are several panels '{title}'" for title in twice]


class _Checker:
    def __init__(self, own: dict[tuple[str, str], expose.Exposed], common: dict[tuple[str, str], expose.Exposed]) -> None:
        self._own = own
        self._common = common
        self.where = ""
        self.problems: list[str] = []

    def _say(self, text: str) -> None:
        self.problems.append(f"{self.where}: {text}")

    def part(self, part: pages.Part) -> None:
        if isinstance(part, pages.Form):
            self._reading(part.method)
            self.deed(part.action, row=False)
        elif isinstance(part, pages.Buttons):
            for deed in part.actions:
                self.deed(deed, row=False)
        elif isinstance(part, pages.Table):
            self._call(part.verb, part.method, set(part.fixed), set(part.fixed), application=part.application)
            for deed in part.actions:
                self.deed(deed, row=True)
        else:
            self._reading(part.method)

    def _reading(self, method: str) -> None:
        if method:
            self._call("GET", method, set(), set())

    def deed(self, deed: pages.Deed, *, row: bool) -> None:
        """An action, a download or a view."""
        if deed.row and not row:
            self._say(f"'{deed.label}' takes values from a row, and stands in none")
        for field in _all_fields(deed.fields):
            if field.choices_from and not field.choices_from.startswith("@"):
                self._reading(field.choices_from.partition(":")[0])
            elif field.choices_from not in ("", pages.NODES, pages.SERVICES):
                self._say(f"the field '{field.name}' has its choices from '{field.choices_from}', which is not known")
            if field.input == "choice" and not (field.choices or field.choices_from):
                self._say(f"the field '{field.name}' has no choices")
        if isinstance(deed, pages.Action):
            given, filled = _arguments(deed)
            self._call(deed.verb, deed.method, given, filled, application=deed.application)
            self._files(deed)
        else:
            names = [*deed.row, *deed.fixed, *(field.name for field in deed.fields)]
            sure = [*deed.row, *deed.fixed, *(field.name for field in deed.fields if _is_sure(field))]
            self._call("GET", deed.method, set(names), set(sure))

    def _files(self, deed: pages.Action) -> None:
        exposed = self._own.get((deed.verb, deed.method))
        if exposed is None:
            return
        files = {param.name for param in exposed.params if isinstance(param.type, params.Upload)}
        for field in deed.fields:
            if (field.input == "file") != (field.name in files):
                self._say(
                    f"the field '{field.name}' of '{deed.method}' {'is no file there' if field.input == 'file' else 'is a file there'}"
                )

    def _call(self, verb: str, method: str, given: set[str], filled: set[str], *, application: bool = False) -> None:
        exposed = (self._common if application else self._own).get((verb, method))
        if exposed is None:
            who = "application manager" if application else "manager"
            self._say(f"the {who} has no {verb} method '{method}'")
            return
        known = {param.name for param in exposed.params}
        for name in sorted(given - known):
            self._say(f"the method '{method}' has no parameter '{name}'")
        for param in exposed.params:
            if param.required and param.name not in filled:
                self._say(f"the method '{method}' requires '{param.name}', which may be left out")


def _arguments(action: pages.Action) -> tuple[set[str], set[str]]:
    """The names of the parameters that an action may give, and of those that it gives for certain."""
    own = {*action.fixed, *action.row}
    names = own | {field.name for field in action.fields}
    sure = own | {field.name for field in action.fields if _is_sure(field)}
    if action.group:
        outside = own | {action.group}
        return outside, outside
    if action.entry:
        return (names - {"name", "value"}) | {action.entry}, (sure - {"name", "value"}) | {action.entry}
    return names, sure


def _is_sure(field: pages.Field) -> bool:
    return field.required or field.default is not None or field.generated or field.input == "boolean"


def _all_fields(fields: Sequence[pages.Field]) -> Iterator[pages.Field]:
    for field in fields:
        yield field
        yield from _all_fields(field.of)
