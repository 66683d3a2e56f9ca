"""Values that travel between a manager and its agents: frozen dataclasses with a wire shape."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from conpaas.core import errors, params

T = TypeVar("T", bound="Travels")


class Travels:
    """To be inherited by dataclasses. What is not known is refused, so that nobody acts on a value that nobody looked at."""

    @classmethod
    def from_dict(cls: type[T], values: Any) -> T:
        """Read the wire shape. Raises `errors.InvalidArgument` naming the field."""
        if not isinstance(values, Mapping):
            raise errors.InvalidArgument(f"A {cls.__name__} must be an object, got {params.shown(values)}.")
        known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        for name in values:
            if name not in known:
                raise errors.InvalidArgument(f"A {cls.__name__} has no field '{params.shown(name)}'.")
        try:
            return cls(**values)
        except TypeError as error:
            raise errors.InvalidArgument(f"A {cls.__name__} is incomplete: {error}.") from error

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)  # type: ignore[call-overload]
