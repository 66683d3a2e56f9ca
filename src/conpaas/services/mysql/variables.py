"""The server variables that users may change, and the form of their values: nothing else ever reaches the server or its configuration.

Left out is what endangers durability, replication, files, logs or accounts, and what decides which data a statement means on one node only.
"""

from __future__ import annotations

import dataclasses
import decimal
import enum
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from conpaas.core import errors, params

_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_K, _M, _G = 1 << 10, 1 << 20, 1 << 30
_INTEGER: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
_SIZE: Final = re.compile(r"([0-9]{1,18})([KMG]?)", re.ASCII)
_DECIMAL: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,6})?", re.ASCII)
_ZONE: Final = re.compile(r"[+-](?:0[0-9]|1[0-3]):[0-5][0-9]", re.ASCII)
_COLLATION: Final = re.compile(r"[a-z0-9]+(?:_[a-z0-9]+)*", re.ASCII)
_COLLATION_LENGTH: Final = 64
_OPTIONS: Final = {"time_zone": "default_time_zone"}
POOL: Final = "innodb_buffer_pool_size"
_POOL_CHUNK: Final = 128 * _M
CHARACTER_SETS: Final = ("ascii", "big5", "binary", "cp1250", "cp1251", "cp1252", "gbk", "latin1", "latin2", "utf8mb3", "utf8mb4")
SQL_MODES: Final = (
    *("ALLOW_INVALID_DATES", "ANSI_QUOTES", "EMPTY_STRING_IS_NULL", "ERROR_FOR_DIVISION_BY_ZERO", "HIGH_NOT_PRECEDENCE"),
    *("IGNORE_SPACE", "NO_AUTO_CREATE_USER", "NO_AUTO_VALUE_ON_ZERO", "NO_BACKSLASH_ESCAPES", "NO_DIR_IN_CREATE"),
    *("NO_ENGINE_SUBSTITUTION", "NO_UNSIGNED_SUBTRACTION", "NO_ZERO_DATE", "NO_ZERO_IN_DATE", "ONLY_FULL_GROUP_BY"),
    *("PAD_CHAR_TO_FULL_LENGTH", "PIPES_AS_CONCAT", "REAL_AS_FLOAT", "SIMULTANEOUS_ASSIGNMENT", "STRICT_ALL_TABLES"),
    *("STRICT_TRANS_TABLES", "TIME_ROUND_FRACTIONAL"),
)


class Kind(enum.StrEnum):
    """What values a variable takes."""

    INTEGER = "number"
    SIZE = "size"
    DECIMAL = "decimal number"
    SWITCH = "switch"
    CHOICE = "choice"
    MODES = "SQL modes"
    ZONE = "time zone"
    COLLATION = "collation"


@dataclasses.dataclass(frozen=True)
class Variable:
    """One server variable. `dynamic`: it changes while the server runs; otherwise the server has to be started again."""

    name: str
    kind: Kind
    help: str
    minimum: int = 0
    maximum: int = 0
    choices: tuple[str, ...] = ()
    unit: str = ""
    step: int = 1
    dynamic: bool = True

    def describe(self) -> str:
        """What to give, in a few words."""
        if self.kind is Kind.SIZE:
            return f"a size from {shown_size(self.minimum)} to {shown_size(self.maximum)}, such as 512K, 64M or 1G"
        if self.kind in (Kind.INTEGER, Kind.DECIMAL):
            return f"a {self.kind} from {self.minimum} to {self.maximum}" + (f" ({self.unit})" if self.unit else "")
        fixed = {Kind.SWITCH: "ON or OFF", Kind.ZONE: "SYSTEM or an offset such as +02:00", Kind.COLLATION: "the name of a collation"}
        if self.kind is Kind.MODES:
            return f"some of {', '.join(self.choices)}, separated by commas"
        return fixed.get(self.kind) or f"one of {', '.join(self.choices)}"

    def to_dict(self) -> dict[str, Any]:
        """How it is listed for a person."""
        return {"name": self.name, "kind": str(self.kind), "values": self.describe(), "dynamic": self.dynamic, "help": self.help}


