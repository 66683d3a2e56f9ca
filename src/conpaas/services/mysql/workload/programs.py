"""MariaDB's own programs for moving data: `mariadb` fed with a dump, and `mariadb-dump`.

No secret is in an argument, a file or the environment.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import pathlib
import re
import subprocess
import threading
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final

from conpaas.core import errors
from conpaas.services.mysql.workload import sql

ENVIRONMENT: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
DIES_WITH_US: Final = ("setpriv", "--pdeathsig", "KILL", "--")
"""A client that lives longer than the agent would take the end of its input for the end of the dump."""
_PACKET: Final = 1 << 30
_SAID: Final = 8000
_LINE: Final = 4000
_ERROR: Final = re.compile(r"ERROR (?:(\d+) )?(?:\((\w+)\) )?at line (\d+)(?: in file: '[^']*')?: (.*)", re.DOTALL)
_COMPRESSORS: Final = {"none": None, "gz": ("gzip", "-c", "-4"), "zst": ("zstd", "-q", "-c", "-T1")}
_DUMP_OPTIONS: Final = (
    *("--single-transaction", "--quick", "--skip-lock-tables", "--hex-blob", "--no-tablespaces", "--default-character-set=utf8mb4"),
    f"--max-allowed-packet={_PACKET}",
)
CODE: Final = ("--routines", "--triggers", "--events")


class Refused(Exception):
    """What the server said to a statement of a dump: its code (0: the client itself refused), its text, and the line (0: unknown)."""

    def __init__(self, code: int, text: str, line: int) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.line = line


class _Tail:
    """The end of what a program says, read in a thread so that it never waits for us; one line of it may be a statement of many MB."""

    def __init__(self, stream: BinaryIO) -> None:
        self._pieces: collections.deque[bytes] = collections.deque(maxlen=_SAID // 1000)
        self._thread = threading.Thread(target=self._read, args=(stream,), name="stderr", daemon=True)
        self._thread.start()

    def _read(self, stream: BinaryIO) -> None:
        while piece := stream.read(1000):
            self._pieces.append(piece)

    def text(self) -> str:
        self._thread.join()
        return b"".join(self._pieces).decode(errors="replace").strip()


@dataclasses.dataclass(frozen=True)
class Programs:
    """Where the programs are, and the socket of the server that they talk to."""

    socket: pathlib.Path
    mariadb: str = "/usr/bin/mariadb"
    mariadb_dump: str = "/usr/bin/mariadb-dump"

    @contextlib.contextmanager
    def client(self, user: str, password: str, database: str | None) -> Iterator[Client]:
        """The client, logged in, shut off from files and commands of this machine. At the end it is killed if it still runs."""
        # In memory only; its name is the descriptor that the client inherits.
        descriptor = os.memfd_create("login")
        try:
            os.fchmod(descriptor, 0o600)
            os.write(descriptor, f"[client]\nuser={user}\npassword={password}\n".encode())
            argv = [
                *DIES_WITH_US,
                self.mariadb,
                f"--defaults-file=/proc/self/fd/{descriptor}",
                *(f"--socket={self.socket.name}", "--batch", "--silent", "--binary-mode", "--sandbox", "--local-infile=0"),
                *("--default-character-set=utf8mb4", f"--max-allowed-packet={_PACKET}", "--unbuffered"),
                *([f"--database={database}"] if database is not None else []),
            ]
            process = _start(argv, self.socket.parent, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=(descriptor,))
        finally:
            os.close(descriptor)
        with _ending(process):
            yield Client(process)

    def dump(self, to: BinaryIO, databases: Sequence[str], *options: str, compression: str = "none", together: bool = True) -> None:
        """Write a dump as this server's own user. With `together` it creates and chooses the databases, otherwise `databases` is one
        database and then its tables, and the dump can be loaded into any. Raises OperationFailed, StorageFull."""
        argv = [*DIES_WITH_US, self.mariadb_dump, "--no-defaults", f"--socket={self.socket.name}", f"--user={sql.own_user()}"]
        argv += [*_DUMP_OPTIONS, *options, *(["--databases"] if together else []), "--", *databases]
        compressor = _COMPRESSORS[compression]
        output = to if compressor is None else subprocess.PIPE
        dumper = _start(argv, self.socket.parent, stdin=subprocess.DEVNULL, stdout=output)
        with _ending(dumper):
            said = [_Tail(_stream(dumper.stderr))]
            ended = [dumper]
            if compressor is not None:
                packer = _start([*DIES_WITH_US, *compressor], self.socket.parent, stdin=dumper.stdout, stdout=to)
                _stream(dumper.stdout).close()
                with _ending(packer):
                    said.append(_Tail(_stream(packer.stderr)))
                    packer.wait()
                ended.append(packer)
            dumper.wait()
            texts = [one.text() for one in said]
        if any(one.returncode != 0 for one in ended):
            raise _dump_failure(" ".join(" ".join(texts).split()))


class Client:
    """A running `mariadb` that waits for statements."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._said = _Tail(_stream(process.stderr))

    def write(self, data: bytes) -> None:
        """Hand over statements. Raises Refused when the client has ended because of an earlier one."""
        try:
            _stream(self._process.stdin).write(data)
        except BrokenPipeError:
            self._process.wait()
            raise self._refusal() from None

    def finish(self) -> None:
        """Tell that these were all; returns when they are done. Raises Refused."""
        try:
            _stream(self._process.stdin).close()
        except BrokenPipeError:
            self._process.wait()
        if self._process.wait() != 0:
            raise self._refusal()

    def kill(self) -> None:
        """End the client at once, whatever it was given."""
        self._process.kill()

    def _refusal(self) -> Refused:
        said = self._said.text()
        lines = [line for line in said.splitlines() if line.startswith("ERROR")]
        found = _ERROR.match(lines[-1]) if lines else None
        if found is None:
            return Refused(0, " ".join(said.split())[-500:] or "the client was ended", 0)
        return Refused(int(found[1] or 0), found[4].strip()[:_LINE], int(found[3]))


def _start(argv: Sequence[str], directory: pathlib.Path, **streams: object) -> subprocess.Popen[bytes]:
    """A program whose working directory is the socket's: the address of a socket holds 107 bytes, and directories may lie deep."""
    try:
        return subprocess.Popen(argv, cwd=directory, env=ENVIRONMENT, stderr=subprocess.PIPE, bufsize=0, **streams)  # type: ignore[call-overload]
    except FileNotFoundError as error:
        raise errors.OperationFailed("The database server does not run here, or its programs are not installed.") from error


@contextlib.contextmanager
def _ending(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """No way out leaves the program running."""
    try:
        yield
    except BaseException:
        process.kill()
        raise
    finally:
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        process.wait()


def _stream(stream: object) -> BinaryIO:
    assert stream is not None
    return stream  # type: ignore[return-value]


def _dump_failure(said: str) -> errors.ConPaaSError:
    if "No space left" in said or re.search(r"(?i)err(?:no|code):? 28\b", said):
        return errors.StorageFull("There is no room left on the disk of the node for the dump.")
    return errors.OperationFailed(f"The dump failed: {said[-500:] or 'its program was ended'}.")


def pack(to: BinaryIO, data: bytes, compression: str) -> None:
    """Write a few bytes as a file of this kind."""
    compressor = _COMPRESSORS[compression]
    to.write(data if compressor is None else subprocess.run(compressor, input=data, check=True, capture_output=True).stdout)
