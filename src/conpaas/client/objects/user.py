"""`cps-user`: the user, and on the Director's host its users."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from conpaas.client import account, api, asking, certificates, grammar, replies, session
from conpaas.client.objects import account as account_object
from conpaas.core import errors

group = grammar.Group("user", help="Your account and certificate; on the Director's host, its users.")
_DETAILS: tuple[click.Parameter, ...] = (
    grammar.argument("username", metavar="username"),
    grammar.option("--email", help="Email address."),
    grammar.option("--fname", default="", help="First name."),
    grammar.option("--lname", default="", help="Last name."),
    grammar.option("--affiliation", default="", help="Affiliation."),
    grammar.option("--password", help="Password (asked for if missing, or with CPS_PASSWORD)."),
    grammar.option("--credit", type=int, default=50, show_default=True, help="Credit to start with."),
)


@group.verb("create", *_DETAILS)
def create(run: session.Session, username: str, **details: Any) -> None:
    """Create a user (on the Director's host)."""
    program = director_program()
    email, secret = _complete(run, details)
    details["email"] = email
    options = [f"--{name}={details[name]}" for name in ("email", "fname", "lname", "affiliation", "credit")]
    _run_director([program, "user", "create", "--password-file=-", *options, "--", username], given=secret + "\n")
    run.out.show(f"User '{username}' created successfully.", {"username": username})


@group.verb("create_free", *_DETAILS, account_object.FINGERPRINT)
def create_free(run: session.Session, username: str, fingerprint: str | None, **details: Any) -> None:
    """Register a user with the Director, if it lets people register."""
    email, secret = _complete(run, details)
    store = certificates.Store(run.settings.directory)
    if fingerprint is not None or not store.ca.is_file():
        store.pin(account.trusted_ca(run, fingerprint))
    fields = {name: details[name] for name in ("fname", "lname", "affiliation", "credit")}
    with api.Director(run.settings.url, api.Identity(store.ca, None)) as director:
        director.new_user({"username": username, "email": email, "password": secret, **fields})
    run.out.show(f"User '{username}' created successfully.", {"username": username})


def _complete(run: session.Session, details: dict[str, Any]) -> tuple[str, str]:
    """Email and password, asked for where they are missing."""
    if details["credit"] <= 0:
        raise errors.InvalidArgument(f"Cannot create a user with {details['credit']} credits.")
    email = details["email"] or asking.line("Enter user email address: ")
    secret = details["password"] or run.settings.password or asking.secret(confirm=True)
    return email, secret


@group.verb("get_certificate", account_object.FINGERPRINT)
def get_certificate(run: session.Session, fingerprint: str | None) -> None:
    """Get a new certificate from the Director and store it in ~/.conpaas."""
    username = run.settings.user
    ca_pem = account.trusted_ca(run, fingerprint)
    account.install_certificate(run, username, account.password(run), ca_pem)
    run.out.show("User certificates installed successfully.", {"directory": str(run.settings.directory), "result": "done"})


@group.verb("get_config")
def get_config(run: session.Session) -> None:
    """Print what the Director knows about you."""
    run.out.pairs({key: value for key, value in run.director.user().items() if key != "password"})


@group.verb("get_credit")
def get_credit(run: session.Session) -> None:
    """Print the credit you have left."""
    credit = run.director.credit()
    run.out.show(str(credit), {"credit": credit})


REMOTE = grammar.option("--remote", is_flag=True, help="Ask the Director, as an operator, instead of its database on this host.")


@group.verb("add_credit", grammar.argument("username"), grammar.argument("credit", type=int), REMOTE)
def add_credit(run: session.Session, username: str, credit: int, remote: bool) -> None:
    """Give a user more credit, or less (on the Director's host, or with --remote)."""
    if remote:
        left = str(run.director.add_credit(username, credit))
    else:
        said = _run_director([director_program(), "credit", "add", "--", username, str(credit)]).split()
        left = said[-1].rstrip(".") if said else "?"
    run.out.show(f"Credit added successfully to user '{username}', the new credit is {left}.", {"username": username, "credit": left})


@group.verb("list", grammar.option("--credit", is_flag=True, help="Show each user's credit."), REMOTE)
def list_users(run: session.Session, credit: bool, remote: bool) -> None:
    """List the Director's users (on the Director's host, or with --remote)."""
    if remote:
        users = [(replies.text(u.get("username")), replies.text(u.get("credit"))) for u in run.director.users()]
    else:
        lines = _run_director([director_program(), "user", "list", "--credit"]).splitlines()
        users = [(name, left) for name, _, left in (line.partition("\t") for line in lines)]
    users.sort()
    text = "\n".join(f"{name}\t{left}" if credit else name for name, left in users)
    run.out.show(text, [{"username": name, "credit": left} for name, left in users])


def director_program() -> str:
    """The Director's own command, beside this program or on the search path."""
    beside = Path(sys.argv[0]).resolve().parent / "cpsdirector"
    found = str(beside) if beside.is_file() else shutil.which("cpsdirector")
    if found is None:
        raise errors.NotFound("Cannot find a ConPaaS director on this machine.", hint="run this command on the Director's host")
    return found


def _run_director(command: Sequence[str], given: str = "") -> str:
    """Run the Director's command and return what it printed; its failure is ours."""
    try:
        done = subprocess.run(list(command), input=given, capture_output=True, text=True, check=False)
    except OSError as error:
        raise errors.ConPaaSError(f"Cannot run {command[0]}: {error.strerror or error}") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or f"{command[0]} ended with {done.returncode}").splitlines()
        start = next((i for i, line in enumerate(said) if line.startswith(("ERROR:", "Error:"))), len(said) - 1)
        message = said[start].removeprefix("ERROR:").removeprefix("Error:").strip()
        locked_out = any(word in message.lower() for word in ("permission", "denied", "readonly", "read-only", "unable to open"))
        hint = " ".join(said[start + 1 :]) or ("this account may not write the Director's database; try with sudo" if locked_out else None)
        raise errors.ConPaaSError(message, hint=hint)
    return done.stdout