def _integer(name: str, minimum: int, maximum: int, help: str, unit: str = "", dynamic: bool = True) -> Variable:
    return Variable(name, Kind.INTEGER, help, minimum, maximum, unit=unit, dynamic=dynamic)


def _size(name: str, minimum: int, maximum: int, help: str, step: int = 1024, dynamic: bool = True) -> Variable:
    return Variable(name, Kind.SIZE, help, minimum, maximum, unit="bytes", step=step, dynamic=dynamic)


def _decimal(name: str, minimum: int, maximum: int, help: str, unit: str = "s") -> Variable:
    return Variable(name, Kind.DECIMAL, help, minimum, maximum, unit=unit)


def _switch(name: str, help: str, dynamic: bool = True) -> Variable:
    return Variable(name, Kind.SWITCH, help, dynamic=dynamic)


def _choice(name: str, help: str, *choices: str, dynamic: bool = True) -> Variable:
    return Variable(name, Kind.CHOICE, help, choices=choices, dynamic=dynamic)


CATALOGUE: Final[Mapping[str, Variable]] = {
    one.name: one
    for one in (
        _integer("max_connections", 10, 10_000, "Sessions at once."),
        _integer("max_user_connections", 0, 10_000, "Sessions of one user at once; 0 is no limit of its own.", dynamic=False),
        _integer("max_connect_errors", 1, 1_000_000_000, "Failed connections of a host in a row until it is blocked."),
        _integer("back_log", 10, 65_535, "Connections that may wait to be accepted.", dynamic=False),
        _integer("wait_timeout", 10, 31_536_000, "How long a session may be idle.", "s"),
        _integer("interactive_timeout", 10, 31_536_000, "The same for a session of a person at a terminal.", "s"),
        _integer("connect_timeout", 2, 3_600, "How long a client may take to log in.", "s"),
        _integer("net_read_timeout", 1, 3_600, "How long the server waits for more of a statement.", "s"),
        _integer("net_write_timeout", 1, 3_600, "How long a client may take to accept an answer.", "s"),
        _decimal("max_statement_time", 0, 31_536_000, "How long a statement may take; 0 is no limit."),
        _size("max_allowed_packet", 1 * _M, 1 * _G, "The longest statement or row."),
        _size("net_buffer_length", 1 * _K, 1 * _M, "What the buffer of a connection begins with."),
        _size(POOL, 16 * _M, 1024 * _G, "Memory for data and indexes; rounded up by the server.", step=_M),
        _integer("innodb_lock_wait_timeout", 1, 3_600, "How long a transaction waits for a lock of a row.", "s"),
        _integer("lock_wait_timeout", 1, 31_536_000, "How long a statement waits for a change of a table's form.", "s"),
        _switch("innodb_rollback_on_timeout", "Undo a whole transaction that waited too long, not its last statement only.", dynamic=False),
        _switch("innodb_print_all_deadlocks", "Put every deadlock into the server's log."),
        _size("innodb_sort_buffer_size", 64 * _K, 64 * _M, "Memory to build an index with.", dynamic=False),
        _integer("innodb_ft_min_token_size", 1, 16, "The shortest word in a full-text index.", "characters", dynamic=False),
        _integer("innodb_ft_max_token_size", 10, 84, "The longest word in a full-text index.", "characters", dynamic=False),
        _integer("innodb_stats_persistent_sample_pages", 1, 100_000, "Pages that the statistics of an index are made from."),
        _size("tmp_table_size", 16 * _K, 4 * _G, "The largest temporary table in memory.", step=16 * _K),
        _size("max_heap_table_size", 16 * _K, 4 * _G, "The largest table in memory."),
        _size("sort_buffer_size", 32 * _K, 1 * _G, "Memory to sort with, for each session that sorts."),
        _size("join_buffer_size", 1 * _K, 1 * _G, "Memory to join without an index, for each session that does."),
        _size("read_buffer_size", 8 * _K, 256 * _M, "Memory to read whole tables through.", step=4 * _K),
        _size("read_rnd_buffer_size", 8 * _K, 256 * _M, "Memory to read sorted rows through.", step=1),
        _size("query_cache_size", 0, 256 * _M, "Memory for answers of former queries; 0 is best with many processors."),
        _size("query_cache_limit", 0, 64 * _M, "The largest answer that is kept."),
        _integer("table_open_cache", 10, 1_000_000, "Open tables that are kept."),
        _integer("table_definition_cache", 400, 1_000_000, "Definitions of tables that are kept."),
        _integer("thread_cache_size", 0, 16_384, "Threads that are kept for new sessions."),
        _integer("max_prepared_stmt_count", 0, 1_048_576, "Prepared statements of all sessions."),
        _integer("group_concat_max_len", 4, 1_073_741_824, "The longest answer of GROUP_CONCAT.", "bytes"),
        _integer("max_sort_length", 64, 8_388_608, "How much of a long value counts in sorting.", "bytes"),
        _integer("max_length_for_sort_data", 4, 8_388_608, "Rows up to this length are sorted whole.", "bytes"),
        _integer("ft_min_word_len", 1, 84, "The shortest word in a full-text index of tables other than InnoDB.", dynamic=False),
        _integer("div_precision_increment", 0, 30, "Digits added by a division."),
        _integer("optimizer_search_depth", 0, 62, "How many tables deep plans are compared."),
        _switch("slow_query_log", "Write slow statements to a log of their own."),
        _decimal("long_query_time", 0, 31_536_000, "From when on a statement is slow."),
        _integer("min_examined_row_limit", 0, 1_000_000_000, "A statement that looks at fewer rows is not slow."),
        _switch("log_queries_not_using_indexes", "Statements that use no index count as slow."),
        _integer("log_slow_rate_limit", 1, 1_000_000, "Log one of so many slow statements."),
        _integer("log_warnings", 0, 4, "How much goes into the server's log."),
        _switch("performance_schema", "Measure everything; takes memory and some speed.", dynamic=False),
        _switch("userstat", "Count work by user, table and index."),
        Variable("sql_mode", Kind.MODES, "How strict the server is, and which dialect it speaks.", choices=SQL_MODES),
        Variable("time_zone", Kind.ZONE, "The time zone of sessions that choose none."),
        _choice("character_set_server", "The character set of new databases.", *CHARACTER_SETS),
        Variable("collation_server", Kind.COLLATION, "The order of text in new databases; goes with character_set_server."),
        _choice("query_cache_type", "Which answers are kept.", "OFF", "ON", "DEMAND"),
        _switch("explicit_defaults_for_timestamp", "TIMESTAMP columns have no hidden defaults."),
        _switch("innodb_strict_mode", "Refuse tables whose rows could become too long."),
        _integer("default_week_format", 0, 7, "How WEEK() counts."),
    )
}


