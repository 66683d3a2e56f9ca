"""How the client's connections are made: `requests` on a TLS context of ours, with the server's identity checked first."""

from __future__ import annotations

import ssl
import time
from typing import Any, Final

import urllib3.connection
import urllib3.connectionpool

import conpaas
from conpaas.core import errors
from conpaas.core.https import identity
from conpaas.core.https.lean import requests

IDLE_TIME: Final = 30.0
"""Seconds after which an unused connection is not used again; well below the time after which servers close it."""

_POOLED_SERVERS: Final = 100


class _Connection(urllib3.connection.HTTPSConnection):
    """Checks who the server is right after the handshake, before a byte of the request is sent."""

    def __init__(self, *args: Any, server_policy: identity.ServerPolicy, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._server_policy = server_policy
        self._last_used = 0.0

    def connect(self) -> None:
        """Connect, shake hands, and check the server's identity; raises Unreachable if it is not the expected one."""
        super().connect()
        try:
            if not isinstance(self.sock, ssl.SSLSocket):
                raise errors.Forbidden(f"{self.host} did not speak TLS.")
            peer = identity.of_peer(self.sock)
            if peer is None:
                raise errors.Forbidden(f"{self.host} showed no certificate.")
            self._server_policy(peer, self.host)
        except errors.Forbidden as error:
            self.close()
            raise errors.Unreachable(
                f"{self.host}:{self.port} is not who it should be: {error}", peer=f"{self.host}:{self.port}"
            ) from error
        self._last_used = time.monotonic()

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
        """The server's reply."""
        response = super().getresponse()
        self._last_used = time.monotonic()
        return response

    @property
    def is_connected(self) -> bool:
        """False also for a connection that was idle for so long that the server may be closing it right now."""
        return time.monotonic() - self._last_used < IDLE_TIME and super().is_connected


class _Pool(urllib3.connectionpool.HTTPSConnectionPool):
    ConnectionCls = _Connection


class _Adapter(requests.adapters.HTTPAdapter):
    """Connects with our context and nothing else: no system trust store, no proxy, no variable of the environment."""

    def __init__(self, context: ssl.SSLContext, server_policy: identity.ServerPolicy, pool_size: int) -> None:
        self._context = context
        self._server_policy = server_policy
        super().__init__(pool_connections=_POOLED_SERVERS, pool_maxsize=pool_size)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools that connect our way."""
        super().init_poolmanager(*args, **kwargs, ssl_context=self._context, assert_hostname=False, blocksize=64 * 1024)
        # The policy travels in the pool class and not as a keyword, which would have to be part of the pools' key.
        policy = self._server_policy

        class Pool(_Pool):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, server_policy=policy, **kwargs)

        self.poolmanager.pool_classes_by_scheme = {"https": Pool}

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Leave the context alone: the inherited method would add the public CAs to it."""
        conn.cert_reqs = "CERT_REQUIRED"
        conn.ca_certs = conn.ca_cert_dir = None


def session(context: ssl.SSLContext, server_policy: identity.ServerPolicy, pool_size: int) -> requests.Session:
    """A session that reaches https URLs only, with the given context and policy."""
    made = requests.Session()
    made.trust_env = False
    made.headers.clear()
    made.headers.update({"User-Agent": f"ConPaaS/{conpaas.__version__}", "Accept-Encoding": "identity"})
    made.adapters.clear()
    made.mount("https://", _Adapter(context, server_policy, pool_size))
    return made
