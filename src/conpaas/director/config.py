"""The Director's configuration file, classic `director.cfg`: sections, keys, defaults and checks in one table.

`load()` gives a `DirectorConfig`; nothing else reads the file. Interpolation is off (a `%` is a `%`), names of keys ignore
case, lists are separated by commas and trimmed. A key of a cloud's section is that cloud driver's to check.
"""

from __future__ import annotations

import configparser
import dataclasses
import ipaddress
import os
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib import parse

import sqlalchemy as sa
from sqlalchemy import exc

from conpaas.core import errors, node
from conpaas.director.oidc import settings as oidc_settings

CLASSIC_PATH = pathlib.Path("/etc/cpsdirector/director.cfg")
DEFAULT_STATE = pathlib.Path("/var/lib/cpsdirector")
DEFAULT_PORT = 5555
OWN_SECTIONS = ("conpaas", "director", "mail", "frontend")
DEFAULT_FRONTEND_PORT = 8080
DEBUG_LEVEL_TYPES = ("js", "ajax", "php", "python")
# Classic keys that nothing needs any more; accepted, so that an old file still loads.
RETIRED = {
    "conpaas": {"vpn_base_network", "vpn_netmask", "vpn_service_bits", "vpn_bootstrap_nodes", "external_idps"},
    "director": set[str](),
    "mail": set[str](),
    "frontend": set[str](),
}


class _Wrong(ValueError):
    """A value that a key's parser refuses; the text completes a sentence after 'must be'."""


def _text(value: str, _base: pathlib.Path) -> str:
    if not value:
        raise _Wrong("a text that is not empty")
    return value


def _path(value: str, base: pathlib.Path) -> pathlib.Path:
    return base / pathlib.Path(_text(value, base)).expanduser()


def _boolean(value: str, _base: pathlib.Path) -> bool:
    state = configparser.ConfigParser.BOOLEAN_STATES.get(value.lower())
    if state is None:
        raise _Wrong("true or false")
    return state


def _integer(minimum: int, maximum: int) -> Callable[[str, pathlib.Path], int]:
    def parser(value: str, _base: pathlib.Path) -> int:
        if not re.fullmatch(r"[+-]?\d{1,12}", value) or not minimum <= int(value) <= maximum:
            raise _Wrong(f"a whole number from {minimum} to {maximum}")
        return int(value)

    return parser


def _choice(*values: str) -> Callable[[str, pathlib.Path], str]:
    def parser(value: str, _base: pathlib.Path) -> str:
        if value.lower() not in values:
            raise _Wrong("one of " + ", ".join(values))
        return value.lower()

    return parser


def _names(value: str, _base: pathlib.Path) -> tuple[str, ...]:
    return tuple(part for part in (piece.strip() for piece in value.split(",")) if part)


def _hours(value: str, _base: pathlib.Path) -> tuple[int, ...]:
    texts = _names(value, _base)
    if not all(re.fullmatch(r"[0-9]{1,5}", text) and int(text) > 0 for text in texts):
        raise _Wrong("whole numbers of hours separated by commas, or empty")
    return tuple(sorted({int(text) for text in texts}, reverse=True))


def _optional(value: str, _base: pathlib.Path) -> str:
    return value


def _web_url(value: str, _base: pathlib.Path) -> str:
    if not value:
        return ""
    try:
        parts = parse.urlsplit(value)
    except ValueError as error:
        raise _Wrong("a URL like https://conpaas.example.org/") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise _Wrong("a URL like https://conpaas.example.org/")
    return value.rstrip("/")


def _deployment(value: str, _base: pathlib.Path) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,39}", value):
        raise _Wrong("up to 40 letters, digits, dots and hyphens, as it becomes part of the names of VMs")
    return value


def _url(value: str, _base: pathlib.Path) -> str:
    try:
        parts = parse.urlsplit(value if "//" in value else f"https://{value}")
        port = parts.port or DEFAULT_PORT
    except ValueError as error:
        raise _Wrong("a URL like https://director.example.org:5555") from error
    if parts.scheme != "https" or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
        raise _Wrong("a URL like https://director.example.org:5555")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"https://{host}:{port}"


