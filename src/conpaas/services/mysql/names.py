"""Names, passwords and privileges that come from outside: checked here, and quoted for the place in a statement that takes no parameter."""

from __future__ import annotations

import hashlib
import ipaddress
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from conpaas.core import errors, params

SYSTEM_SCHEMAS: Final = ("information_schema", "mysql", "performance_schema", "sys")
LOADER: Final = "conpaas_load"
"""How the names of the accounts begin that dumps are loaded as. They own what dumps define, and can log in only while one is loaded."""
RESERVED_USERS: Final = frozenset({"root", "mysql", "mariadb.sys"})
EVERY: Final = "*"
"""In place of a database's name: every database there is or will be, without the system schemas."""
ANY_HOST: Final = "%"
DEFAULT_USER: Final = "mysqldb"

ALL: Final = "all"
READ: Final = "read"
PRIVILEGES: Final[Mapping[str, str]] = {ALL: "ALL PRIVILEGES", READ: "SELECT, SHOW VIEW"}
"""What a user may be given on a database. GRANT OPTION is in neither: who may do what is decided in one place."""
WRITING: Final = (
    "INSERT, UPDATE, DELETE, CREATE, DROP, REFERENCES, INDEX, ALTER, CREATE TEMPORARY TABLES, LOCK TABLES, EXECUTE, CREATE VIEW, "
    "CREATE ROUTINE, ALTER ROUTINE, EVENT, TRIGGER, DELETE HISTORY"
)
"""What `all` has and `read` has not."""

PASSWORD_MINIMUM: Final = 8
_PASSWORD_MAXIMUM: Final = 1024
_DATABASE_LENGTH: Final = 64
_USER_LENGTH: Final = 80
_MANGLED: Final = "#mysql50#"
_UNDUMPABLE: Final = frozenset("/\\'\"")
"""A database whose name holds a quote cannot be dumped by MariaDB's program; slashes are for the names of files."""
_SCRATCH: Final = re.compile(r".*__load_[0-9a-f]{8}\Z", re.DOTALL)
_HOST: Final = re.compile(r"[A-Za-z0-9%_](?:[A-Za-z0-9%_.-]{0,252}[A-Za-z0-9%_])?\Z")
_PATTERN_SPECIAL: Final = re.compile(r"([\\_%])")
_PATTERN_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)


def check_database(name: str) -> str:
    """The name of a database that a user may have. Raises InvalidArgument that tells what is wrong with it."""
    _check_text("name of a database", name, _DATABASE_LENGTH)
    if name.lower() in SYSTEM_SCHEMAS:
        raise errors.InvalidArgument(f"The database '{name}' belongs to the server.")
    if name.lower().startswith(_MANGLED):
        raise errors.InvalidArgument(f"The name of a database cannot begin with '{_MANGLED}'.")
    if name == EVERY or _UNDUMPABLE & set(name):
        raise errors.InvalidArgument(f"The name of a database cannot be '{EVERY}' or hold quotes or slashes, as {name} does.")
    if _SCRATCH.match(name):
        raise errors.InvalidArgument(f"Databases with names such as '{params.shown(name)}' are made while a dump is loaded.")
    return name


def check_user(name: str, reserved: Collection[str] = ()) -> str:
    """The name of a user who is not one of the server's own; `reserved` are further names of that kind."""
    _check_text("name of a user", name, _USER_LENGTH)
    if is_reserved(name, reserved):
        raise errors.InvalidArgument(f"The user '{name}' belongs to the server.")
    return name


def is_reserved(name: str, reserved: Collection[str] = ()) -> bool:
    """Whether an account is the server's own or ours."""
    return not name or name.lower() in RESERVED_USERS or name in reserved or name.lower().startswith(LOADER)


