"""The command `cpsdirector`: setting up and serving a Director, and administration on its host, directly on its database."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import getpass
import json
import pathlib
import socket
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from conpaas.core import errors
from conpaas.director import config

if TYPE_CHECKING:
    from conpaas.core.clouds import base

_STATE = click.option(
    "--state", type=click.Path(path_type=pathlib.Path), help="Directory of the Director's state (its director.cfg is read)."
)
_CONFIG = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=pathlib.Path),
    help="Configuration file; default: $DIRECTOR_CFG, then the classic place.",
)


class Place:
    """Where the configuration is; what all commands get."""

    def __init__(self, config_path: pathlib.Path | None, state: pathlib.Path | None) -> None:
        self.config_path = config_path
        self.state = state

    def load(self) -> config.DirectorConfig:
        return config.load(self.config_path, self.state)

    @contextlib.contextmanager
    def director(self) -> Iterator[Any]:
        """The Director's database and CA, without its clouds and background work."""
        from conpaas.director import app

        director = app.make_director(self.load(), components=False)
        try:
            yield director
        finally:
            director.stop()


def _reported(command: Callable[..., Any]) -> Callable[..., Any]:
    """Errors meant for a person end the command with status 1 and one line."""

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except errors.ConPaaSError as error:
            click.echo(f"ERROR: {error}" + (f"\n{error.hint}" if error.hint else ""), err=True)
            sys.exit(1)

    return wrapper


@click.group()
@_CONFIG
@_STATE
@click.pass_context
def main(context: click.Context, config_path: pathlib.Path | None, state: pathlib.Path | None) -> None:
    """Set up, serve and administer a ConPaaS Director."""
    context.obj = Place(config_path, state)


@main.command()
@_STATE
@click.option("--host", help="Host name or address by which clients and VMs reach the Director (default: 127.0.0.1).")
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the Director (default: 5555).")
@click.pass_obj
@_reported
def init(place: Place, state: pathlib.Path | None, host: str | None, port: int | None) -> None:
    """Make the configuration, the certificates and the database. Harmless when repeated; with --host or --port, moves the Director."""
    from conpaas.director import app, setup

    place.state = state = (state or place.state or config.DEFAULT_STATE).absolute()
    setup.write_config(state, host, port)
    director = app.make_director(place.load(), components=False)
    try:
        click.echo(f"Configuration: {director.config.source}")
        click.echo(f"URL:           {director.config.director_url}")
        click.echo(f"Database:      {director.database.url}")
        click.echo(f"CA:            {director.authority.ca_path}")
        click.echo(f"Fingerprint:   {director.authority.ca_fingerprint}")
    finally:
        director.stop()


@main.command()
@click.pass_obj
@_reported
def serve(place: Place) -> None:
    """Run the Director until it gets SIGTERM."""
    from conpaas.director import serve as serving

    serving.run(place.load())


@main.command("check-config")
@click.pass_obj
@_reported
def check_config(place: Place) -> None:
    """Check the configuration and every cloud in it; names all that is wrong, and ends with status 1 if anything is."""
    from conpaas.core.clouds import factory

    problems = config.problems(place.config_path, place.state)
    if not problems:
        loaded = place.load()
        problems = list(loaded.warnings)
        clouds = factory.open_clouds(loaded.sections)
        problems += [f"{loaded.source}: section [{name}]: {text}" for name, text in clouds.problems().items()]
        problems += [f"{loaded.source}: section [{cloud.name}]: {text}" for cloud in clouds.working() for text in cloud.check()]
    for problem in problems:
        click.echo(f"E: {problem}", err=True)
    if problems:
        sys.exit(1)
    click.echo("OK: the configuration can be used.")


