"""Passwords: argon2id hashes, checked by a few threads at a time.

One check costs about 12 MB and some tens of milliseconds on purpose. At most `AT_ONCE` run together and `WAITING` more may
wait; the next one is refused at once, so that a flood of logins can neither use up the memory nor all request threads.
"""

from __future__ import annotations

import contextlib
import threading
import unicodedata
from collections.abc import Iterator

import argon2
from argon2 import exceptions

from conpaas.core import errors

AT_ONCE = 2
WAITING = 12
MINIMUM_LENGTH = 8
MAXIMUM_LENGTH = 1024

_hasher = argon2.PasswordHasher(time_cost=3, memory_cost=12 * 1024, parallelism=1)
_working = threading.BoundedSemaphore(AT_ONCE)
_admitted = threading.BoundedSemaphore(AT_ONCE + WAITING)
# The hash of no password: checked for unknown users, so that they take as long as known ones.
_NOBODY = "$argon2id$v=19$m=12288,t=3,p=1$ss7vj2/JVSIC4MJgokumAw$+zdr6Qp55OvCSrxKLLvzdixSyyovgoUPvI4H75LoPrM"


@contextlib.contextmanager
def _turn() -> Iterator[None]:
    if not _admitted.acquire(blocking=False):
        raise errors.OperationFailed("The Director is busy checking passwords.", hint="Try again in a few seconds.")
    try:
        with _working:
            yield
    finally:
        _admitted.release()


def check_new(password: str) -> None:
    """Raise InvalidArgument unless the text may become a password."""
    if len(password) < MINIMUM_LENGTH:
        raise errors.InvalidArgument(f"The password is too short: it takes at least {MINIMUM_LENGTH} characters.")
    if len(password) > MAXIMUM_LENGTH:
        raise errors.InvalidArgument(f"The password is too long: it takes at most {MAXIMUM_LENGTH} characters.")
    if _bytes(password) is None:
        raise errors.InvalidArgument("The password is not valid text.")


def _bytes(password: str) -> bytes | None:
    """What is hashed: the same for the same characters, however a keyboard composes them. None for what is no text."""
    try:
        return unicodedata.normalize("NFC", password).encode()
    except UnicodeEncodeError:
        return None


def make_hash(password: str) -> str:
    """The text to store for a password that `check_new` accepts."""
    with _turn():
        return _hasher.hash(_bytes(password) or b"")


def verify(stored: str | None, password: str) -> bool:
    """Whether `password` is the stored one; None (no such user) takes the same time and is False."""
    typed = _bytes(password)
    if len(password) > MAXIMUM_LENGTH or not typed:
        return False
    with _turn():
        try:
            return _hasher.verify(stored or _NOBODY, typed) and stored is not None
        except (exceptions.VerificationError, exceptions.InvalidHash):
            return False


def outdated(stored: str) -> bool:
    """Whether a stored hash was made with other parameters than today's and should be made anew at the next login."""
    return _hasher.check_needs_rehash(stored)
