"""The configuration of one cloud: typed values out of its section of director.cfg, with errors that name the key and the cloud."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping

from conpaas.core import errors

_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


class Settings:
    """A section's keys (case does not matter) for a cloud `name` of driver type `driver`."""

    def __init__(self, name: str, driver: str, section: Mapping[str, str]) -> None:
        self.name = name
        self.driver = driver
        self._values = {key.upper(): str(value).strip() for key, value in section.items()}

    def require(self, keys: Iterable[str]) -> None:
        """Raises ConfigurationError at the first key that is missing or empty, in the classic words."""
        for key in keys:
            if key not in self._values:
                raise errors.ConfigurationError(f"Missing {self.driver} config param {key} for {self.name}")
            if not self._values[key]:
                raise errors.ConfigurationError(f"Empty {self.driver} config param {key} for {self.name}")

    def unknown(self, known: Iterable[str]) -> list[str]:
        """Keys of the section that the driver does not know: most likely misspelt."""
        return sorted(set(self._values) - {key.upper() for key in known})

    def text(self, key: str, default: str = "") -> str:
        return self._values.get(key) or default

    def choice(self, key: str, choices: tuple[str, ...], default: str) -> str:
        value = self.text(key, default).lower()
        if value not in choices:
            raise self._wrong(key, f"must be one of {list(choices)}")
        return value

    def boolean(self, key: str, default: bool) -> bool:
        value = self.text(key, str(default)).lower()
        if value not in _BOOLEANS:
            raise self._wrong(key, "must be true or false")
        return _BOOLEANS[value]

    def integer(self, key: str, default: int, *, minimum: int = 0, maximum: int | None = None) -> int:
        number = self.number(key, default, minimum=minimum)
        if number != int(number) or (maximum is not None and number > maximum):
            limit = "" if maximum is None else f" and at most {maximum}"
            raise self._wrong(key, f"must be a whole number of at least {minimum}{limit}")
        return int(number)

    def number(self, key: str, default: float, *, minimum: float = 0.0) -> float:
        with contextlib.suppress(ValueError):
            value = float(self.text(key, str(default)))
            if minimum <= value < float("inf"):
                return value
        raise self._wrong(key, f"must be a number of at least {minimum:g}")

    def _wrong(self, key: str, what: str) -> errors.ConfigurationError:
        return errors.ConfigurationError(f"Wrong {self.driver} config param {key} for {self.name}: {what}, not {self._values.get(key)!r}")
