"""The environment variables that other services of the application give to the scripts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from conpaas.core import errors
from conpaas.core.state import settings

_GIVEN: Final = "given_variables"
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
_LONGEST: Final = 8192


class GivenVariables:
    """Kept by source, on disk when a method returns."""

    def __init__(self, values: settings.Settings) -> None:
        self._values = values

    def sources(self) -> list[str]:
        """Everybody who gave something."""
        return sorted(self._values.get(_GIVEN, {}))

    def of(self, source: str) -> dict[str, str]:
        """What one source gave."""
        return dict(self._values.get(_GIVEN, {}).get(source, {}))

    def all(self) -> dict[str, str]:
        """What all sources gave together."""
        return {name: value for _, variables in sorted(self._values.get(_GIVEN, {}).items()) for name, value in variables.items()}

    def put(self, source: str, variables: Mapping[str, str]) -> bool:
        """Replace what a source gave; none: forget it. Returns whether that is a change. Raises `errors.InvalidArgument`."""
        for name, value in variables.items():
            if not _NAME.match(name) or "\0" in value or len(value) > _LONGEST:
                raise errors.InvalidArgument(f"{name!r} cannot be an environment variable of this value.")
        if self.of(source) == dict(variables):
            return False
        others = {key: kept for key, kept in self._values.get(_GIVEN, {}).items() if key != source}
        self._values[_GIVEN] = {**others, source: dict(variables)} if variables else others
        return True