@main.command("frontend-certificate")
@click.argument("directory", type=click.Path(file_okay=False, path_type=pathlib.Path))
@click.option("--host", default=socket.gethostname, help="Name of the front-end's machine, for people (default: this machine's).")
@click.option("--days", type=click.IntRange(1, 1825), default=365, show_default=True, help="How long it is valid.")
@click.pass_obj
@_reported
def frontend_certificate(place: Place, directory: pathlib.Path, host: str, days: int) -> None:
    """Make the certificate of a classic (PHP) front-end: key.pem, cert.pem and ca_cert.pem in DIRECTORY.

    With TRUST_FRONTEND, whoever has the key acts as any user.
    """
    from conpaas.director import setup

    with place.director() as director:
        setup.write_frontend_certificate(director, directory, host, days)
        click.echo(f"Certificate of role frontend for {host}, for {days} days: {directory / 'cert.pem'}")
        if not director.config.trust_frontend:
            click.echo(f"Managers refuse it until {director.config.source} has TRUST_FRONTEND = yes and the Director was started again.")


@main.command()
@click.pass_obj
@_reported
def status(place: Place) -> None:
    """Say where the Director is, whether it answers, and what it knows."""
    from conpaas.director import setup

    with place.director() as director:
        click.echo(setup.status_text(director))


@main.group("ready-made")
def ready_made_group() -> None:
    """Applications that users deploy by a click: see which there are, and prepare their files."""


@ready_made_group.command("list")
@click.pass_obj
@_reported
def ready_made_list(place: Place) -> None:
    """List the ready-made applications and whether they can be deployed here."""
    from conpaas.director.manifest import ready_made

    directory = place.load().state_dir / ready_made.DIRECTORY
    for one in ready_made.catalogue():
        click.echo(f"{one.name:<12} {'prepared' if not one.missing(directory) else 'not prepared':<13} {one.description}")


@ready_made_group.command("prepare")
@click.argument("name")
@click.pass_obj
@_reported
def ready_made_prepare(place: Place, name: str) -> None:
    """Fetch the Debian packages of a ready-made application and pack them; again, to have a newer version of it."""
    from conpaas.director.manifest import prepare, ready_made

    wanted = ready_made.find(name)
    for path in prepare.prepare(wanted, place.load().state_dir / ready_made.DIRECTORY, click.echo):
        click.echo(f"{path} is there.")
    click.echo(f"Users can deploy {wanted.label} now.")


@main.command("api")
@click.pass_obj
@_reported
def api_page(_place: Place) -> None:
    """Print the reference page of all endpoints, in Markdown, from their declarations."""
    from conpaas.director import apipage

    click.echo(apipage.render())


@main.group()
def user() -> None:
    """Administer users."""


def _new_password(source: str | None) -> str:
    """A new password from a file (`-`: standard input), else asked for twice."""
    if source == "-":
        return sys.stdin.readline().rstrip("\r\n")
    if source is not None:
        try:
            return pathlib.Path(source).read_text(encoding="utf-8").splitlines()[0]
        except (OSError, IndexError, UnicodeDecodeError) as error:
            raise errors.InvalidArgument(f"Cannot read a password from the first line of {source}: {error}.") from error
    while True:
        password = getpass.getpass("Password: ")
        if password == getpass.getpass("Retype password: "):
            return password
        click.echo("Passwords do not match. Try again")


_PASSWORD_FILE = click.option("--password-file", help="File whose first line is the password, or - for standard input; default: ask.")


@user.command("create")
@click.argument("username")
@click.option("--email", required=True)
@click.option("--credit", type=click.IntRange(0), default=50, show_default=True)
@click.option("--fname", default="")
@click.option("--lname", default="")
@click.option("--affiliation", default="")
@click.option("--operator", is_flag=True, help="May administer this Director over the network.")
@_PASSWORD_FILE
@click.pass_obj
@_reported
def create_user(place: Place, username: str, operator: bool, password_file: str | None, **fields: Any) -> None:
    """Create a user."""
    from conpaas.director import users

    with place.director() as director:
        wanted = users.NewUser(username=username, password=_new_password(password_file), role="operator" if operator else "user", **fields)
        created = users.create(director, wanted)
    click.echo(f"User '{created.username}' created successfully.")


