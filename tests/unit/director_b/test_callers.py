"""Connections to managers, and the certificate that they were made with."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import pytest

from conpaas.core.https import client, identity
from conpaas.director import inventory, managers


class Client:
    """Counts how often its connections were closed; the next ones present what is on the disk then."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def certificates(tmp_path: pathlib.Path) -> pathlib.Path:
    for name in ("cert.pem", "key.pem", "ca_cert.pem"):
        (tmp_path / name).touch()
    return tmp_path


def test_a_renewed_certificate_is_presented_to_managers_that_were_called_before(
    certificates: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "RpcClient", Client)
    callers = managers.Callers(lambda: identity.Credentials.from_dir(certificates))
    made: Any = callers.get(inventory.MANAGER, 1, 1)
    assert callers.get(inventory.MANAGER, 1, 1) is made
    assert made.closed == 0
    os.utime(certificates / "cert.pem", (1, 1))
    assert callers.get(inventory.MANAGER, 1, 1) is made
    assert made.closed == 1, "it would be presented the one that ends, for as long as this process lives"
    callers.get(inventory.MANAGER, 1, 1)
    assert made.closed == 1
