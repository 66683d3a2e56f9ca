"""`login`, `logout` and `whoami`: the way into a Director in one step."""

from __future__ import annotations

from pathlib import Path

from conpaas.client import account, asking, certificates, grammar, session, settings

FINGERPRINT = grammar.option("--fingerprint", metavar="SHA256", help="Trust the Director's CA if it has this fingerprint.")


def login(name: str) -> grammar.Verb:
    """`login [URL]`."""
    return grammar.Verb(
        name,
        params=[
            grammar.argument("url", required=False),
            FINGERPRINT,
            grammar.option("--password-stdin", is_flag=True, help="Read the password from the first line of standard input."),
        ],
        callback=_login,
        help="Get to know a Director, get a certificate, and remember both.",
        need_file=False,
    )


def _login(run: session.Session, url: str | None, fingerprint: str | None, password_stdin: bool) -> None:
    config = run.settings
    secret = asking.password_from_stdin() if password_stdin else None
    may_ask = run.can_ask and not password_stdin
    if url:
        config.director_url = url
    elif may_ask:
        config.director_url = asking.line("Director URL: ", config.director_url or "")
    config.director_url = config.url
    ca_pem = account.trusted_ca(run, fingerprint)
    if may_ask and not config.username:
        config.username = asking.line("User name: ")
    username = config.user
    secret = secret or account.password(run, f"Password of {username}: ")
    account.install_certificate(run, username, secret, ca_pem)
    path = config_path(run)
    settings.save(path, {"director_url": config.director_url, "username": username})
    run.out.show(
        f"Logged in to {config.director_url} as '{username}'.",
        {"director_url": config.director_url, "username": username, "config": str(path), "directory": str(config.directory)},
    )


def config_path(run: session.Session) -> Path:
    """The configuration file that login writes: the one named by the user, else the one in the user's directory."""
    return run.settings.config_file or run.settings.directory / settings.FILE_NAME


def logout(name: str) -> grammar.Verb:
    """`logout`."""
    return grammar.Verb(name, callback=_logout, help="Delete the key and certificate stored on this machine.")


def _logout(run: session.Session) -> None:
    removed = certificates.Store(run.settings.directory).remove()
    path = config_path(run)
    if path.is_file():
        settings.save(path, {"password": None})
    text = "Logged out; the key and certificate were deleted." if removed else "There was nobody logged in."
    run.out.show(text, {"removed": [str(path) for path in removed]})


def whoami(name: str) -> grammar.Verb:
    """`whoami`."""
    return grammar.Verb(name, callback=_whoami, help="Print who you are for the Director, and until when.")


def _whoami(run: session.Session) -> None:
    found = run.director.user()
    described = {
        "username": found.get("username"),
        "uid": found.get("uid"),
        "email": found.get("email"),
        "credit": found.get("credit"),
        "director": run.settings.url,
        "certificate": str(run.settings.directory / "cert.pem"),
    }
    store = certificates.Store(run.settings.directory)
    if store.certificate.is_file():
        described["expires"] = store.expiry().strftime("%Y-%m-%d %H:%M:%S UTC")
    run.out.pairs({key: value for key, value in described.items() if value is not None})