@user.command("list")
@click.option("--credit", is_flag=True, help="Also each user's credits.")
@click.option("--json", "as_json", is_flag=True, help="Everything but the password, as JSON.")
@click.pass_obj
@_reported
def list_users(place: Place, credit: bool, as_json: bool) -> None:
    """List all users by name."""
    from conpaas.director import users

    with place.director() as director, director.database.reader() as session:
        listing = users.listing(session)
    if as_json:
        click.echo(
            json.dumps([{**users.as_dict(found, left), "active": found.active, "role": found.role} for found, left in listing], indent=2)
        )
        return
    for found, left in listing:
        click.echo(f"{found.username}\t{left}" if credit else found.username)


@user.command("passwd")
@click.argument("username")
@_PASSWORD_FILE
@click.pass_obj
@_reported
def change_password(place: Place, username: str, password_file: str | None) -> None:
    """Give a user another password and revoke the certificates fetched until now."""
    from conpaas.director import users

    with place.director() as director:
        with director.database.reader() as session:
            found = users.get(session, username)
        users.set_password(director, found.uid, _new_password(password_file))
    click.echo(f"The password of user '{found.username}' was changed.")


def _set_active(place: Place, username: str, active: bool) -> None:
    from conpaas.director import users

    with place.director() as director:
        found = users.set_active(director, username, active)
    click.echo(f"User '{found.username}' was {'enabled' if active else 'disabled'}.")


@user.command("disable")
@click.argument("username")
@click.pass_obj
@_reported
def disable_user(place: Place, username: str) -> None:
    """Refuse a user's logins and certificates from now on. The user's applications keep running."""
    _set_active(place, username, False)


@user.command("enable")
@click.argument("username")
@click.pass_obj
@_reported
def enable_user(place: Place, username: str) -> None:
    """Let a disabled user log in again (and fetch a new certificate)."""
    _set_active(place, username, True)


@user.command("role")
@click.argument("username")
@click.argument("role", type=click.Choice(["user", "operator"]))
@click.pass_obj
@_reported
def set_role(place: Place, username: str, role: str) -> None:
    """Let a user administer this Director over the network, or no longer. The last operator stays one."""
    from conpaas.director import users

    with place.director() as director:
        found = users.set_role(director, username, role)
    click.echo(f"User '{found.username}' has the role {role} now.")


_LIMIT = click.IntRange(0, 10**9)


@user.command("quota")
@click.argument("username")
@click.option("--vms", type=_LIMIT, help="Most VMs at the same time, managers included.")
@click.option("--applications", type=_LIMIT, help="Most applications, running or not.")
@click.option("--volumes-mb", type=_LIMIT, help="Most MB of volumes at the same time.")
@click.option("--none", "unlimited", is_flag=True, help="Take away all quotas first.")
@click.pass_obj
@_reported
def user_quota(place: Place, username: str, unlimited: bool, **wanted: int | None) -> None:
    """Show what a user has and may have; with options, change it. What is left out stays as it is."""
    from conpaas.director import quotas, users

    with place.director() as director, director.database.session() as session:
        found = users.get(session, username)
        present = quotas.Amounts(None, None, None) if unlimited else quotas.limits(found)
        quotas.set_limits(found, dataclasses.replace(present, **{name: limit for name, limit in wanted.items() if limit is not None}))
        shown = quotas.as_dict(session, found.uid)
    for name, amount in shown.items():
        click.echo(f"{name}\t{amount['used']}\t{'no limit' if amount['limit'] is None else amount['limit']}")


@main.group("invitation")
def invitation_group() -> None:
    """Invite people to register (REGISTRATION = invitation or open)."""


@invitation_group.command("create")
@click.option("--email", default="", help="Only an account of this address may be made by it.")
@click.option("--credit", type=click.IntRange(0, 10**9), default=50, show_default=True, help="Opening balance of the account.")
@click.option("--days", type=click.IntRange(1, 90), default=14, show_default=True, help="How long it is good.")
@click.option("--mail", is_flag=True, help="Send it to that address, too.")
@click.pass_obj
@_reported
def create_invitation(place: Place, email: str, credit: int, days: int, mail: bool) -> None:
    """Print the link (or, without FRONTEND_URL, the token) by which one person may register."""
    from conpaas.director import invitations, users

    wanted = invitations.Wanted(users.check_email(email) if email else "", credit, days)
    with place.director() as director:
        invitations.check_wanted(director.config, wanted, mail)
        with director.database.session() as session:
            row, token = invitations.invite(session, wanted, f"{getpass.getuser()} on the Director's host", director.clock())
        click.echo(invitations.url(director.config.pages_url, token) or token)
        if mail:
            invitations.mail(director.config, row, token)


