"""A mail server, run as a process of its own: `python -m tests.support.smtp HOST [CERT KEY]`.

It writes its port on standard output once it listens, then every message as a line of JSON; it ends when its standard input is closed. With
a certificate it takes messages only after STARTTLS and a login as `conpaas` with the password `secret`. Addresses that begin with `refused`
are refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import email
import json
import pathlib
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from email import policy
from typing import IO, Any

from aiosmtpd import smtp

ROOT = pathlib.Path(__file__).parents[2]


@dataclasses.dataclass
class Mailbox:
    """A mail server's process, and what it got."""

    port: int
    output: IO[str]

    def next(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.output.readline())
        return found


@contextlib.contextmanager
def running(host: str, *files: pathlib.Path) -> Iterator[Mailbox]:
    """A process of it; `files` are a certificate and its key."""
    argv = [sys.executable, "-m", "tests.support.smtp", host, *map(str, files)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield Mailbox(int(process.stdout.readline()), process.stdout)
        process.stdin.close()


class Handler:
    """Writes messages down."""

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        if address.startswith("refused"):
            return "550 nobody of that name here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        mail = email.message_from_bytes(envelope.content, policy=policy.default)
        line = {"to": envelope.rcpt_tos, "from": mail["From"], "subject": mail["Subject"], "text": mail.get_content()}
        print(json.dumps(line), flush=True)
        return "250 OK"


def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> smtp.AuthResult:
    return smtp.AuthResult(success=(data.login, data.password) == (b"conpaas", b"secret"))


async def serve(host: str, *files: str) -> None:
    options: dict[str, Any] = {}
    if files:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)
        options = {"tls_context": context, "require_starttls": True, "authenticator": authenticate, "auth_required": True}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: smtp.SMTP(Handler(), loop=loop, **options), host, 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()

    def wait() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=wait, daemon=True).start()
    await ended.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
