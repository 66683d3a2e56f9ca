"""The commands of `cpsclient` on the Director: login, applications, and what may be added to them."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable

from conpaas.client import account, asking, certificates, failures, handles, replies, session, waiting
from conpaas.client.classic import line
from conpaas.core import errors

VALUE_FILES = {"director_url": "target", "username": "username", "password": "password"}


@dataclasses.dataclass(frozen=True)
class Command:
    """One command: how many arguments it takes, and the line about it in the usage text."""

    run: Callable[[session.Session, line.Arguments], None]
    least: int
    most: int
    usage: str
    about: str


# -- configuration and login


def credentials(run: session.Session, _: line.Arguments) -> None:
    """The login dialogue: asks for URL, user and password, stores them and gets a certificate."""
    config = run.settings
    while True:
        config.director_url = asking.line("Enter the director URL: ", config.director_url or "")
        try:
            if "://" in config.director_url and not config.director_url.startswith("https://"):
                raise errors.ConfigurationError("Invalid target URL. Try with something like https://conpaas.example.com:5555")
            certificates.first_contact(config.url)
            break
        except errors.ConPaaSError as error:
            run.out.show(f"E: {error}")
    ca_pem = account.trusted_ca(run)
    config.username = asking.line("Enter your username: ", config.username or "")
    config.password = asking.secret("Enter your password: ")
    account.install_certificate(run, config.username, config.password, ca_pem)
    for key, value in (("director_url", config.url), ("username", config.username), ("password", config.password)):
        certificates.write_private(config.directory / VALUE_FILES[key], value.encode())
    run.out.show("Authentication succeeded")


def getcerts(run: session.Session, _: line.Arguments) -> None:
    """Get a new certificate with the stored name and password."""
    username, ca_pem = run.settings.user, account.trusted_ca(run)
    account.install_certificate(run, username, account.password(run), ca_pem)


# -- the Director


def version(run: session.Session, _: line.Arguments) -> None:
    """Print the Director's version."""
    run.out.show(f"ConPaaS director version {run.director.version()}")


def listapp(run: session.Session, _: line.Arguments) -> None:
    """List applications."""
    rows = [{"aid": a.aid, "name": a.name, "manager": a.manager} for a in run.director.applications()]
    run.out.table(("aid", "name", "manager"), rows, "No existing applications")


def available(run: session.Session, _: line.Arguments) -> None:
    """List service types."""
    run.out.show("\n".join(run.director.service_types()))


def clouds(run: session.Session, _: line.Arguments) -> None:
    """List clouds."""
    run.out.show("\n".join(run.director.clouds()))


def list_services(run: session.Session, args: line.Arguments) -> None:
    """List services."""
    rows = [
        {"sid": s.sid, "type": s.type, "application_id": s.aid, "name": s.name}
        for s in run.director.services(line.number(args[0]) if args else None)
    ]
    run.out.table(("sid", "type", "application_id", "name"), rows, "No running services")


def createapp(run: session.Session, args: line.Arguments) -> None:
    """Create an application."""
    with line.doing(run, "Creating new application... "):
        run.director.create_application(args[0])


def startapp(run: session.Session, args: line.Arguments) -> None:
    """Start an application; does not wait."""
    with line.doing(run, "Starting application... "):
        run.director.start_application(line.number(args[0]), args[1] if len(args) > 1 else None)


def stopapp(run: session.Session, args: line.Arguments) -> None:
    """Stop an application."""
    with line.doing(run, "Stopping application... "):
        run.director.stop_application(line.number(args[0]))


def deleteapp(run: session.Session, args: line.Arguments) -> None:
    """Delete an application."""
    with line.doing(run, "Deleting application... "):
        run.director.delete_application(line.number(args[0]))


def renameapp(run: session.Session, args: line.Arguments) -> None:
    """Rename an application."""
    with line.doing(run, "Renaming application... "):
        run.director.rename_application(line.number(args[0]), args[1])


