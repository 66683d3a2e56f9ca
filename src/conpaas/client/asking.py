"""Questions to a person on the terminal."""

from __future__ import annotations

import getpass
import sys

from conpaas.core import errors


def secret(prompt: str = "Password: ", *, confirm: bool = False, again: str = "Retype password: ") -> str:
    """Ask for a secret without showing it, twice with `confirm` until both are equal."""
    while True:
        try:
            first = getpass.getpass(prompt)
            if not confirm or getpass.getpass(again) == first:
                return first
        except EOFError as error:
            raise errors.InvalidArgument("No password was given.") from error
        sys.stderr.write("Passwords do not match. Try again\n")


def line(prompt: str, default: str = "") -> str:
    """Ask for a line of text until it is not empty; an empty answer means `default`."""
    shown = f"{prompt}[{default}] " if default else prompt
    while True:
        sys.stderr.write(shown)
        sys.stderr.flush()
        answer = sys.stdin.readline()
        if not answer:
            raise errors.InvalidArgument(f"No answer to '{prompt.strip()}'.")
        if answer.strip() or default:
            return answer.strip() or default


def password_from_stdin() -> str:
    """The first line of standard input."""
    password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise errors.InvalidArgument("Standard input has no password.")
    return password


def secret_from_stdin(prompt: str) -> str:
    """The next line of standard input."""
    answer = sys.stdin.readline()
    if not answer:
        raise errors.InvalidArgument(f"Standard input has no line to answer '{prompt.strip()}'.")
    return answer.rstrip("\r\n")
