"""The code version every web hosting service begins with: one page."""

from __future__ import annotations

import io
import pathlib
import tarfile
import zipfile
from typing import Final

from conpaas.core import resources
from conpaas.services.webservers import spec

NAME: Final = "index.html"


def page() -> bytes:
    """The page, the same for both kinds of service."""
    return resources.find_in_package("conpaas.services.webservers", "manager/welcome.html").read_bytes()


def build(kind: str, path: pathlib.Path) -> None:
    """Write the archive: a tar for PHP, a war for Java; the same content every time."""
    if kind == spec.JAVA:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            entry = zipfile.ZipInfo(NAME)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, page())
        return
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo(NAME)
        member.size = len(page())
        member.mode = 0o644
        archive.addfile(member, io.BytesIO(page()))
