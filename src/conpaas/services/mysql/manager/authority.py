"""The CA of one mysql service: it signs the certificates of the members, and clients check servers with it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from cryptography import x509 as certificates

from conpaas.core.https import x509
from conpaas.services.mysql import spec
from conpaas.services.mysql.manager import state

_DAYS: Final = 825
_RENEW_BEFORE: Final = 60 * 86_400.0
"""Seconds before its end at which a certificate is made anew."""


class Authority:
    """Made with the first certificate that is asked for; its key never leaves the manager."""

    def __init__(self, memory: state.ClusterMemory) -> None:
        self._memory = memory

    @property
    def certificate(self) -> str:
        """The CA's certificate in PEM."""
        return self._pair()["certificate"]

    def member(self, node_id: str, names: Iterable[str]) -> spec.TlsFiles:
        """Certificate and key of a member that is reached by these addresses; the same ones until the addresses change or they grow old."""
        wanted = tuple(dict.fromkeys(names))
        issued = self._memory.issued(node_id)
        if issued is None or set(issued.names) != set(wanted) or _is_old(issued):
            issued = self._issue(node_id, wanted)
            self._memory.put_issued(node_id, issued)
        return spec.TlsFiles(issued.certificate, issued.key, self.certificate)

    def grow_old(self, node_ids: Iterable[str]) -> bool:
        """Whether one of these members has a certificate that is to be made anew."""
        return any(issued is not None and _is_old(issued) for issued in map(self._memory.issued, node_ids))

    def _issue(self, node_id: str, names: tuple[str, ...]) -> state.Issued:
        pair = self._pair()
        key = x509.new_key()
        subject = {"role": "member", "CN": node_id[:64]}
        made = x509.issue(
            x509.load_key(pair["key"]), x509.load_certificate(pair["certificate"]), key.public_key(), subject, days=_DAYS, san=names
        )
        return state.Issued(made, x509.key_pem(key), names, _end_of(x509.load_certificate(made)))

    def _pair(self) -> dict[str, str]:
        pair = self._memory.authority
        if pair is None:
            key, certificate = x509.new_ca()
            pair = {"certificate": x509.certificate_pem(certificate), "key": x509.key_pem(key)}
            self._memory.authority = pair
        return pair


def _is_old(issued: state.Issued) -> bool:
    return issued.expires < time.time() + _RENEW_BEFORE


def _end_of(certificate: certificates.Certificate) -> float:
    return certificate.not_valid_after_utc.timestamp()