def _root_path(value: str, _base: pathlib.Path) -> str:
    path = value.rstrip("/")
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*", path):
        raise _Wrong("empty or a path like /conpaas")
    return path


def _public_url(value: str, _base: pathlib.Path) -> str:
    parts = parse.urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
        raise _Wrong("a URL like https://conpaas.example.org; a path belongs into ROOT_PATH")
    return f"{parts.scheme}://{parts.netloc}"


def _bind(value: str, _base: pathlib.Path) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError as error:
        raise _Wrong("an IP address of this machine, or 0.0.0.0 for all of them") from error


def _addresses(value: str, base: pathlib.Path) -> tuple[str, ...]:
    try:
        return tuple(str(ipaddress.ip_address(text)) for text in _names(value, base))
    except ValueError as error:
        raise _Wrong("IP addresses separated by commas") from error


def _database(value: str, _base: pathlib.Path) -> str:
    try:
        sa.make_url(value)
    except exc.ArgumentError as error:
        raise _Wrong("a database URL like sqlite:////var/lib/cpsdirector/director.db") from error
    return value


@dataclasses.dataclass(frozen=True)
class Key:
    """One key of the file: where it stands, which field of DirectorConfig it fills, and how its text is read."""

    section: str
    name: str
    field: str
    parser: Callable[[str, pathlib.Path], Any]
    help: str


