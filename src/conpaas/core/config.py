"""Configuration of a daemon: one INI file, read once at start, asked through typed getters.

Option names are case-insensitive and values are taken literally (no interpolation, no inline comments), so a
password may hold any character. Keys of the section `[vm]`, which the boot script appends because only the VM
knows them (addresses, paths), are visible as if they stood in the main section (`[agent]` or `[manager]`).
"""

from __future__ import annotations

import configparser
import math
import pathlib
from collections.abc import Iterable, Mapping
from typing import Final

from conpaas.core import errors

VM_SECTION: Final = "vm"
MAIN_SECTIONS: Final = ("agent", "manager")

_TRUE = frozenset({"1", "yes", "true", "on"})
_FALSE = frozenset({"0", "no", "false", "off"})


class _Required:
    """Marks a getter's default as absent (None is a usable default)."""


_REQUIRED: Final = _Required()


class Config:
    """An immutable view of one configuration file. `source` is the file's name as used in error texts."""

    def __init__(self, sections: Mapping[str, Mapping[str, str]], *, main: str | None = None, source: str = "the configuration") -> None:
        self._sections = {name: {key.lower(): str(value) for key, value in values.items()} for name, values in sections.items()}
        self.source = source
        self.main = main or next((name for name in MAIN_SECTIONS if name in self._sections), MAIN_SECTIONS[0])
        vm = self._sections.get(VM_SECTION)
        if vm and self.main in self._sections:
            self._sections[self.main].update(vm)

    @classmethod
    def read(cls, path: pathlib.Path, *, main: str | None = None) -> Config:
        """Reads `path`; raises ConfigurationError with the classic text when it is missing or cannot be read."""
        if not path.is_file():
            raise errors.ConfigurationError(f"Failed to find configuration file {path}")
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read_string(path.read_text(encoding="utf-8"), source=str(path))
        except (OSError, UnicodeDecodeError, configparser.Error) as error:
            reason = " ".join(str(error).split())
            raise errors.ConfigurationError(f"Failed to read configuration file {path}: {reason}") from error
        sections = {name: dict(parser.items(name)) for name in parser.sections()}
        if main is not None and main not in sections:
            raise errors.ConfigurationError(f'Missing configuration section "{main}" in {path}')
        return cls(sections, main=main, source=str(path))

    def replace(self, section: str | None = None, /, **values: str) -> Config:
        """A copy in which keys of `section` (default: the main section) have other values."""
        sections = {name: dict(options) for name, options in self._sections.items() if name != VM_SECTION}
        sections.setdefault(section or self.main, {}).update({key.lower(): value for key, value in values.items()})
        return Config(sections, main=self.main, source=self.source)

    def sections(self) -> list[str]:
        return [name for name in self._sections if name != VM_SECTION]

    def section(self, name: str) -> dict[str, str]:
        """All keys (in lower case) and values of a section; empty when the section is absent."""
        return dict(self._sections.get(name, {}))

    def has(self, section: str, key: str) -> bool:
        """Whether the key is there and not empty."""
        return bool(self._sections.get(section, {}).get(key.lower(), ""))

    def require(self, section: str, keys: Iterable[str]) -> None:
        """Raises ConfigurationError with the classic text unless the section holds every key, none of them empty."""
        wanted = list(keys)
        if section not in self._sections:
            raise errors.ConfigurationError(f'Missing configuration section "{section}" in {self.source}')
        if not any(self.has(section, key) for key in wanted):
            raise errors.ConfigurationError(f'Section "{section}" should contain variables {", ".join(wanted)}, in {self.source}')
        for key in wanted:
            if not self.has(section, key):
                raise errors.ConfigurationError(f'Missing configuration variable "{key}" in section "{section}" of {self.source}')

    def get(self, section: str, key: str, default: str | _Required = _REQUIRED) -> str:
        """The text of one key. A key that is absent or empty is an error unless a default is given."""
        value = self._sections.get(section, {}).get(key.lower(), "").strip()
        if value:
            return value
        if isinstance(default, _Required):
            if section not in self._sections:
                raise errors.ConfigurationError(f'Missing configuration section "{section}" in {self.source}')
            raise errors.ConfigurationError(f'Missing configuration variable "{key}" in section "{section}" of {self.source}')
        return default

    def get_int(
        self,
        section: str,
        key: str,
        default: int | _Required = _REQUIRED,
        *,
        minimum: int | None = None,
        maximum: int | None = None,
    ) -> int:
        """The whole number of one key, within the bounds given (both inclusive)."""
        if not isinstance(default, _Required) and not self.has(section, key):
            return default
        text = self.get(section, key)
        try:
            number = int(text)
        except ValueError:
            raise self._wrong(section, key, f"should be a whole number, not {text!r}") from None
        if (minimum is not None and number < minimum) or (maximum is not None and number > maximum):
            raise self._wrong(section, key, f"should lie between {minimum} and {maximum}, not be {number}")
        return number

    def get_float(self, section: str, key: str, default: float | _Required = _REQUIRED, *, minimum: float | None = None) -> float:
        """The number of one key (seconds, ratios)."""
        if not isinstance(default, _Required) and not self.has(section, key):
            return default
        text = self.get(section, key)
        try:
            number = float(text)
        except ValueError:
            raise self._wrong(section, key, f"should be a number, not {text!r}") from None
        if math.isnan(number) or (minimum is not None and number < minimum):
            raise self._wrong(section, key, f"should be at least {minimum}, not {text}")
        return number

    def get_bool(self, section: str, key: str, default: bool | _Required = _REQUIRED) -> bool:
        """yes/no, true/false, on/off or 1/0, in any case."""
        if not isinstance(default, _Required) and not self.has(section, key):
            return default
        text = self.get(section, key).lower()
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        raise self._wrong(section, key, f"should be yes or no, not {text!r}")

    def get_path(self, section: str, key: str, default: pathlib.Path | _Required = _REQUIRED) -> pathlib.Path:
        """An absolute path (it need not exist)."""
        if not isinstance(default, _Required) and not self.has(section, key):
            return default
        path = pathlib.Path(self.get(section, key))
        if not path.is_absolute():
            raise self._wrong(section, key, f"should be an absolute path, not {str(path)!r}")
        return path

    def get_list(self, section: str, key: str, default: Iterable[str] | _Required = _REQUIRED) -> list[str]:
        """The words of one key, separated by commas or white space."""
        if not isinstance(default, _Required) and not self.has(section, key):
            return list(default)
        return self.get(section, key).replace(",", " ").split()

    def _wrong(self, section: str, key: str, problem: str) -> errors.ConfigurationError:
        return errors.ConfigurationError(f'Variable "{key}" in section "{section}" of {self.source} {problem}')
