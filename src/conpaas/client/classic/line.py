"""What the commands of `cpsclient` share: how its command line is read, and how it tells what it does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from conpaas.client import session
from conpaas.core import errors

PROGRAM = "cpsclient"
Arguments = Sequence[str]


class Usage(Exception):
    """The command line makes no sense."""


def number(text: str) -> int:
    """An id on the command line."""
    try:
        return int(text)
    except ValueError as error:
        raise errors.InvalidArgument(f"'{text}' is not an id") from error


@contextlib.contextmanager
def doing(run: session.Session, sentence: str) -> Iterator[None]:
    """Print what is being done, then `done.` or `failed.`."""
    run.out.show(sentence)
    try:
        yield
    except errors.ConPaaSError:
        run.out.show("failed.")
        raise
    run.out.show("done.")