_PORT = _integer(1, 65535)
KEYS = (
    Key("conpaas", "CONF_DIR", "conf_dir", _path, "Directory of config/ and scripts/ for VMs; unset: those of the installed package."),
    Key("conpaas", "CERT_DIR", "cert_dir", _path, "Directory of the CA and of the Director's certificates. Default: <STATE_DIR>/certs."),
    Key("conpaas", "DEPLOYMENT_NAME", "deployment_name", _deployment, "First part of the names of all VMs."),
    Key("conpaas", "MAX_CREDIT", "max_credit", _integer(0, 10**9), "Most credits that a user who registers may ask for."),
    Key("conpaas", "SUPPORT_EXTERNAL_IDP", "support_external_idp", _boolean, "Accepted, without effect: see the sections [oidc NAME]."),
    Key("conpaas", "SUPPORT_OPENID", "support_openid", _boolean, "Accepted, without effect: see the sections [oidc NAME]."),
    *(
        Key("conpaas", f"{kind}_debug_level", f"{kind}_debug_level", _integer(0, 10), f"What /debug_level/{kind} answers.")
        for kind in DEBUG_LEVEL_TYPES
    ),
    Key("director", "STATE_DIR", "state_dir", _path, "Directory of everything that the Director writes."),
    Key("director", "DATABASE_URI", "database_uri", _database, "SQLAlchemy URL. Default: sqlite:///<STATE_DIR>/director.db."),
    Key("director", "USERDATA_DIR", "userdata_dir", _path, "Directory of exported manifests' files. Default: <STATE_DIR>/data."),
    Key("director", "LOG_DIR", "log_dir", _path, "Directory of the log files. Default: <STATE_DIR>/log."),
    Key("director", "DIRECTOR_URL", "director_url", _url, "How clients and VMs reach the Director; its host goes into the certificate."),
    Key("director", "CERT_HOSTS", "cert_hosts", _names, "Further host names and addresses for the certificate, separated by commas."),
    Key("director", "BIND", "bind", _bind, "Address to listen on. Default: DIRECTOR_URL's host if it is a loopback address, else 0.0.0.0."),
    Key("director", "PORT", "port", _integer(0, 65535), "Port to listen on (0: any free one). Default: DIRECTOR_URL's port."),
    Key("director", "THREADS", "threads", _integer(2, 256), "Requests in progress at the same time."),
    Key("director", "DEBUG", "debug", _boolean, "Write debugging lines to the log."),
    Key(
        *("director", "REGISTRATION", "registration", _choice("open", "invitation", "closed")),
        "Who may create an account (/new_user): anybody, who has an invitation, or only the operator.",
    ),
    Key("director", "CONFIRM_EMAIL", "confirm_email", _boolean, "New accounts work once their e-mail address is confirmed."),
    Key(
        "director",
        "FRONTEND_URL",
        "frontend_url",
        _web_url,
        "Address of the web front-end, for links in messages. Default: of the one that the Director runs.",
    ),
    Key("director", "REGISTRATIONS_PER_HOUR", "registrations_per_hour", _integer(1, 10**6), "New accounts per hour and client address."),
    Key(
        *("director", "TRUSTED_PROXIES", "trusted_proxies", _addresses),
        "Addresses of front-ends and proxies whose X-Forwarded-For tells the caller's address, for throttling; separated by commas.",
    ),
    Key("director", "QUOTA_VMS", "quota_vms", _integer(0, 10**9), "Most VMs at the same time of a new account; unset: no limit."),
    Key("director", "QUOTA_APPLICATIONS", "quota_applications", _integer(0, 10**9), "Most applications of a new account; unset: no limit."),
    Key("director", "QUOTA_VOLUMES_MB", "quota_volumes_mb", _integer(0, 10**9), "Most MB of volumes of a new account; unset: no limit."),
    Key("director", "TRUST_FRONTEND", "trust_frontend", _boolean, "Honour the front-end's certificate: managers accept it for any user."),
    Key("director", "FETCH_PRIVATE", "fetch_private", _boolean, "Fetch what manifests name from addresses that are not public, too."),
    Key("director", "CREDIT_INTERVAL", "credit_interval", _integer(1, 3600), "Seconds between two passes that charge started hours."),
    Key(
        *("director", "CREDIT_WARNING_HOURS", "credit_warning_hours", _hours),
        "Users are told when their credits last no longer than this; several, separated by commas. Default: 24, 2.",
    ),
    Key(
        *("director", "EXHAUSTED_KEEP_HOURS", "exhausted_keep_hours", _integer(0, 8760)),
        "Hours that applications are kept, without their nodes, when credits are used up; 0: stop them at once. Default: 72.",
    ),
    Key("director", "SWEEP_INTERVAL", "sweep_interval", _integer(1, 86400), "Seconds between two comparisons of clouds and inventory."),
    Key("director", "NODE_TIMEOUT", "node_timeout", _integer(5, 7200), "Seconds that a new VM has to become ready."),
    Key("director", "OPERATION_WORKERS", "operation_workers", _integer(1, 64), "Applications started, stopped … at the same time."),
    Key("director", "MANAGER_PORT", "manager_port", _PORT, "Port of application managers."),
    Key("director", "AGENT_PORT", "agent_port", _PORT, "Port of agents."),
    Key("mail", "NOTIFY", "notify", _choice("log", "smtp", "command"), "How messages reach users: into the log, by e-mail, by a command."),
    Key(
        "mail",
        "NOTIFY_COMMAND",
        "notify_command",
        _text,
        "For `command`: it gets CONPAAS_TO and CONPAAS_SUBJECT, the text as input.",
    ),
    Key("mail", "MAIL_FROM", "mail_from", _text, "For `smtp`: sender of the messages. Default: conpaas@ the Director's host."),
    Key("mail", "SMTP_HOST", "smtp_host", _text, "For `smtp`: the mail server. Default: localhost."),
    Key("mail", "SMTP_PORT", "smtp_port", _PORT, "Its port. Default: 25."),
    Key(
        "mail",
        "SMTP_SECURITY",
        "smtp_security",
        _choice("none", "starttls", "tls"),
        "How the connection is protected. Default: none.",
    ),
    Key("mail", "SMTP_CA", "smtp_ca", _path, "File of the authorities that its certificate may be of. Default: those of this machine."),
    Key("mail", "SMTP_USER", "smtp_user", _optional, "User name at the mail server, if it wants one."),
    Key("mail", "SMTP_PASSWORD", "smtp_password", _optional, "The password of SMTP_USER."),
    Key("frontend", "ENABLED", "frontend_enabled", _boolean, "Run the web front-end beside the Director."),
    Key("frontend", "BIND", "frontend_bind", _bind, "Its address. Default: the Director's if that is a loopback address, else 127.0.0.1."),
    Key("frontend", "PORT", "frontend_port", _integer(0, 65535), "Its port; 0: any free one."),
    Key("frontend", "ROOT_PATH", "frontend_root_path", _root_path, "What a reverse proxy puts before every path."),
    Key("frontend", "PUBLIC_URL", "frontend_public_url", _public_url, "What people type to get to it, if not what it listens on."),
    Key("frontend", "TLS_CERT", "frontend_tls_cert", _path, "Certificate with which it serves HTTPS itself."),
    Key("frontend", "TLS_KEY", "frontend_tls_key", _path, "The private key of TLS_CERT."),
    Key(node.INNER_DEFAULT_CLOUD, "OTHER_CLOUDS", "other_clouds", _names, "Names of the sections of further clouds, separated by commas."),
)


