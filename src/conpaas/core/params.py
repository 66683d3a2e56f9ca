"""Declared parameters: one declaration gives validation, error texts, command-line help and the API reference.

A request's arguments are checked with `check_arguments`; the texts of refusals are those that classic clients know.
"""

from __future__ import annotations

import abc
import collections.abc
import copy
import dataclasses
import json
import keyword
import pathlib
import re
from typing import Any, BinaryIO, Final

from conpaas.core import errors

INTEGER_LIMIT: Final = 2**63 - 1
"""Largest magnitude of an integer parameter: what a database column holds."""

_SHOWN_LENGTH: Final = 120
_NUMERIC = re.compile(r"\s*[+-]?\d{1,19}\s*", re.ASCII)
_WORD_STARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_TRUE_WORDS: Final = frozenset({"yes", "y", "true", "t", "1"})
_FALSE_WORDS: Final = frozenset({"no", "n", "false", "f", "0"})


class _Required:
    """Stands for "this parameter has no default"."""

    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Final = _Required()


@dataclasses.dataclass(frozen=True, slots=True)
class UploadedFile:
    """A file sent with an UPLOAD call, spooled to disk.

    `filename` is exactly what the client sent (it may hold a path: never use it to build one). The handler may move or
    delete `path`; whatever is left there after the reply, the server deletes.
    """

    filename: str
    path: pathlib.Path
    size: int

    def open(self) -> BinaryIO:
        """Open the content for reading."""
        return self.path.open("rb")

    def discard(self) -> None:
        """Delete the spooled file, unless the handler already moved or deleted it."""
        self.path.unlink(missing_ok=True)


def shown(value: Any) -> str:
    """The text of a value for an error message, shortened so that a reply stays small."""
    text = f"uploaded file {value.filename}" if isinstance(value, UploadedFile) else str(value)
    return text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}…"


