"""Running the `mariadb` client of this machine against a service: with the service's CA, and with no password where others could see it."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from conpaas.core import errors

CLIENTS = ("mariadb", "mysql")


def run(address: Mapping[str, Any], ca: str, user: str, database: str | None, password: str | None, any_name: bool) -> int:
    """Returns the exit code of the client. Without a password the client asks for it."""
    program = next((found for found in map(shutil.which, CLIENTS) if found), None)
    if program is None:
        raise errors.OperationFailed("The program mariadb is not installed on this machine.", hint="apt install mariadb-client")
    with tempfile.TemporaryDirectory(prefix="cps-mysql-") as directory:
        place = pathlib.Path(directory)
        (place / "ca.pem").write_text(ca)
        options = [f"host={_quoted(str(address['host']))}", f"port={int(address['port'])}", f"user={_quoted(user)}", "protocol=tcp"]
        options += [f"ssl-ca={_quoted(str(place / 'ca.pem'))}", *([] if any_name else ["ssl-verify-server-cert"])]
        options += [f"password={_quoted(password)}" if password is not None else "password"]
        settings = place / "client.cnf"
        settings.touch(mode=0o600)
        settings.write_text("[client]\n" + "\n".join(options) + "\n")
        return _wait([program, f"--defaults-extra-file={settings}", *([f"--database={database}"] if database else [])])


def read_password(path: str) -> str:
    """The first line of a file that nobody else may read."""
    try:
        with pathlib.Path(path).open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISREG(mode) and mode & 0o077:
                raise errors.InvalidArgument(f"Others may read '{path}'.", hint=f"chmod 600 {path}")
            password = file.readline().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise errors.InvalidArgument(f"Cannot read '{path}': {getattr(error, 'strerror', None) or error}") from error
    if not password:
        raise errors.InvalidArgument(f"There is no password in '{path}'.")
    return password


def _wait(argv: Sequence[str]) -> int:
    """Ctrl-C is the client's, which ends a statement by it and not itself."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return subprocess.run(argv, check=False, preexec_fn=_give_back).returncode
    finally:
        signal.signal(signal.SIGINT, before)


def _give_back() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _quoted(text: str) -> str:
    """A value in an option file: quoted, or a `#` in it would begin a comment."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
