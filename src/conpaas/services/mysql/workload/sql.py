"""Connections to the database server of this node over its unix socket, as the user of the operating system who calls."""

from __future__ import annotations

import os
import pathlib
import pwd
from typing import Any, Final

import pymysql

from conpaas.core import errors

SQL_MODE: Final = "STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"
"""The mode of our own sessions, whatever users chose for theirs: quoting depends on it."""
_IDLE: Final = 7 * 86400
"""Seconds that a session of ours may wait for work that goes on elsewhere."""
_NO_SERVER: Final = frozenset({2002, 2003, 2006, 2013})


def own_user() -> str:
    """The name of the user that this process runs as: also its account in the server, which needs no password."""
    return pwd.getpwuid(os.geteuid()).pw_name


def connect(socket: pathlib.Path, timeout: float = 10.0) -> pymysql.Connection[Any]:
    """A session with autocommit. `timeout` (seconds) bounds connecting, and each wait for an answer.

    Raises `errors.Unreachable` when the server gives no answer, `errors.OperationFailed` when it refuses.
    """
    try:
        # The address of a socket holds 107 bytes, so the way leads over a descriptor.
        directory = os.open(socket.parent, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise errors.Unreachable("The database server does not run here.") from error
    try:
        return pymysql.connect(
            unix_socket=f"/proc/self/fd/{directory}/{socket.name}",
            # Nobody else reads what passes through a socket of this machine. Offered TLS, the driver would take it, and read all CAs of the
            # machine for each session: 20 ms.
            ssl_disabled=True,
            user=own_user(),
            charset="utf8mb4",
            autocommit=True,
            connect_timeout=max(1, round(timeout)),
            read_timeout=timeout,
            write_timeout=timeout,
            init_command=f"SET SESSION sql_mode='{SQL_MODE}', wait_timeout={_IDLE}",
        )
    except pymysql.MySQLError as error:
        raise failure(error) from error
    finally:
        os.close(directory)


def failure(error: pymysql.MySQLError) -> errors.ConPaaSError:
    """What the driver raised, as one sentence for a person."""
    code, *rest = error.args or (0,)
    if code in _NO_SERVER:
        return errors.Unreachable("The database server does not answer.")
    text = " ".join(str(rest[0] if rest else code).split())
    return errors.OperationFailed(f"The database server refused: {text} ({code}).")