@dataclasses.dataclass(frozen=True)
class DirectorConfig:
    """The checked configuration. Times are in seconds. `sections` holds every section's raw text, keys in lower case."""

    source: str
    conf_dir: pathlib.Path | None
    cert_dir: pathlib.Path
    state_dir: pathlib.Path
    log_dir: pathlib.Path
    userdata_dir: pathlib.Path
    database_uri: str
    director_url: str
    bind: str
    port: int
    sections: Mapping[str, Mapping[str, str]] = dataclasses.field(repr=False)
    cert_hosts: tuple[str, ...] = ()
    other_clouds: tuple[str, ...] = ()
    deployment_name: str = "conpaas"
    max_credit: int = 50
    support_external_idp: bool = False
    support_openid: bool = False
    js_debug_level: int = 0
    ajax_debug_level: int = 0
    php_debug_level: int = 0
    python_debug_level: int = 0
    threads: int = 64
    debug: bool = False
    registration: str = "open"
    registrations_per_hour: int = 20
    confirm_email: bool = False
    frontend_url: str = ""
    credit_warning_hours: tuple[int, ...] = (24, 2)
    exhausted_keep_hours: int = 72
    notify: str = "log"
    notify_command: str = ""
    mail_from: str = ""
    smtp_host: str = "localhost"
    smtp_port: int = 25
    smtp_security: str = "none"
    smtp_ca: pathlib.Path | None = None
    smtp_user: str = ""
    oidc: tuple[oidc_settings.Provider, ...] = ()
    smtp_password: str = dataclasses.field(default="", repr=False)
    trusted_proxies: tuple[str, ...] = ()
    quota_vms: int | None = None
    quota_applications: int | None = None
    quota_volumes_mb: int | None = None
    trust_frontend: bool = False
    fetch_private: bool = False
    credit_interval: int = 60
    sweep_interval: int = 60
    node_timeout: int = 300
    operation_workers: int = 4
    manager_port: int = node.MANAGER_PORT
    agent_port: int = node.AGENT_PORT
    frontend_enabled: bool = True
    frontend_bind: str = "127.0.0.1"
    frontend_port: int = DEFAULT_FRONTEND_PORT
    frontend_root_path: str = ""
    frontend_public_url: str = ""
    frontend_tls_cert: pathlib.Path | None = None
    frontend_tls_key: pathlib.Path | None = None
    warnings: tuple[str, ...] = ()

    @property
    def pages_url(self) -> str:
        """Where people find the web front-end, without a slash at the end; empty if that is not known."""
        return self.frontend_url.rstrip("/")

    @property
    def sends_mail(self) -> bool:
        """Whether messages leave this machine, and are not only written into the log."""
        return self.notify != "log"

    @property
    def host(self) -> str:
        """The host part of `director_url`, without brackets."""
        return parse.urlsplit(self.director_url).hostname or ""

    @property
    def certificate_hosts(self) -> list[str]:
        """The names and addresses that the Director's certificate must be valid for; DIRECTOR_URL's host first."""
        local = ["localhost", "127.0.0.1"] if self.bind in {"0.0.0.0", "127.0.0.1"} else []
        specific = [] if self.bind in {"0.0.0.0", "::"} else [self.bind]
        return list(dict.fromkeys([self.host, *self.cert_hosts, *specific, *local]))

    @property
    def cloud_names(self) -> tuple[str, ...]:
        """The clouds by their inside names, the default one (`iaas`) first."""
        return (node.INNER_DEFAULT_CLOUD, *(name for name in self.other_clouds if name in self.sections))

    def parser(self) -> configparser.ConfigParser:
        """A fresh parser holding the file's text, for code that wants sections (cloud drivers)."""
        parser = configparser.ConfigParser(interpolation=None)
        parser.read_dict(self.sections)
        return parser