def _wrong_type(value: Any, expected: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(f"'{shown(value)}' has type '{type(value).__name__}', should be {expected}")


class ParamType(abc.ABC):
    """What values a parameter takes. `check` raises InvalidArgument with a text that lacks the parameter's name."""

    @abc.abstractmethod
    def check(self, value: Any) -> Any:
        """Return the converted value, or raise errors.InvalidArgument saying what is wrong with it."""

    @abc.abstractmethod
    def describe(self) -> str:
        """What to pass, in a few words, for help and documentation."""

    @abc.abstractmethod
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of accepted values (in their canonical form)."""


@dataclasses.dataclass(frozen=True)
class Integer(ParamType):
    """A whole number; numeric strings are converted, booleans and fractions refused."""

    minimum: int | None = None
    maximum: int | None = None

    def check(self, value: Any) -> int:
        number = self._convert(value)
        low, high = self.minimum, self.maximum
        if low is not None and high is not None:
            if not low <= number <= high:
                raise errors.InvalidArgument(f"{number} is not between {low} and {high}")
        elif low is not None and number < low:
            raise errors.InvalidArgument(f"{number} is not more than 0" if low == 1 else f"{number} is not more or equal than {low}")
        elif high is not None and number > high:
            raise errors.InvalidArgument(f"{number} is not less or equal than {high}")
        return number

    @staticmethod
    def _convert(value: Any) -> int:
        if isinstance(value, bool):
            raise _wrong_type(value, "integer")
        if isinstance(value, int):
            number = value
        elif (isinstance(value, float) and value.is_integer()) or (isinstance(value, str) and _NUMERIC.fullmatch(value)):
            number = int(value)
        else:
            raise _wrong_type(value, "integer")
        if abs(number) > INTEGER_LIMIT:
            raise errors.InvalidArgument(f"the number is not between {-INTEGER_LIMIT} and {INTEGER_LIMIT}")
        return number

    def describe(self) -> str:
        if self.minimum is not None and self.maximum is not None:
            return f"integer between {self.minimum} and {self.maximum}"
        if self.minimum is not None:
            return "positive integer" if self.minimum == 1 else f"integer, {self.minimum} or more"
        return "integer" if self.maximum is None else f"integer, {self.maximum} or less"

    def schema(self) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "integer"}
        if self.minimum is not None:
            schema["minimum"] = self.minimum
        if self.maximum is not None:
            schema["maximum"] = self.maximum
        return schema


CONTROLS = r"[\x00-\x1f\x7f-\x9f\u2028\u2029]"
"""A pattern for what nobody can type into one line."""


@dataclasses.dataclass(frozen=True)
class Text(ParamType):
    """A string. `pattern` must match it whole; a `secret` value never appears in an error text; a `name` has no control characters, so
    that it can be typed into one line."""

    max_length: int = 65536
    pattern: str | None = None
    secret: bool = False
    non_empty: bool = False
    name: bool = False

    def check(self, value: Any) -> str:
        if not isinstance(value, str):
            raise _wrong_type("***" if self.secret else value, "string")
        text = "***" if self.secret else shown(value)
        if len(value) > self.max_length:
            raise errors.InvalidArgument(f"'{text}' is longer than {self.max_length} characters")
        if self.non_empty and not value.strip():
            raise errors.InvalidArgument(f"'{text}' should be non-empty string")
        if "\0" in value or not _is_unicode(value):
            raise errors.InvalidArgument("the text holds characters that are not allowed (NUL or half a surrogate pair)")
        if self.name and re.search(CONTROLS, value):
            raise errors.InvalidArgument("a name has no line breaks and no other control characters")
        if self.pattern is not None and not re.fullmatch(self.pattern, value):
            raise errors.InvalidArgument(f"'{text}' does not match {self.pattern}")
        return value

    def describe(self) -> str:
        kind = "secret text" if self.secret else "text"
        return f"non-empty {kind}" if self.non_empty else kind

    def schema(self) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "string", "maxLength": self.max_length}
        if self.non_empty:
            schema["minLength"] = 1
        if self.pattern is not None:
            schema["pattern"] = f"^(?:{self.pattern})$"
        if self.secret:
            schema["format"] = "password"
        return schema


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclasses.dataclass(frozen=True)
class Boolean(ParamType):
    """true or false, also as 0/1 and as the words yes, y, true, t, no, n, false, f in any case."""

    def check(self, value: Any) -> bool:
        if isinstance(value, bool | int | str):
            word = str(value).strip().lower()
            if word in _TRUE_WORDS:
                return True
            if word in _FALSE_WORDS:
                return False
        raise _wrong_type(value, "bool")

    def describe(self) -> str:
        return "true or false"

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclasses.dataclass(frozen=True)
class Choice(ParamType):
    """One of the given values, compared by equality without conversion ("1" is not 1, and true is not 1)."""

    values: collections.abc.Collection[Any]

    def check(self, value: Any) -> Any:
        if not _is_member(value, self.values):
            raise errors.InvalidArgument(f"'{shown(value)}' must be one of {list(self.values)!r}")
        return value

    def describe(self) -> str:
        return "one of " + ", ".join(str(value) for value in self.values)

    def schema(self) -> dict[str, Any]:
        return {"enum": list(self.values)}


def _is_member(value: Any, choices: collections.abc.Iterable[Any]) -> bool:
    return any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in choices)


@dataclasses.dataclass(frozen=True)
class Mapping(ParamType):
    """A JSON object; each value is checked with `value_type` if given."""

    value_type: ParamType | None = None
    max_items: int = 1000

    def check(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _wrong_type(value, "dict")
        if len(value) > self.max_items:
            raise errors.InvalidArgument(f"a dict of {len(value)} items has more than {self.max_items}")
        if self.value_type is None:
            return dict(value)
        return {key: _check_item(self.value_type, item, f"key '{shown(key)}'") for key, item in value.items()}

    def describe(self) -> str:
        return "object" if self.value_type is None else f"object of {self.value_type.describe()}"

    def schema(self) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "object", "maxProperties": self.max_items}
        if self.value_type is not None:
            schema["additionalProperties"] = self.value_type.schema()
        return schema


@dataclasses.dataclass(frozen=True)
class ListOf(ParamType):
    """A JSON list whose items are all of one type."""

    item: ParamType
    non_empty: bool = False
    max_items: int = 1000

    def check(self, value: Any) -> list[Any]:
        expected = "non-empty list" if self.non_empty else "list"
        if not isinstance(value, list | tuple) or (self.non_empty and not value):
            raise _wrong_type(value, expected)
        if len(value) > self.max_items:
            raise errors.InvalidArgument(f"a list of {len(value)} items has more than {self.max_items}")
        return [_check_item(self.item, item, f"item {index}") for index, item in enumerate(value)]

    def describe(self) -> str:
        return f"{'non-empty ' if self.non_empty else ''}list of {self.item.describe()}"

    def schema(self) -> dict[str, Any]:
        return {"type": "array", "items": self.item.schema(), "minItems": int(self.non_empty), "maxItems": self.max_items}


def _check_item(item_type: ParamType, item: Any, where: str) -> Any:
    try:
        return item_type.check(item)
    except errors.InvalidArgument as error:
        raise errors.InvalidArgument(f"{where}: {error}") from error


@dataclasses.dataclass(frozen=True)
class Json(ParamType):
    """Any JSON value, taken as it is."""

    def check(self, value: Any) -> Any:
        if isinstance(value, UploadedFile):
            raise _wrong_type(value, "a JSON value")
        return value

    def describe(self) -> str:
        return "any JSON value"

    def schema(self) -> dict[str, Any]:
        return {}


@dataclasses.dataclass(frozen=True)
class JsonText(ParamType):
    """A JSON document in a form field: the text is decoded, then checked with `content`."""

    content: ParamType = Json()

    def check(self, value: Any) -> Any:
        if not isinstance(value, str):
            raise _wrong_type(value, "a JSON document")
        try:
            document = json.loads(value, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise errors.InvalidArgument(f"'{shown(value)}' should be a JSON document ({error})") from error
        return self.content.check(document)

    def describe(self) -> str:
        return f"JSON text: {self.content.describe()}"

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "contentMediaType": "application/json", "contentSchema": self.content.schema()}


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


@dataclasses.dataclass(frozen=True)
class Upload(ParamType):
    """An uploaded file (UPLOAD calls only); the handler gets an UploadedFile."""

    def check(self, value: Any) -> UploadedFile:
        if not isinstance(value, UploadedFile):
            raise _wrong_type(value, "uploaded file")
        return value

    def describe(self) -> str:
        return "file"

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "format": "binary"}


@dataclasses.dataclass(frozen=True)
class Param:
    """One declared parameter. `name` is its name on the wire; a default is used as it is, without being checked."""

    name: str
    type: ParamType
    default: Any = REQUIRED
    help: str = ""
    arg: str = dataclasses.field(init=False, repr=False, compare=False)
    """The keyword by which the handler gets it: `name` in snake_case."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "arg", snake_case(self.name))

    @property
    def required(self) -> bool:
        """True when the parameter has no default."""
        return self.default is REQUIRED

    def resolve(self, given: collections.abc.Mapping[str, Any]) -> Any:
        """The checked value from `given`, or the default; null counts as absent where the default is None."""
        value = given.get(self.name, REQUIRED)
        if value is REQUIRED or (value is None and self.default is None):
            if self.required:
                raise errors.InvalidArgument(f"Missing the mandatory parameter '{self.name}'.")
            return copy.copy(self.default) if isinstance(self.default, dict | list) else self.default
        try:
            return self.type.check(value)
        except errors.InvalidArgument as error:
            raise errors.InvalidArgument(f"Parameter '{self.name}': {error}.") from error


def snake_case(name: str) -> str:
    """`codeVersionId` → `code_version_id`; a Python keyword gets a trailing underscore."""
    arg = _WORD_STARTS.sub("_", name).replace("-", "_").lower()
    return f"{arg}_" if keyword.iskeyword(arg) else arg


def check_arguments(params: collections.abc.Sequence[Param], given: Any) -> dict[str, Any]:
    """Check what a caller gave against the declaration; returns the handler's keyword arguments, by `Param.arg`.

    `given` is a mapping by wire name; an empty list means "nothing" (PHP encodes an empty array so). Raises InvalidArgument.
    """
    if isinstance(given, list) and not given:
        given = {}
    if not isinstance(given, collections.abc.Mapping):
        raise errors.InvalidArgument(f"The parameters must be an object by name, not '{type(given).__name__}'.")
    arguments = {param.arg: param.resolve(given) for param in params}
    declared = {param.name for param in params}
    leftovers = {name: value for name, value in given.items() if name not in declared}
    if leftovers:
        raise errors.InvalidArgument(f"Unexpected parameters: {shown(leftovers)}.")
    return arguments


def must_be_one_of(name: str, value: Any, choices: collections.abc.Collection[Any]) -> None:
    """Raise InvalidArgument unless `value` is among `choices`."""
    if not _is_member(value, choices):
        raise errors.InvalidArgument(f"Parameter '{name}': '{shown(value)}' must be one of {list(choices)!r}.")


def must_not_be_one_of(name: str, value: Any, choices: collections.abc.Collection[Any]) -> None:
    """Raise InvalidArgument if `value` is among `choices`."""
    if _is_member(value, choices):
        raise errors.InvalidArgument(f"Parameter '{name}': '{shown(value)}' must not be one of {list(choices)!r}.")
