"""Everything that a command prints goes through here: results on stdout, errors and remarks on stderr."""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from conpaas.client import failures

STATE_COLOURS = {
    "RUNNING": "32", "DONE": "32",
    "PROLOGUE": "33", "ADAPTING": "33", "EPILOGUE": "33",
    "ERROR": "31", "FAILED": "31", "UNDONE": "31",
    "INIT": "2", "STOPPED": "2", "N/A": "2",
}  # fmt: skip
NAME_COLUMNS = ("name", "vol_name", "codeVersionId", "filename", "agent_id", "vmid")


class Output:
    """`form` is table, json or name; colours follow `color` (auto, always, never), the terminal and NO_COLOR."""

    def __init__(self, form: str = "table", color: str = "auto", stdout: TextIO | None = None, stderr: TextIO | None = None) -> None:
        self.form = form
        self.stdout = stdout or sys.stdout
        self.stderr = stderr or sys.stderr
        self.colours = color == "always" or (color == "auto" and self.stdout.isatty() and not os.environ.get("NO_COLOR"))
        self.error_colours = color == "always" or (color == "auto" and self.stderr.isatty() and not os.environ.get("NO_COLOR"))

    @property
    def interactive(self) -> bool:
        """True if a person sees stdout and stderr as they are written."""
        return self.stdout.isatty() and self.stderr.isatty()

    # -- results

    def show(self, text: str, data: Any = None, *, name: str | None = None) -> None:
        """Print `text`, or `data` as JSON (`text` itself without data), or `name` in the `name` form."""
        if self.form == "json":
            self.json({"text": text} if data is None else data)
        elif self.form == "name" and name is not None:
            self._line(name)
        else:
            self._line(text)

    def json(self, data: Any) -> None:
        """Print one JSON document."""
        self._line(json.dumps(data, indent=2, ensure_ascii=False, default=str))

    def text(self, text: str) -> None:
        """Print text as it is, in every form, without adding anything."""
        self._write(self.stdout, text)
        self.stdout.flush()

    def pairs(self, values: Mapping[str, Any]) -> None:
        """Print `key: value` lines; a nested object is indented under its key."""
        if self.form == "json":
            self.json(dict(values))
            return
        for key, value in values.items():
            if isinstance(value, Mapping):
                self._line(f"{key}:")
                for inner_key, inner_value in value.items():
                    self._line(f"\t{inner_key}: {inner_value}")
            else:
                self._line(f"{key}: {self.state(str(value)) if key == 'state' else value}")

    def table(self, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], empty: str, data: Any = None) -> None:
        """Print rows under their headers, or the sentence `empty` if there are none; `data` is for JSON what rows are not."""
        if self.form == "json":
            self.json([{column: row.get(column) for column in columns} for row in rows] if data is None else data)
        elif self.form == "name":
            column = next((name for name in NAME_COLUMNS if name in columns), columns[0])
            for row in rows:
                self._line(str(row.get(column)))
        elif not rows:
            self._line(empty)
        else:
            for line in self.table_lines(columns, rows):
                self._line(line)

    def table_lines(self, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> list[str]:
        """The lines of a table: numbers to the right, text to the left, one space between columns, a line of dashes."""
        cells = [[_cell(row.get(column)) for column in columns] for row in rows]
        widths = [max([width(header), *(width(row[i][0]) for row in cells)]) for i, header in enumerate(columns)]
        header = " ".join(pad(name, widths[i]) for i, name in enumerate(columns))
        lines = [header.rstrip(), "-" * (sum(widths) + len(columns) - 1)]
        for row in cells:
            shown = [self._padded(text, widths[i], right=right) for i, (text, right) in enumerate(row)]
            lines.append(" ".join(shown).rstrip())
        return lines

    def _padded(self, text: str, size: int, *, right: bool) -> str:
        padded = pad(text, size, right=right)
        return padded.replace(text, self.state(text), 1) if text in STATE_COLOURS else padded

    def state(self, state: str) -> str:
        """A state in its colour, if there are colours."""
        code = STATE_COLOURS.get(state)
        return f"\x1b[{code}m{state}\x1b[0m" if self.colours and code else state

    # -- remarks and errors

    def note(self, text: str) -> None:
        """A remark that is no result."""
        self._line(text, self.stderr)

    def warning(self, text: str) -> None:
        """A remark about something that looks wrong but does not stop the command."""
        self._line(self._error_colour(f"WARNING - {text}", "33"), self.stderr)

    def error(self, error: BaseException) -> None:
        """Print an error: one `ERROR: …` line (more if the text has more) and its hint, or a JSON object in JSON form.

        What it quotes may hold anything, but no terminal obeys it.
        """
        message = str(error) or type(error).__name__
        hint = failures.hint(error)
        if self.form == "json":
            described = {"error": message, "kind": failures.kind(error), "exit_code": int(failures.exit_code(error))}
            if hint:
                described["hint"] = hint
            self._line(json.dumps(described, ensure_ascii=False), self.stderr)
            return
        message, hint = _tamed(message), _tamed(hint or "")
        self._line(message if message.startswith("ERROR") else f"{self._error_colour('ERROR:', '31')} {message}", self.stderr)
        if hint:
            self._line(f"HINT: {hint}", self.stderr)

    def _error_colour(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.error_colours else text

    def _line(self, text: str, stream: TextIO | None = None) -> None:
        self._write(stream or self.stdout, text + "\n")

    @staticmethod
    def _write(stream: TextIO, text: str) -> None:
        """Write whatever the terminal's encoding can show of `text`."""
        try:
            stream.write(text)
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding))


def _tamed(text: str) -> str:
    """A text without control characters, except ends of lines."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def _cell(value: Any) -> tuple[str, bool]:
    """A cell's text without line breaks and control characters, and whether it stands to the right."""
    right = isinstance(value, int | float) and not isinstance(value, bool)
    return "".join(c if c.isprintable() else " " for c in str(value)), right


def width(text: str) -> int:
    """The columns that `text` takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def pad(text: str, size: int, *, right: bool = False) -> str:
    """Fill `text` up to `size` terminal columns."""
    fill = " " * max(0, size - width(text))
    return fill + text if right else text + fill
