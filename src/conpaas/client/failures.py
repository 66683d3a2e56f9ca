"""The client's own errors, and the exit code that each error ends a command with."""

from __future__ import annotations

import enum
import re

from conpaas.core import errors


class ExitCode(enum.IntEnum):
    """What a command's exit code tells a script."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    NOT_FOUND = 3
    AUTHENTICATION = 4
    TIMEOUT = 5
    INTERRUPTED = 130


class TimedOut(errors.ConPaaSError):
    """What was waited for did not happen within --timeout; it may still happen."""


class BadUsage(errors.InvalidArgument):
    """The command line itself makes no sense."""


class Finished(Exception):
    """Ends the command with `code`, everything having been said already."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


_NOT_FOUND_TEXTS = re.compile(
    r"^(Unknown (application|service|cloud|service type|node|code version)\b|Application( \d+)? not found|Invalid service_id"
    r"|Service not found|No existing applications|The appid .* does not exist|Invalid codeVersionId|No startup script)",
    re.IGNORECASE,
)
_AUTHENTICATION_TEXTS = re.compile(r"(User authentication failed|user certificates are not present|SSL certificate failed verification)")


def exit_code(error: BaseException) -> ExitCode:
    """Tell the exit code for `error`; what the servers say only in words is recognised by their fixed texts."""
    if isinstance(error, TimedOut | BadUsage):
        return ExitCode.TIMEOUT if isinstance(error, TimedOut) else ExitCode.USAGE
    if isinstance(error, errors.NotFound) or _NOT_FOUND_TEXTS.match(str(error)):
        return ExitCode.NOT_FOUND
    if isinstance(error, errors.Unauthenticated | errors.Forbidden) or _AUTHENTICATION_TEXTS.search(str(error)):
        return ExitCode.AUTHENTICATION
    return ExitCode.FAILURE


def kind(error: BaseException) -> str:
    """A stable word for machine output: `not_found`, `authentication`, `timeout`, `unreachable`, `failure`."""
    code = exit_code(error)
    if code is ExitCode.FAILURE and isinstance(error, errors.Unreachable):
        return "unreachable"
    return code.name.lower()


_HINTS = (
    (re.compile(r"^Insufficient credits"), "'cps-user get_credit' tells what is left; an operator can add more"),
    (re.compile(r"^Application \d+ has not started"), "start it with 'cps-application start APP'"),
    (
        re.compile(r"current state is '(PROLOGUE|ADAPTING|EPILOGUE)'"),
        "an operation is under way; 'cps-tools wait APP SRV' waits",
    ),
    (re.compile(r"current state is 'ERROR'"), "'cps-service recover APP SRV' brings it back, 'cps-tools history APP SRV' says why"),
    (re.compile(r"^User authentication failed"), "check the user name (--username) and the password"),
)


def hint(error: BaseException) -> str | None:
    """What to do about `error`: its own hint, else one for the servers' fixed texts."""
    own = error.hint if isinstance(error, errors.ConPaaSError) else None
    return own or next((advice for pattern, advice in _HINTS if pattern.search(str(error))), None)


def contact_error(error: errors.Unreachable, peer: str, url: str) -> errors.ConPaaSError:
    """Turn a failed connection to the `director` or `manager` into the sentence that names it and the way out."""
    if _is_verification_failure(error):
        return errors.Unauthenticated(
            f"The ConPaaS {peer}'s SSL certificate failed verification.\n"
            "Either somebody is between you and it, or it was redeployed; in the latter case get a new certificate with "
            "'cps-user get_certificate'.",
            hint=str(error),
        )
    return errors.Unreachable(f"Cannot contact the {peer} at URL '{url}': {error}", peer=url, method=error.method, hint=error.hint)


def _is_verification_failure(error: BaseException) -> bool:
    """True if a certificate check, ours or the TLS library's, is among the causes of `error`."""
    import ssl

    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if isinstance(cause, ssl.SSLCertVerificationError | errors.Forbidden | errors.Unauthenticated):
            return True
        if "CERTIFICATE_VERIFY_FAILED" in str(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