def check(name: str, value: Any) -> str:
    """The value of a variable in its one normal form: bytes for a size, ON or OFF for a switch. Whole numbers and booleans are taken too.

    Raises InvalidArgument that names the variable and tells what it takes.
    """
    variable = find(name)
    text = _CHECKS[variable.kind](variable, _as_text(value))
    if text is None:
        raise errors.InvalidArgument(f"The variable {name} takes {variable.describe()}, not '{params.shown(value)}'.")
    return text


def check_all(values: Mapping[str, Any]) -> dict[str, str]:
    """All variables checked, in the order of the catalogue.

    What is not given is not in the answer, except the character set of a collation: a server does not start with another one's.
    """
    found = {name: check(name, value) for name, value in values.items()}
    charset, collation = found.get("character_set_server"), found.get("collation_server")
    if charset and collation and collation.partition("_")[0] != charset:
        raise errors.InvalidArgument(f"The collation {collation} does not belong to the character set {charset}.")
    if collation and not charset:
        found["character_set_server"] = collation.partition("_")[0]
    return {name: found[name] for name in CATALOGUE if name in found}


def options(values: Mapping[str, str]) -> dict[str, str]:
    """Checked values by the names that they have in the server's configuration."""
    return {_OPTIONS.get(name, name): value for name, value in values.items()}