def check_host(host: str) -> str:
    """Where a user may come from: `%`, an address, a network (`10.0.0.0/255.255.0.0`), or a name with `%` and `_` as wildcards."""
    address, slash, mask = host.partition("/")
    try:
        if slash:
            ipaddress.IPv4Network(host)
            if "." not in mask:
                raise ValueError("the length of a prefix in place of a mask")
        elif ":" in host:
            ipaddress.IPv6Address(address)
        elif not _HOST.match(host):
            raise ValueError("neither a name nor an address")
    except ValueError as error:
        wanted = "'%', an address, a network with its mask, or the name of a host"
        raise errors.InvalidArgument(f"A user can come from {wanted}, not from '{params.shown(host)}'.") from error
    return host


def check_password(password: str) -> str:
    """Any text of at least 8 characters. The password is in no error text."""
    if len(password) < PASSWORD_MINIMUM:
        raise errors.InvalidArgument("Password too short", hint=f"it must have at least {PASSWORD_MINIMUM} characters")
    if len(password) > _PASSWORD_MAXIMUM:
        raise errors.InvalidArgument(f"The password is longer than {_PASSWORD_MAXIMUM} characters.")
    if any(unicodedata.category(character) == "Cs" or character in "\0\r\n" for character in password):
        raise errors.InvalidArgument("The password holds characters that are not allowed (NUL, ends of lines or half a surrogate pair).")
    return password


def check_privileges(privileges: str) -> str:
    if privileges not in PRIVILEGES:
        raise errors.InvalidArgument(f"The privileges must be one of {', '.join(PRIVILEGES)}, not '{params.shown(privileges)}'.")
    return privileges


def check_grant_target(name: str) -> str:
    """The name of a database, or `*`."""
    return name if name == EVERY else check_database(name)


def password_hash(password: str) -> str:
    """What the server keeps of a password. Only this is ever sent to it, as statements may come into logs and the list of processes."""
    inner = hashlib.sha1(password.encode(), usedforsecurity=False).digest()
    return "*" + hashlib.sha1(inner, usedforsecurity=False).hexdigest().upper()


def identifier(name: str) -> str:
    """A name in backquotes."""
    return "`" + name.replace("`", "``") + "`"


def grant_pattern(database: str) -> str:
    """What stands before `.*` in a GRANT, where `_` and `%` are wildcards unless they are escaped."""
    return identifier("%" if database == EVERY else _escaped(database))


def stored_pattern(database: str) -> str:
    """The same as it is in the server's tables, without backquotes."""
    return "%" if database == EVERY else _escaped(database)


def database_of(pattern: str) -> str:
    """The database that a stored pattern means; the inverse of `stored_pattern`."""
    return EVERY if pattern == "%" else _PATTERN_ESCAPE.sub(r"\1", pattern)


def scratch(database: str, token: str) -> str:
    """The name of the schema that a dump for a database is loaded into first; `token` is 8 hexadecimal digits."""
    suffix = f"__load_{token}"
    return database[: _DATABASE_LENGTH - len(suffix)] + suffix


def loader(database: str | None) -> str:
    """The account that dumps for one database, or for all, are loaded as."""
    return LOADER if database is None else f"{LOADER}_{hashlib.sha256(database.encode()).hexdigest()[:16]}"


def is_scratch(name: str) -> bool:
    return _SCRATCH.match(name) is not None


def users_own(databases: Iterable[str]) -> list[str]:
    """Those of the server's databases that are the users', in order."""
    return sorted(one for one in databases if one.lower() not in SYSTEM_SCHEMAS and not is_scratch(one))


def _escaped(database: str) -> str:
    return _PATTERN_SPECIAL.sub(r"\\\1", database)


def _check_text(what: str, name: str, length: int) -> None:
    if not 0 < len(name) <= length:
        raise errors.InvalidArgument(f"The {what} must have from 1 to {length} characters, not {len(name)}.")
    bad = next((one for one in name if unicodedata.category(one)[0] == "C" or ord(one) > 0xFFFF), None)
    if bad is not None:
        raise errors.InvalidArgument(f"The {what} holds a character that is not allowed ({bad!r}).")
    if name.strip() != name:
        raise errors.InvalidArgument(f"The {what} cannot begin or end with a space.")
