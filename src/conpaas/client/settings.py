"""Where the settings of a command come from: command line, then environment, then configuration files."""

from __future__ import annotations

import configparser
import dataclasses
import os
import re
import stat
import urllib.parse
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from conpaas.core import errors

SECTION = "cps-tools"
FILE_NAME = "cps-tools.conf"
SYSTEM_FILES = (Path("/etc/cps-tools.conf"), Path("/etc/cps-tools/cps-tools.conf"))
DEFAULT_PORT = 5555
DEFAULT_TIMEOUT = 1800.0
ENVIRONMENT = {"director_url": "CPS_DIRECTOR_URL", "username": "CPS_USERNAME", "password": "CPS_PASSWORD"}
KEYS = ("director_url", "username", "password", "debug", "output", "color", "timeout")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|sec|m|min|h)?")
_UNITS = {"s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


@dataclasses.dataclass
class Settings:
    """What a command works with; `timeout` in seconds, None waits for ever; `wait` None leaves it to the verb."""

    directory: Path
    director_url: str | None = None
    username: str | None = None
    password: str | None = None
    debug: bool = False
    verbose: bool = False
    output: str = "table"
    color: str = "auto"
    timeout: float | None = DEFAULT_TIMEOUT
    wait: bool | None = None
    yes: bool = False
    config_file: Path | None = None
    remarks: list[str] = dataclasses.field(default_factory=list)

    @property
    def url(self) -> str:
        """The Director's URL with scheme and port; missing → the error users know."""
        if not self.director_url:
            raise errors.ConfigurationError(
                "Cannot call the ConPaaS director: the director URL address is not specified.",
                hint="use 'cps-tools login URL', --director_url or CPS_DIRECTOR_URL",
            )
        return normalise_url(self.director_url)

    @property
    def user(self) -> str:
        """The user name; missing → the error users know."""
        if not self.username:
            raise errors.ConfigurationError(
                "Cannot call the ConPaaS director: the user name is not specified.", hint="use --username or CPS_USERNAME"
            )
        return self.username


def user_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the certificates are: `~/.conpaas`, or beside the file that CPS_CONFIG names. Made when first written to."""
    if environ.get("CPS_CONFIG"):
        return Path(environ["CPS_CONFIG"]).expanduser().absolute().parent
    home = environ.get("HOME")
    if home:
        return Path(home) / ".conpaas"
    try:
        return Path.home() / ".conpaas"
    except RuntimeError as error:
        raise errors.ConfigurationError("The home directory is unknown.", hint="set HOME") from error


def load(options: Mapping[str, Any], environ: Mapping[str, str] = os.environ, *, need_file: bool = True) -> Settings:
    """Merge command-line `options` (None or absent = not given) over the environment over the configuration files."""
    settings = Settings(directory=user_directory(environ))
    values: dict[str, str] = {}
    named = options.get("conf_file") or environ.get("CPS_CONFIG")
    settings.config_file = Path(named).expanduser() if named else None
    paths = [settings.config_file] if settings.config_file else [*SYSTEM_FILES, settings.directory / FILE_NAME]
    for path in paths:
        if path.is_file():
            values.update(_read_file(path, settings.remarks))
        elif named and need_file:
            raise errors.ConfigurationError(f"The configuration file {path} does not exist.", hint="--conf_file or CPS_CONFIG names it")
    for key, variable in ENVIRONMENT.items():
        if environ.get(variable):
            values[key] = environ[variable]
    settings.director_url = options.get("director_url") or values.get("director_url")
    settings.username = options.get("username") or values.get("username")
    settings.password = options.get("password") or values.get("password")
    settings.verbose = bool(options.get("debug"))
    settings.debug = settings.verbose or _boolean("debug", values.get("debug", "false"))
    settings.output = _one_of("output", options.get("output") or values.get("output", "table"), ("table", "json", "name"))
    settings.color = _one_of("color", options.get("color") or values.get("color", "auto"), ("auto", "always", "never"))
    settings.timeout = duration(options.get("timeout") or values.get("timeout") or str(DEFAULT_TIMEOUT))
    settings.wait = options.get("wait")
    settings.yes = bool(options.get("yes"))
    return settings


def _read_file(path: Path, remarks: list[str]) -> dict[str, str]:
    """The values of one file; `%%` counts as `%`, as in files written for the earlier client."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        with path.open(encoding="utf-8") as file:
            parser.read_file(file)
    except (OSError, UnicodeDecodeError) as error:
        raise errors.ConfigurationError(f"The configuration file {path} cannot be read: {error}") from error
    except configparser.Error as error:
        raise errors.ConfigurationError(f"The configuration file {path} is not valid: {str(error).splitlines()[0]}") from error
    unknown_sections = [name for name in parser.sections() if name != SECTION]
    if unknown_sections:
        remarks.append(f"Skipping unknown sections: {unknown_sections}")
    if not parser.has_section(SECTION):
        return {}
    values = {key: (value or "").replace("%%", "%") for key, value in parser.items(SECTION)}
    unknown = sorted(set(values) - set(KEYS))
    if unknown:
        remarks.append(f'Skipping unknown options from section "{SECTION}": {unknown}')
    if values.get("password") and path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        remarks.append(f"{path} holds a password and others can read it; make it private with 'chmod 600 {path}'")
    return {key: value for key, value in values.items() if key in KEYS and value != ""}


def save(path: Path, changes: Mapping[str, str | None]) -> None:
    """Set the given keys of a configuration file (None removes one) and keep its other keys; the file is private."""
    from conpaas.client import certificates

    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise errors.ConfigurationError(f"The configuration file {path} is not valid; move it away first.") from error
    if not parser.has_section(SECTION):
        parser.add_section(SECTION)
    section: MutableMapping[str, str] = parser[SECTION]
    for key, value in changes.items():
        if value is None:
            section.pop(key, None)
        else:
            section[key] = value.replace("%", "%%")
    lines = []
    for name in parser.sections():
        lines.append(f"[{name}]")
        lines.extend(f"{key} = {value}" for key, value in parser[name].items())
    certificates.write_private(path, ("\n".join(lines) + "\n").encode())


def normalise_url(url: str) -> str:
    """Give a Director URL its scheme (https) and port (5555); path and trailing slash go. IPv6 addresses stand in brackets."""
    text = url.strip()
    if "://" not in text:
        text = f"https://{text}"
    try:
        parts = urllib.parse.urlsplit(text)
        port = parts.port or DEFAULT_PORT
        host = parts.hostname
    except ValueError as error:
        raise errors.ConfigurationError(f"The director URL '{url}' is not valid: {error}") from error
    if parts.scheme not in ("https", "http") or not host:
        raise errors.ConfigurationError(f"The director URL '{url}' is not valid.", hint="write it like https://conpaas.example.com:5555")
    return f"https://{f'[{host}]' if ':' in host else host}:{port}"


def duration(text: str | float) -> float | None:
    """Seconds of `90`, `90s`, `10m` or `1h`; 0 means no limit (None)."""
    matched = _DURATION.fullmatch(str(text).strip().lower())
    if matched is None:
        raise errors.InvalidArgument(f"'{text}' is not a duration.", hint="write it like 90s, 10m or 1h; 0 is no limit")
    seconds = float(matched.group(1)) * _UNITS[matched.group(2) or "s"]
    return seconds or None


def _boolean(key: str, value: str) -> bool:
    return _one_of(key, value.lower(), ("true", "false")) == "true"


def _one_of(key: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise errors.ConfigurationError(f"The setting '{key}' must be one of {', '.join(choices)}, not '{value}'.")
    return value
