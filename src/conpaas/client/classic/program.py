"""The program `cpsclient`: its settings, its usage text, and which command a line means."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence

from conpaas.client import failures, handles, output, session, settings
from conpaas.client.classic import director, line, services
from conpaas.core import errors


def open_session(environ: Mapping[str, str] = os.environ) -> session.Session:
    """A session with what the three value files say, else what `cps-tools` would use."""
    values: dict[str, str] = {}
    directory = settings.user_directory(environ)
    for key, name in director.VALUE_FILES.items():
        with contextlib.suppress(FileNotFoundError):
            values[key] = (directory / name).read_text(encoding="utf-8").strip()
    options = {key: value for key, value in values.items() if value}
    config = settings.load(options, environ)
    return session.Session(config, output.Output("table", "never"))


def find_service(run: session.Session, aid: int, sid: int) -> handles.Handle:
    """The service with these ids."""
    for service in run.director.services():
        if (service.aid, service.sid) == (aid, sid):
            return handles.Handle(run, director.find_application(run, aid), service)
    raise errors.NotFound(f"cannot find service {sid} for application {aid}")


def usage_text(extra: Sequence[tuple[str, str, str]] = ()) -> str:
    """The usage text, with the commands of a service type if some are given."""
    lines = [f"Usage: {line.PROGRAM} COMMAND [PARAMETERS]", "COMMAND is one of the following"]
    rows = [(name, command.usage, command.about) for name, command in director.COMMANDS.items()]
    rows += [(name, f"appid serviceid {usage}".strip(), about) for name, usage, about in services.common_usage()]
    rows += [(name, f"appid serviceid {usage}".strip(), about) for name, usage, about in extra]
    lines += [f"    {name:<18} {usage:<40} {about}".rstrip() for name, usage, about in rows]
    return "\n".join(lines)


def dispatch(run: session.Session, args: line.Arguments) -> None:
    """Run one command line."""
    name, rest = args[0], list(args[1:])
    if name in director.COMMANDS:
        command = director.COMMANDS[name]
        if not command.least <= len(rest) <= command.most:
            raise line.Usage(f"Usage: {line.PROGRAM} {name} {command.usage}".rstrip())
        command.run(run, rest)
        return
    if name in ("usage", "st_usage") and len(rest) == 1:
        run.out.show(usage_text(services.usage_of(rest[0])))
        return
    if not services.is_known(name):
        raise line.Usage(f"E: Unknown command '{name}'\n{usage_text()}")
    if len(rest) < 2:
        raise line.Usage(f"Usage: {line.PROGRAM} {name} appid serviceid ...")
    service = find_service(run, line.number(rest[0]), line.number(rest[1]))
    if name in ("usage", "help"):
        run.out.show(usage_text(services.usage_of(service.type)))
    else:
        services.run(service, name, rest[2:])


def _ensure_credentials(run: session.Session, command: str) -> None:
    """Begin with the dialogue when nothing is known yet and somebody is there to answer."""
    known = run.settings.director_url and run.settings.username
    if not known and command != "credentials" and run.can_ask:
        director.credentials(run, ())


def main(args: line.Arguments | None = None) -> int:
    """Run `cpsclient`; the exit code."""
    arguments = list(sys.argv[1:] if args is None else args)
    out = output.Output("table", "never")
    if not arguments or arguments in (["help"], ["-h"], ["--help"]):
        out.show(usage_text())
        return failures.ExitCode.OK
    try:
        run = open_session()
        try:
            _ensure_credentials(run, arguments[0])
            dispatch(run, arguments)
        finally:
            run.close()
    except line.Usage as error:
        out.show(str(error))
        return failures.ExitCode.USAGE
    except failures.Finished as error:
        return error.code
    except errors.ConPaaSError as error:
        out.show(f"E: {error}")
        if failures.exit_code(error) is failures.ExitCode.AUTHENTICATION:
            out.show(f"Try updating your client certificates with {line.PROGRAM} credentials")
        return failures.ExitCode.FAILURE
    except KeyboardInterrupt:
        return failures.ExitCode.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - no traceback is a user's business
        out.show(f"E: {type(error).__name__}: {error}")
        return failures.ExitCode.FAILURE
    return failures.ExitCode.OK
