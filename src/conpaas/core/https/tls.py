"""TLS contexts: versions 1.2 and 1.3 only, the deployment's CA as the only trust anchor."""

from __future__ import annotations

import pathlib
import ssl
from typing import Literal

from conpaas.core import errors
from conpaas.core.https import identity

ClientCertificates = Literal["required", "optional"]


def server_context(credentials: identity.Credentials, client_certificates: ClientCertificates) -> ssl.SSLContext:
    """The context of a listener; a client certificate that is shown must always come from the CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED if client_certificates == "required" else ssl.CERT_OPTIONAL
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    # A TLS 1.3 ticket costs time on every connection, and clients here keep connections open instead. TLS 1.2 tickets stay
    # on: without them the library would keep a session in memory for each client. A ticket carries the client certificate.
    context.num_tickets = 0
    credentials.load_into(context)
    return context


def client_context(credentials: identity.Credentials | None, ca: pathlib.Path | None = None) -> ssl.SSLContext:
    """The context of a client; presents `credentials` if given and trusts their CA, or `ca`. Host names are not compared
    here: who the server is decides a server policy, right after the handshake.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    if credentials is not None:
        credentials.load_into(context)
    elif ca is not None:
        identity.load_ca(context, ca)
    else:
        raise errors.ConfigurationError("There is no CA certificate to verify the server with.")
    return context