def find(name: str) -> Variable:
    """A variable by its name. Raises InvalidArgument if users may not change it."""
    if name not in CATALOGUE:
        raise errors.InvalidArgument(
            f"'{params.shown(name)}' is not among the server variables that can be changed.", hint=f"they are {', '.join(CATALOGUE)}"
        )
    return CATALOGUE[name]


def same(name: str, wanted: str, told: str) -> bool:
    """Whether a checked value is in force, where the server tells `told`, in its own words."""
    variable = find(name)
    if variable.kind is Kind.DECIMAL:
        return decimal.Decimal(wanted) == decimal.Decimal(told)
    if variable.kind is Kind.MODES:
        return set(wanted.split(",")) == set(told.split(","))
    if variable.kind is Kind.SIZE:
        # The server rounds some sizes to steps of its own, that of the buffer pool up.
        return 0 <= int(told) - int(wanted) < _POOL_CHUNK if name == POOL else abs(int(wanted) - int(told)) < variable.step
    return wanted.upper() == {"1": "ON", "0": "OFF"}.get(told, told).upper() if variable.kind is Kind.SWITCH else wanted == told


def shown_size(size: int) -> str:
    """A number of bytes with the largest suffix that leaves it whole."""
    suffix = next((one for one in "GMK" if size and size % _UNITS[one] == 0), "")
    return f"{size // _UNITS[suffix]}{suffix}"


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "ON" if value else "OFF"
    return str(value).strip() if isinstance(value, str | int | float) else type(value).__name__


def _check_integer(variable: Variable, text: str) -> str | None:
    if not _INTEGER.fullmatch(text):
        return None
    number = int(text)
    return str(number) if variable.minimum <= number <= variable.maximum else None


def _check_size(variable: Variable, text: str) -> str | None:
    found = _SIZE.fullmatch(text.upper())
    if found is None:
        return None
    size = int(found[1]) * _UNITS[found[2]]
    if not variable.minimum <= size <= variable.maximum:
        return None
    return str(max(size // variable.step * variable.step, variable.minimum))


def _check_decimal(variable: Variable, text: str) -> str | None:
    if not _DECIMAL.fullmatch(text):
        return None
    number = decimal.Decimal(text)
    return format(number.normalize(), "f") if variable.minimum <= number <= variable.maximum else None


def _check_switch(variable: Variable, text: str) -> str | None:
    return {"on": "ON", "1": "ON", "yes": "ON", "true": "ON", "off": "OFF", "0": "OFF", "no": "OFF", "false": "OFF"}.get(text.lower())


def _check_choice(variable: Variable, text: str) -> str | None:
    return next((one for one in variable.choices if one.lower() == text.lower()), None)


def _check_modes(variable: Variable, text: str) -> str | None:
    words = {word.strip().upper() for word in text.split(",") if word.strip()}
    return ",".join(sorted(words)) if words <= set(variable.choices) else None


def _check_zone(variable: Variable, text: str) -> str | None:
    return "SYSTEM" if text.upper() == "SYSTEM" else text if _ZONE.fullmatch(text) else None


def _check_collation(variable: Variable, text: str) -> str | None:
    word = text.lower()
    known = len(word) <= _COLLATION_LENGTH and _COLLATION.fullmatch(word) and word.partition("_")[0] in CHARACTER_SETS
    return word if known else None


_CHECKS: Final[Mapping[Kind, Callable[[Variable, str], str | None]]] = {
    Kind.INTEGER: _check_integer,
    Kind.SIZE: _check_size,
    Kind.DECIMAL: _check_decimal,
    Kind.SWITCH: _check_switch,
    Kind.CHOICE: _check_choice,
    Kind.MODES: _check_modes,
    Kind.ZONE: _check_zone,
    Kind.COLLATION: _check_collation,
}
