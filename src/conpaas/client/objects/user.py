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


_INVITATION = grammar.option("--invitation", default="", help="Token of an invitation, where the Director wants one.")


@group.verb("create_free", *_DETAILS, _INVITATION, account_object.FINGERPRINT)
def create_free(run: session.Session, username: str, fingerprint: str | None, invitation: str, **details: Any) -> None:
    """Register a user with the Director, if it lets people register."""
    email, secret = _complete(run, details)
    fields = {name: details[name] for name in ("fname", "lname", "affiliation", "credit")}
    if invitation:
        fields["invitation"] = invitation
    with _as_nobody(run, fingerprint) as director:
        made = director.new_user({"username": username, "email": email, "password": secret, **fields})
    unconfirmed = bool(made.get("unconfirmed"))
    more = f" It works once you have followed what the message to {email} says." if unconfirmed else ""
    run.out.show(f"User '{username}' created successfully.{more}", {"username": username, "unconfirmed": unconfirmed})


@group.verb("confirm_email", grammar.argument("token"), account_object.FINGERPRINT)
def confirm_email(run: session.Session, token: str, fingerprint: str | None) -> None:
    """Confirm an e-mail address with the token of the message that was sent to it."""
    with _as_nobody(run, fingerprint) as director:
        username = director.confirm_email(token)
    run.out.show(f"The e-mail address of user '{username}' is confirmed.", {"username": username})


def _as_nobody(run: session.Session, fingerprint: str | None) -> api.Director:
    """The Director, asked without a certificate; its CA is compared with the fingerprint if it is not known yet."""
    store = certificates.Store(run.settings.directory)
    if fingerprint is not None or not store.ca.is_file():
        store.pin(account.trusted_ca(run, fingerprint))
    return api.Director(run.settings.url, api.Identity(store.ca, None))


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


@group.verb("get_quota")
def get_quota(run: session.Session) -> None:
    """Print how many VMs, applications and MB of volumes you have, and may have."""
    quota = run.director.quota()
    lines = [f"{name}\t{used}\t{'no limit' if limit is None else limit}" for name, (used, limit) in quota.items()]
    run.out.show("\n".join(lines), {name: {"used": used, "limit": limit} for name, (used, limit) in quota.items()})


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