def _read(path: pathlib.Path | None) -> dict[str, dict[str, str]]:
    parser = configparser.ConfigParser(interpolation=None, default_section="\x00none")
    if path is not None:
        try:
            parser.read_string(path.read_text(encoding="utf-8"), source=str(path))
        except OSError as error:
            raise errors.ConfigurationError(f"Cannot read the configuration file {path}: {error.strerror}.") from error
        except (configparser.Error, UnicodeDecodeError) as error:
            raise errors.ConfigurationError(f"Cannot parse the configuration file {path}: {' '.join(str(error).split())}.") from error
    return {name: {key: value.strip() for key, value in parser.items(name)} for name in parser.sections()}


def _unknown_keys(source: str, sections: Mapping[str, Mapping[str, str]]) -> list[str]:
    known = {(key.section, key.name.lower()) for key in KEYS}
    problems = []
    for section in OWN_SECTIONS:
        for name in sections.get(section, {}):
            if (section, name) not in known and name not in RETIRED[section]:
                problems.append(f"{source}: section [{section}]: '{name.upper()}' is not a key that the Director knows.")
    return problems


def _mail_problems(source: str, sections: Mapping[str, Mapping[str, str]]) -> list[str]:
    section = sections.get("mail", {})
    if section.get("notify", "").lower() == "command" and not section.get("notify_command"):
        return [f"{source}: section [mail]: NOTIFY = command needs a NOTIFY_COMMAND."]
    return []


def _cloud_problems(source: str, sections: Mapping[str, Mapping[str, str]], others: tuple[str, ...]) -> list[str]:
    problems = []
    for name in others:
        if name not in sections:
            problems.append(f"{source}: section [iaas]: OTHER_CLOUDS names '{name}', but there is no section [{name}].")
        elif name in {*OWN_SECTIONS, node.INNER_DEFAULT_CLOUD, node.DEFAULT_CLOUD}:
            problems.append(f"{source}: section [iaas]: OTHER_CLOUDS must not name '{name}', which means something else.")
        elif "driver" not in sections[name]:
            problems.append(f"{source}: section [{name}]: DRIVER is missing.")
    return problems


def _derived(values: dict[str, Any], state: pathlib.Path | None) -> None:
    """Fill in what depends on other keys."""
    base = values.setdefault("state_dir", state or DEFAULT_STATE)
    url = parse.urlsplit(values.setdefault("director_url", f"https://127.0.0.1:{DEFAULT_PORT}"))
    values.setdefault("conf_dir", None)
    values.setdefault("cert_dir", base / "certs")
    values.setdefault("log_dir", base / "log")
    values.setdefault("userdata_dir", base / "data")
    values.setdefault("database_uri", f"sqlite:///{base / 'director.db'}")
    values.setdefault("port", url.port)
    values.setdefault("mail_from", f"conpaas@{url.hostname}")
    try:
        loopback = ipaddress.ip_address(url.hostname or "").is_loopback
    except ValueError:
        loopback = url.hostname == "localhost"
    local = "127.0.0.1" if url.hostname == "localhost" else str(url.hostname)
    values.setdefault("bind", local if loopback else "0.0.0.0")
    values.setdefault("frontend_bind", local if loopback else "127.0.0.1")
    values.setdefault("frontend_url", _frontend_url(values))


