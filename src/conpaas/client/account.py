"""Getting to know a Director and getting a certificate from it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from conpaas.client import api, asking, certificates, failures, session
from conpaas.core import errors


def password(run: session.Session, prompt: str = "Enter your password: ") -> str:
    """The password of the settings, else asked for on a terminal."""
    if run.settings.password:
        return run.settings.password
    if not run.can_ask:
        raise errors.Unauthenticated("No password was given.", hint="use --password-stdin of login, or CPS_PASSWORD")
    return asking.secret(prompt)


def trusted_ca(run: session.Session, fingerprint: str | None = None) -> bytes:
    """The CA certificate (PEM) of the Director, once it is trusted.

    It is trusted if it is the one pinned before, has the `fingerprint` given, or the user accepts it: on a terminal by
    answering, in a script with --yes. --yes never replaces a CA that was pinned before.
    """
    url = run.settings.url
    store = certificates.Store(run.settings.directory)
    pinned = store.ca.read_bytes() if store.ca.is_file() else None
    try:
        shown = certificates.first_contact(url)
    except errors.Unreachable:
        raise
    except errors.RemoteError:
        if pinned is not None and fingerprint is None:
            return pinned  # a Director that does not show its CA: the pinned one has to do
        raise
    digest = certificates.fingerprint(shown)
    if fingerprint is not None:
        if certificates.same_fingerprint(fingerprint, digest):
            return shown
        raise errors.Unauthenticated(f"The CA of the director at URL '{url}' has the fingerprint {digest}, not {fingerprint}.")
    if pinned is not None and certificates.fingerprint(pinned) == digest:
        return shown
    _accept(run, url, digest, replaces=pinned is not None)
    return shown


def _accept(run: session.Session, url: str, digest: str, *, replaces: bool) -> None:
    if replaces:
        run.out.warning(f"The CA of the director at URL '{url}' is not the one that was trusted so far.")
    else:
        run.out.note(f"The director at URL '{url}' is not known yet.")
    run.out.note(f"SHA-256 fingerprint of its CA: {digest}")
    if run.settings.yes and not replaces:
        return
    if not run.can_ask:
        raise errors.Unauthenticated(
            f"The CA of the director at URL '{url}' is not trusted.", hint=f"compare the fingerprint, then use --fingerprint {digest}"
        )
    import click

    if not click.confirm("Trust it?", err=True):
        raise failures.Finished(failures.ExitCode.AUTHENTICATION)


def anonymous_director(run: session.Session, ca_pem: bytes, scratch: Path) -> api.Director:
    """The Director, verified by a CA that need not be pinned yet, called without a certificate."""
    ca = scratch / "ca_cert.pem"
    ca.write_bytes(ca_pem)
    return api.Director(run.settings.url, api.Identity(ca, None))


def install_certificate(run: session.Session, username: str, secret: str, ca_pem: bytes) -> None:
    """Get a certificate from the Director whose CA (PEM) is trusted, and store both."""
    with tempfile.TemporaryDirectory(prefix="cps-") as scratch, anonymous_director(run, ca_pem, Path(scratch)) as director:
        archive = director.certificates(username, secret)
    store = certificates.Store(run.settings.directory)
    store.install(archive)
    if certificates.fingerprint(store.ca.read_bytes()) != certificates.fingerprint(ca_pem):
        store.pin(ca_pem)
