"""Configuration files from templates: an unknown name is an error, and every value passes a filter of the place it lands in."""

from __future__ import annotations

import functools
import re
from typing import Any, Final
from xml.sax import saxutils

import jinja2

from conpaas.core import errors, params

_NOT_IN_INI: Final = frozenset('"$\\')
_NOT_IN_OPTION_FILES: Final = frozenset("\"'\\")
_WORD: Final = re.compile(r"[A-Za-z0-9_.:+/=-]{1,512}")


def render(package: str, template: str, **values: Any) -> str:
    """The text of a template of a package. Raises InvalidArgument when a value cannot stand where it should."""
    return _environment(package).get_template(template).render(**values)


@functools.cache
def _environment(package: str) -> jinja2.Environment:
    made = jinja2.Environment(  # noqa: S701 - the results are configuration files; what lands in XML passes `xml`
        undefined=jinja2.StrictUndefined,
        loader=jinja2.PackageLoader(package),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update(ini=ini, number=number, option=option, quoted=quoted, word=word, xml=xml)
    return made


def ini(value: object) -> str:
    """A value in quotes for a file that PHP's own INI reader reads; it has no way to write some characters, which are refused."""
    text = str(value)
    if any(not letter.isprintable() or letter in _NOT_IN_INI for letter in text):
        raise errors.InvalidArgument(f"'{params.shown(text)}' cannot stand in a configuration of php-fpm.")
    return f'"{text}"'


def option(value: object) -> str:
    """A value in quotes for an option file of MariaDB. Quotes and backslashes, which its readers disagree on, are refused."""
    text = str(value)
    if not text.isprintable() or any(letter in _NOT_IN_OPTION_FILES for letter in text):
        raise errors.InvalidArgument(f"'{params.shown(text)}' cannot stand in a configuration of the database server.")
    return f'"{text}"'


def word(value: object) -> str:
    """A word that no configuration file takes for anything else: an address, a secret."""
    text = str(value)
    if not _WORD.fullmatch(text):
        raise errors.InvalidArgument("A value of this configuration holds characters that it must not.")
    return text


def quoted(value: object) -> str:
    """A value in double quotes, with escapes as in C (redis)."""
    text = str(value)
    if not text.isprintable():
        raise errors.InvalidArgument(f"'{params.shown(text)}' cannot stand in a configuration.")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def number(value: object) -> str:
    """A whole number."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise errors.InvalidArgument(f"'{params.shown(value)}' is not a whole number.")
    return str(value)


def xml(value: object) -> str:
    """A value in quotes for an attribute of an XML document."""
    text = str(value)
    if any(not letter.isprintable() for letter in text):
        raise errors.InvalidArgument(f"'{params.shown(text)}' cannot stand in an XML document.")
    return saxutils.quoteattr(text)