def _frontend_url(values: Mapping[str, Any]) -> str:
    """The address of the front-end that the Director runs, without a slash at the end; empty if it runs none, or on any free port."""
    port = values.get("frontend_port", DEFAULT_FRONTEND_PORT)
    if not values.get("frontend_enabled", True) or not port:
        return ""
    bind = values["frontend_bind"]
    scheme = "https" if values.get("frontend_tls_cert") else "http"
    own = f"{scheme}://[{bind}]:{port}" if ":" in bind else f"{scheme}://{bind}:{port}"
    return f"{values.get('frontend_public_url') or own}{values.get('frontend_root_path', '')}"


def _evaluate(path: pathlib.Path | None, state: pathlib.Path | None) -> tuple[DirectorConfig | None, list[str]]:
    sections = _read(path)
    source = str(path) if path else "built-in defaults"
    base = path.parent.absolute() if path else (state or pathlib.Path.cwd())
    values: dict[str, Any] = {}
    problems = [*_unknown_keys(source, sections), *_mail_problems(source, sections)]
    for key in KEYS:
        text = sections.get(key.section, {}).get(key.name.lower())
        if text is None:
            continue
        try:
            values[key.field] = key.parser(text, base)
        except _Wrong as wrong:
            problems.append(f"{source}: section [{key.section}]: {key.name} must be {wrong}, not '{text}'.")
    values["oidc"], of_providers = oidc_settings.read(source, sections, base)
    problems += of_providers
    if problems:
        return None, problems
    _derived(values, state)
    sections.setdefault(node.INNER_DEFAULT_CLOUD, {}).setdefault("driver", "dummy")
    _settle_dummies(sections, values)
    offered = [name for name in ("support_external_idp", "support_openid") if values.get(name)]
    warnings = [
        f"{source}: section [conpaas]: {name.upper()} has no effect: identity providers have sections [oidc NAME]." for name in offered
    ]
    # What is wrong with one cloud must not keep the others, and the Director, from working.
    warnings += _cloud_problems(source, sections, values.get("other_clouds", ()))
    return DirectorConfig(source=source, sections=sections, warnings=tuple(warnings), **values), []


def _settle_dummies(sections: dict[str, dict[str, str]], values: Mapping[str, Any]) -> None:
    """Clouds of the embedded kind keep their VMs below STATE_DIR and leave the Director's ports alone, unless they say otherwise."""
    for name, section in sections.items():
        if name not in OWN_SECTIONS and section.get("driver", "").lower() == "dummy":
            section.setdefault("state_dir", str(values["state_dir"] / "clouds" / name))
            for key in ("agent_port", "manager_port"):
                if key in values:
                    section.setdefault(key, str(values[key]))


def find(path: pathlib.Path | None = None, state: pathlib.Path | None = None) -> pathlib.Path | None:
    """The file to read: the given one, else $DIRECTOR_CFG, else `director.cfg` in the state directory, else the classic place."""
    if path is not None:
        return path
    named = os.environ.get("DIRECTOR_CFG")
    if state is None and named:
        return pathlib.Path(named)
    candidate = CLASSIC_PATH if state is None else state / "director.cfg"
    return candidate if candidate.exists() else None


def problems(path: pathlib.Path | None = None, state: pathlib.Path | None = None) -> list[str]:
    """Everything wrong with the file, one sentence each; empty when it can be used."""
    try:
        return _evaluate(find(path, state), state)[1]
    except errors.ConfigurationError as error:
        return [str(error)]


def load(path: pathlib.Path | None = None, state: pathlib.Path | None = None) -> DirectorConfig:
    """Read and check the configuration; with neither a file nor `state`, the defaults below /var/lib/cpsdirector.

    Raises ConfigurationError naming file, section and key of the first thing wrong.
    """
    config, wrong = _evaluate(find(path, state), None if state is None else state.absolute())
    if config is None:
        more = f" (and {len(wrong) - 1} more: run 'cpsdirector check-config')" if len(wrong) > 1 else ""
        raise errors.ConfigurationError(wrong[0] + more)
    return config