@invitation_group.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_obj
@_reported
def list_invitations(place: Place, as_json: bool) -> None:
    """List invitations, newest first: number, state, address, credit, and who used it."""
    from conpaas.director import invitations

    with place.director() as director, director.database.reader() as session:
        found = [invitations.as_dict(row, name, director.clock()) for row, name in invitations.listing(session)]
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for one in found:
        click.echo("\t".join(str(one[name] if one[name] is not None else "") for name in ("id", "state", "email", "credit", "username")))


@invitation_group.command("withdraw")
@click.argument("number", type=int)
@click.pass_obj
@_reported
def withdraw_invitation(place: Place, number: int) -> None:
    """Make an invitation useless that was not used yet."""
    from conpaas.director import invitations

    with place.director() as director, director.database.session() as session:
        invitations.withdraw(session, number)
    click.echo(f"Invitation {number} was withdrawn.")


@main.group("credit")
def credit_group() -> None:
    """Administer credits."""


@credit_group.command("add", context_settings={"ignore_unknown_options": True})
@click.argument("username")
@click.argument("credit", type=int)
@click.pass_obj
@_reported
def add_credit(place: Place, username: str, credit: int) -> None:
    """Add credits to a user; a negative number takes some, never below 0."""
    from conpaas.director import credits, users

    with place.director() as director, director.database.session() as session:
        found = users.get(session, username)
        left = credits.adjust(session, found.uid, credit, director.clock(), f"by {getpass.getuser()} on the Director's host")
    click.echo(f"Credit added successfully to user '{found.username}', the new credit is {left}.")


@main.group("domain")
def domain_group() -> None:
    """Administer the domain names that services answer to."""


@domain_group.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_obj
@_reported
def list_domains(place: Place, as_json: bool) -> None:
    """List all domain names with the user, application and service that hold them."""
    from conpaas.director import domains

    with place.director() as director, director.database.reader() as session:
        found = domains.listing(session)
    if as_json:
        click.echo(json.dumps([{**dataclasses.asdict(one), "claimed": one.claimed.isoformat()} for one in found], indent=2))
        return
    for one in found:
        click.echo(f"{one.name}\t{one.username}\t{one.app_id}\t{one.service_id}")


@domain_group.command("release")
@click.argument("name")
@click.pass_obj
@_reported
def release_domain(place: Place, name: str) -> None:
    """Let another service have a domain name; the one that has it keeps answering to it until its owner changes that."""
    from conpaas.director import domains

    with place.director() as director, director.database.session() as session:
        gone = domains.withdraw(session, name)
    click.echo(f"The domain '{gone.name}' was taken from service {gone.service_id} of application {gone.app_id} of user '{gone.username}'.")


@main.group("cloud")
def cloud_group() -> None:
    """Act on the VMs that live on this machine (clouds of driver `dummy`)."""


def _local_clouds(place: Place) -> list[base.LocalCloud]:
    from conpaas.core.clouds import factory

    return factory.open_clouds(place.load().sections).local()


@cloud_group.command("halt")
@click.pass_obj
@_reported
def halt(place: Place) -> None:
    """Switch off all VMs of this machine; the Director switches them on again when it starts. Until then they cost nothing."""
    from conpaas.director import credits

    with place.director() as director:
        for cloud in _local_clouds(place):
            cloud.halt_all()
            with director.database.session() as session:
                credits.pause(session, cloud.name, director.clock())


@cloud_group.command("destroy")
@click.pass_obj
@_reported
def destroy(place: Place) -> None:
    """Destroy all VMs and volumes of this machine, with all that is in them."""
    for cloud in _local_clouds(place):
        cloud.destroy_nodes([node.vmid for node in cloud.list_nodes()])
        for volume in cloud.list_volumes():
            cloud.destroy_volume(volume.vol_id)


if __name__ == "__main__":
    main()
