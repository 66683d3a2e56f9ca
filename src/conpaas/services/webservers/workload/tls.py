"""Certificates and keys as files that nginx reads: named after their content, so that an old configuration never meets a new file."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Collection, Sequence

from conpaas.core import errors, file
from conpaas.services.webservers import spec
from conpaas.services.webservers.workload import nginx_config


class Certificates:
    """The files in one directory, which only their owner may read."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory

    def write(self, domains: Sequence[spec.Domain]) -> list[tuple[list[str], nginx_config.Pair]]:
        """Have the certificates of domains as files; names that share one come together. Domains without certificate are left out."""
        found: dict[nginx_config.Pair, list[str]] = {}
        seen: set[str] = set()
        for domain in domains:
            name = spec.check_domain(domain.name)
            if name in seen:
                raise errors.InvalidArgument(f"The domain {name} is there twice.")
            seen.add(name)
            if _is_given(domain, name):
                found.setdefault(self._pair(domain), []).append(name)
        return [(sorted(names), pair) for pair, names in found.items()]

    def keep(self, pairs: Collection[nginx_config.Pair]) -> None:
        """Remove the files of all other certificates. nginx has those in memory that old workers still serve with."""
        kept = {path for pair in pairs for path in (pair.certificate, pair.key)}
        for path in self._directory.iterdir() if self._directory.is_dir() else ():
            if path not in kept:
                path.unlink(missing_ok=True)

    def _pair(self, domain: spec.Domain) -> nginx_config.Pair:
        digest = hashlib.sha256(f"{domain.certificate}\0{domain.key}".encode()).hexdigest()[:32]
        pair = nginx_config.Pair(self._directory / f"{digest}.crt", self._directory / f"{digest}.key")
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path, text in ((pair.certificate, domain.certificate), (pair.key, domain.key)):
            if not path.is_file() or path.read_text() != text:
                file.write_atomically(path, text, mode=0o600)
        return pair


def _is_given(domain: spec.Domain, name: str) -> bool:
    if not isinstance(domain.certificate, str) or not isinstance(domain.key, str):
        raise errors.InvalidArgument(f"The certificate and the key of {name} must be text (PEM).")
    if bool(domain.certificate) != bool(domain.key):
        missing = "key" if domain.certificate else "certificate"
        raise errors.InvalidArgument(f"The domain {name} has no {missing}.", hint="give both the certificate and its key, or neither")
    return bool(domain.certificate)
