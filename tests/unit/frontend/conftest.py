"""A front-end without a Director: nothing listens at the address that it is given."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable

import pytest
from tests.support import asgi
from tests.support.frontend import Site

from conpaas.core.https import x509
from conpaas.frontend import app, sessions, settings


@pytest.fixture
def configured(tmp_path: pathlib.Path) -> settings.Settings:
    ca = tmp_path / "ca_cert.pem"
    ca.write_text(x509.certificate_pem(x509.new_ca()[1]))
    return settings.Settings(director_url="https://127.82.255.9:5555", ca=ca, state_dir=tmp_path / "state")


@pytest.fixture
def make(configured: settings.Settings) -> Callable[..., Site]:
    """Makes a front-end with these settings changed."""

    def made(**changed: object) -> Site:
        application = app.make(dataclasses.replace(configured, **changed))  # type: ignore[arg-type]
        frontend = application.state.frontend
        # What everybody may know, as if the Director had said so a moment ago.
        frontend.upstreams.catalogue.get("registration", lambda: {"mode": "open", "version": "9.9"})
        frontend.upstreams.catalogue.get("version", lambda: "9.9")
        return Site(frontend, asgi.Browser(application))

    return made


@pytest.fixture
def site(make: Callable[..., Site]) -> Site:
    return make()


@pytest.fixture
def grant() -> sessions.Grant:
    return sessions.Grant(
        username="alice", uid=7, operator=False, certificate="CERTIFICATE", key="THE PRIVATE KEY", ca="CA", expires=4_000_000_000.0
    )
