"""First steps and a look at a Director from its host: writing `director.cfg`, and the text of `cpsdirector status`."""

from __future__ import annotations

import pathlib
import re
from urllib import parse

import sqlalchemy as sa

import conpaas
from conpaas.core import errors, file
from conpaas.core.https import client, identity, x509
from conpaas.director import config, models, runtime

_TEMPLATE = """\
# Configuration of this Director; config/director/director.cfg.example explains every key.
# After a change: `cpsdirector check-config`, then restart the Director.

[conpaas]
DEPLOYMENT_NAME = conpaas

[director]
DIRECTOR_URL = {url}
STATE_DIR = {state}

[iaas]
DRIVER = dummy
"""


def write_config(state: pathlib.Path, host: str | None, port: int | None) -> None:
    """Make `director.cfg` in the state directory, or replace DIRECTOR_URL in the one that is there. Raises ConfigurationError."""
    path = state / "director.cfg"
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o750)
        if not path.exists():
            _replace(path, _TEMPLATE.format(url=_url(host or "127.0.0.1", port or config.DEFAULT_PORT), state=state))
            return
        if host is None and port is None:
            return
        present = parse.urlsplit(config.load(path).director_url)
        url = _url(host or present.hostname or "127.0.0.1", port or present.port or config.DEFAULT_PORT)
        _replace(path, _with_url(path.read_text(encoding="utf-8"), url))
    except OSError as error:
        raise errors.ConfigurationError(f"Cannot write {path}: {error.strerror}.") from error


def _url(host: str, port: int) -> str:
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def _with_url(text: str, url: str) -> str:
    """The file with its DIRECTOR_URL line (commented or not) replaced, or one added to section [director]."""
    line = f"DIRECTOR_URL = {url}"
    replaced, count = re.subn(r"(?mi)^[ \t]*[#;]?[ \t]*DIRECTOR_URL[ \t]*[=:].*$", line, text, count=1)
    if count:
        return replaced
    replaced, count = re.subn(r"(?m)^\[director\][ \t]*$", f"[director]\n{line}", text, count=1)
    return replaced if count else f"{text.rstrip()}\n\n[director]\n{line}\n"


def _replace(path: pathlib.Path, text: str) -> None:
    """Write the file; cloud credentials may be in it, so only its owner reads it."""
    file.write_atomically(path, text, mode=0o600)


def write_frontend_certificate(director: runtime.Director, directory: pathlib.Path, host: str, days: int) -> None:
    """Put a new key, its certificate and the CA's certificate into the directory of a classic front-end, in place of earlier ones.

    Raises InvalidArgument for a directory with certificates that are not a front-end's.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o750)
        present = directory / "cert.pem"
        earlier = x509.read_identity(x509.load_certificate(present.read_bytes())) if present.exists() else None
        if (directory / "ca_key.pem").exists() or (earlier is not None and earlier.role != identity.ROLE_FRONTEND):
            raise errors.InvalidArgument(f"In {directory} there are certificates that are not a front-end's; name another directory.")
        with director.database.session() as session:
            key, certificate = director.authority.issue_frontend(session, host, days)
        file.write_atomically(directory / "key.pem", key, mode=0o600)
        file.write_atomically(present, certificate)
        file.write_atomically(directory / "ca_cert.pem", director.authority.ca_pem)
    except OSError as error:
        raise errors.InvalidArgument(f"Cannot write to {directory}: {error.strerror}.") from error


def _answers(director: runtime.Director) -> str:
    http = client.DirectorClient(director.config.director_url, None, ca=director.authority.ca_path)
    try:
        return f"answers, version {http.raw('version').decode()}"
    except errors.ConPaaSError as error:
        return f"does not answer: {error}"
    finally:
        http.close()


def status_text(director: runtime.Director) -> str:
    """A few lines about the Director, its users, applications and VMs."""
    resource, application = models.Resource, models.Application
    with director.database.reader() as session:
        users = session.scalar(sa.select(sa.func.count()).select_from(models.User))
        statuses = session.execute(sa.select(application.status, sa.func.count()).group_by(application.status)).all()
        vms = session.execute(sa.select(resource.cloud, resource.state, sa.func.count()).group_by(resource.cloud, resource.state)).all()
    lines = [
        f"Director {conpaas.__version__} at {director.config.director_url}: {_answers(director)}",
        f"Front-end: {director.config.frontend_url or 'none'}",
        f"Configuration: {director.config.source}",
        f"Database: {director.database.url}",
        f"CA: {director.authority.ca_path}, fingerprint {director.authority.ca_fingerprint}",
        f"Users: {users}",
        "Applications: " + (", ".join(f"{number} {status}" for status, number in statuses) or "none"),
        "VMs: " + (", ".join(f"{number} {state} on {cloud}" for cloud, state, number in vms) or "none"),
    ]
    return "\n".join(lines)
