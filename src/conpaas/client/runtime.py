"""From a command line to a session, and from an error to an exit code."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from conpaas.client import failures, output
from conpaas.core import errors

if TYPE_CHECKING:
    from conpaas.client import session

COMPLETE_VARIABLE = "_CPS_COMPLETE"


def open_session(options: Mapping[str, Any], *, need_file: bool = True) -> session.Session:
    """Settle the settings of a command and where its output goes."""
    from conpaas.client import session, settings  # later than at the top: help needs neither

    config = settings.load(options, need_file=need_file)
    out = output.Output(config.output, config.color)
    if config.verbose:
        _log_to_stderr()
    for remark in config.remarks:
        out.warning(remark)
    return session.Session(config, out)


def run(command: Callable[[], click.Command], program: str, args: Sequence[str] | None = None) -> int:
    """Run a command line and print what went wrong, if anything; the exit code."""
    arguments = list(sys.argv[1:] if args is None else args)
    early = _early_options(arguments)
    opened: list[session.Session] = []

    def factory(options: Mapping[str, Any], *, need_file: bool = True) -> session.Session:
        opened.append(open_session(options, need_file=need_file))
        return opened[-1]

    try:
        result = command().main(arguments, prog_name=program, standalone_mode=False, complete_var=COMPLETE_VARIABLE, obj=factory)
        sys.stdout.flush()
    except Exception as error:  # noqa: BLE001 - the one place where every error becomes a sentence and an exit code
        debug = opened[-1].settings.debug if opened else "--debug" in arguments or "-d" in arguments
        return report(error, opened[-1].out if opened else early, debug=debug)
    except KeyboardInterrupt:
        return _interrupted(opened[-1].resume_hint if opened else None)
    return result if isinstance(result, int) and not isinstance(result, bool) else 0


def report(error: Exception, early: output.Output, *, debug: bool) -> int:
    """Print an error in the form the user chose; the exit code it ends the command with."""
    if isinstance(error, failures.Finished):
        return error.code
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.Abort):
        return _interrupted(None)
    if isinstance(error, click.ClickException):
        return _usage_error(error, early)
    if isinstance(error, BrokenPipeError):
        _silence_stdout()
        return 128 + signal.SIGPIPE
    if debug:
        traceback.print_exception(error, file=early.stderr)
    elif isinstance(error, errors.ConPaaSError):
        early.error(error)
    elif isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        early.error(errors.ConPaaSError(f"{where}{error.strerror or error}"))
    else:
        early.error(errors.ConPaaSError(f"{type(error).__name__}: {error}", hint="this is a defect of the client; --debug shows where"))
    return int(failures.exit_code(error))


def _early_options(arguments: Sequence[str]) -> output.Output:
    """The output for errors, also for those that come before the line is understood."""
    form, color = "table", "auto"
    for before, token in zip(("", *arguments), arguments, strict=False):
        option, equals, value = token.partition("=")
        if token == "-ojson" or (equals and value == "json" and _is_output(option)) or (token == "json" and _is_output(before)):  # noqa: S105
            form = "json"
        if token.startswith("--color=") or before == "--color":
            color = token.removeprefix("--color=")
    return output.Output(form, color)


def _is_output(option: str) -> bool:
    """True for -o, --output and what is short for it."""
    return option == "-o" or (len(option) > 2 and "--output".startswith(option))


def _usage_error(error: click.ClickException, early: output.Output) -> int:
    if early.form != "json" and isinstance(error, click.UsageError) and error.ctx is not None:
        early.note(error.ctx.get_usage())
    early.error(failures.BadUsage(error.format_message()))
    return failures.ExitCode.USAGE


def _interrupted(resume: str | None) -> int:
    advice = f" What was begun goes on; '{resume}' waits for it again." if resume else ""
    sys.stderr.write(f"\nInterrupted.{advice}\n")
    return failures.ExitCode.INTERRUPTED


def _silence_stdout() -> None:
    """Keep Python from complaining at exit about a reader that went away."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())


def _log_to_stderr() -> None:
    """Show the library's log lines as `LEVEL - text`."""
    import logging

    logging.basicConfig(stream=sys.stderr, level=logging.DEBUG, format="%(levelname)s - %(message)s")
    for noisy in ("urllib3", "requests"):
        logging.getLogger(noisy).setLevel(logging.INFO)
