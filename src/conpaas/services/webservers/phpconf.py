"""The php.ini settings that users may change, and the form of their values: nothing else ever reaches a configuration file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from conpaas.core import errors, params

_PCNTL: Final = (
    "alarm fork waitpid wait wifexited wifstopped wifsignaled wexitstatus wtermsig wstopsig signal signal_dispatch get_last_error strerror "
    "sigprocmask sigwaitinfo sigtimedwait exec getpriority setpriority"
)

DEFAULTS: Final[Mapping[str, str]] = {
    "max_execution_time": "30",
    "memory_limit": "128M",
    "log_errors": "On",
    "display_errors": "Off",
    "upload_max_filesize": "2M",
    "post_max_size": "8M",
    "disable_functions": ",".join(f"pcntl_{name}" for name in _PCNTL.split()),
}
"""Classic names and values, except that errors are logged."""

SWITCHES: Final = frozenset({"log_errors", "display_errors"})
SIZES: Final = frozenset({"memory_limit", "upload_max_filesize", "post_max_size"})

_DIGITS: Final = re.compile(r"[0-9]{1,6}")
_SIZE: Final = re.compile(r"[0-9]{1,12}|[0-9]{1,9}[Kk]|[0-9]{1,6}[Mm]|[0-9]{1,3}[Gg]")
_FUNCTIONS: Final = re.compile(r"[A-Za-z0-9_, ]*[A-Za-z0-9_][A-Za-z0-9_, ]*")
_MAX_FUNCTIONS: Final = 4096
_UNITS: Final = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def check(name: str, value: Any) -> str:
    """The value of a setting as it goes into a configuration. Whole numbers are taken for the numeric ones, booleans for switches.

    Raises InvalidArgument that names the setting and tells what it takes.
    """
    if name not in DEFAULTS:
        raise errors.InvalidArgument(
            f'Unexpected arguments phpconf attribute "{params.shown(name)}"', hint=f"the settings are {', '.join(DEFAULTS)}"
        )
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if name in SWITCHES:
        return _switch(name, text)
    if name in SIZES:
        return _matching(name, text, _SIZE, "a size such as 512K, 64M or 1G, or a number of bytes")
    if name == "max_execution_time":
        return _matching(name, text, _DIGITS, "a number of seconds")
    return _matching(name, text, _FUNCTIONS, "names of functions, separated by commas")


def check_all(values: Mapping[str, Any]) -> dict[str, str]:
    """All settings checked; what is not given is not in the answer."""
    return {name: check(name, value) for name, value in values.items()}


def size(value: str) -> int:
    """The bytes of a size that `check` let pass."""
    unit = _UNITS.get(value[-1:].upper(), 0)
    return int(value[:-1]) * unit if unit else int(value)


def _switch(name: str, value: Any) -> str:
    word = {True: "on", False: "off"}.get(value, "") if isinstance(value, bool) else value.lower() if isinstance(value, str) else ""
    if word not in ("on", "off"):
        raise _wrong(name, value, "On or Off")
    return word.capitalize()


def _matching(name: str, value: Any, pattern: re.Pattern[str], wanted: str) -> str:
    if not isinstance(value, str) or len(value) > _MAX_FUNCTIONS or not pattern.fullmatch(value):
        raise _wrong(name, value, wanted)
    return value


def _wrong(name: str, value: Any, wanted: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(f"Invalid arguments (the PHP setting {name} must be {wanted}, not {params.shown(value)!r})")
