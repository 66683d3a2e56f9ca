"""Every error that ConPaaS raises on purpose: one sentence that names the thing, and the way out."""

from __future__ import annotations

import errno
from typing import Final


class ConPaaSError(Exception):
    """An error meant for a person; its text is one sentence, `hint` (optional) says what to do next."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class InvalidArgument(ConPaaSError):
    """A parameter is missing, unknown, of the wrong type or out of range."""


class WrongState(ConPaaSError):
    """The service or application is not in a state that allows the request."""


class NotFound(ConPaaSError):
    """The thing named in the request does not exist (or is not the caller's to see)."""


class Forbidden(ConPaaSError):
    """The caller is known but may not do this."""


class Unauthenticated(ConPaaSError):
    """The caller did not prove who it is."""


class TooLarge(ConPaaSError):
    """A body, file or archive exceeds its limit."""


class InsufficientCredits(ConPaaSError):
    """The user has no credit left for another node."""

    def __init__(self, message: str = "Insufficient credits", *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)


class ConfigurationError(ConPaaSError):
    """A configuration file is missing, unreadable or wrong."""


class OperationFailed(ConPaaSError):
    """An operation on a service or application failed; the text says at what and why."""


class StorageFull(ConPaaSError):
    """There is no room left on a disk that the request needs."""

    CODES: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
    """How the operating system says so."""


class RemoteError(ConPaaSError):
    """A peer answered with an error. `peer` is its address, `method` what was called."""

    def __init__(self, message: str, *, peer: str = "", method: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.peer = peer
        self.method = method


class Unreachable(RemoteError):
    """A peer gave no answer: refused, timed out, or not the peer it should be."""


class CloudError(ConPaaSError):
    """A cloud refused or failed a request."""


class QuotaExceeded(CloudError):
    """The request would exceed what the cloud or the operator allows."""