def infoapp(run: session.Session, args: line.Arguments) -> None:
    """Print what the application manager knows."""
    found = find_application(run, line.number(args[0]))
    run.out.show(f"Info for application {found.aid}")
    run.out.show(str(dict(run.manager(found).application_info())))


def manifest(run: session.Session, args: line.Arguments) -> None:
    """Create an application from a manifest and wait for it."""
    text = handles.read_text(args[0])
    with line.doing(run, "Uploading the manifest... "):
        aid = run.director.upload_manifest(text)
        watch = waiting.StateWatch(("RUNNING",))

        def probe() -> waiting.Outcome | None:
            assert aid is not None
            now = run.director.application(aid)
            return watch.judge(now.status, now.reason)

        outcome = None if aid is None else waiting.poll(probe, "the application", timeout=run.settings.timeout, clock=run.clock)
        if outcome is not None and not outcome.ok:
            raise errors.OperationFailed(outcome.reason or f"The application is in state {outcome.state}.")


def download_manifest(run: session.Session, args: line.Arguments) -> None:
    """Print the manifest that would create an application again."""
    aid = line.number(args[0])
    if any(s.type == "xtreemfs" for s in run.director.services(aid)):
        sys.stderr.write("WARNING: the application contains an XtreemFS service; it will be deleted by this. Continue? [y/n] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip() != "y":
            raise failures.Finished(failures.ExitCode.FAILURE)
    try:
        found = run.director.download_manifest(aid)
    except errors.RemoteError as error:
        raise errors.RemoteError(f"Failed downloading manifest file: {error}") from error
    run.out.show(json.dumps(found, indent=2, ensure_ascii=False))


def add(run: session.Session, args: line.Arguments) -> None:
    """Add a service to an application, the first one unless its id is given."""
    service_type = args[0]
    if service_type not in run.director.service_types():
        raise errors.NotFound(f'Service type "{service_type}" is not supported')
    applications = run.director.applications()
    if not applications:
        raise errors.NotFound("No existing applications")
    aid = line.number(args[1]) if len(args) > 1 else min(a.aid for a in applications)
    if all(a.aid != aid for a in applications):
        raise errors.NotFound(f"Unknown application id: {aid}")
    if len(args) > 2 and args[2] not in run.director.clouds():
        raise errors.NotFound(f"Unknown cloud: {args[2]}")
    with line.doing(run, f"Adding a {service_type} service in application {aid} ..."):
        run.director.add_service(service_type, aid)


def find_application(run: session.Session, aid: int) -> replies.Application:
    """The application with this id."""
    for candidate in run.director.applications():
        if candidate.aid == aid:
            return candidate
    raise errors.NotFound(f"Application {aid} not found")


COMMANDS: dict[str, Command] = {
    "credentials": Command(credentials, 0, 0, "", "set your ConPaaS credentials"),
    "getcerts": Command(getcerts, 0, 0, "", "get a new certificate"),
    "version": Command(version, 0, 0, "", "show the director's version"),
    "listapp": Command(listapp, 0, 0, "", "list all applications"),
    "available": Command(available, 0, 0, "", "list the service types"),
    "clouds": Command(clouds, 0, 0, "", "list the clouds"),
    "list": Command(list_services, 0, 1, "[appid]", "list the services of one application, or of all"),
    "createapp": Command(createapp, 1, 1, "appname", "create an application"),
    "startapp": Command(startapp, 1, 2, "appid [cloud]", "start an application"),
    "infoapp": Command(infoapp, 1, 1, "appid", "show what an application's manager knows"),
    "stopapp": Command(stopapp, 1, 1, "appid", "stop an application"),
    "deleteapp": Command(deleteapp, 1, 1, "appid", "delete an application"),
    "renameapp": Command(renameapp, 2, 2, "appid newname", "rename an application"),
    "manifest": Command(manifest, 1, 1, "filename", "create an application from a manifest"),
    "download_manifest": Command(download_manifest, 1, 1, "appid", "print the manifest of an application"),
    "add": Command(add, 1, 3, "servicetype [appid [cloud]]", "add a service to an application"),
}
