"""What a verb of a service type is called with: one application or service, its calls, and the command's output."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from conpaas.client import api, failures, replies, session, waiting
from conpaas.core import errors

T = TypeVar("T")
STANDARD_STREAM = "-"


class Handle:
    """One manager of an application: the application manager (`service_id` 0) or a service's own."""

    def __init__(self, run: session.Session, application: replies.Application, service: replies.Service | None = None) -> None:
        self.run = run
        self.record = application
        self.app_id = application.aid
        self.app_name = application.name
        self.service_id = service.sid if service else api.APPLICATION_MANAGER
        self.name = service.name if service else application.name
        self.type = service.type if service else "application"
        self.service_record = service

    # -- calls

    @property
    def manager(self) -> api.Manager:
        """The typed calls to the application's manager VM."""
        return self.run.manager(self.record)

    @property
    def application(self) -> Handle:
        """The application manager."""
        return self if self.service_id == api.APPLICATION_MANAGER else Handle(self.run, self.record)

    def service(self, sid: int) -> Handle:
        """Another service of the application, by its id."""
        return Handle(self.run, self.record, replies.Service(sid, "", "", self.app_id))

    def find_service(self, word: str) -> Handle:
        """Another service of the application, by its id or exact name."""
        return Handle(self.run, self.record, self.run.service(self.record, word))

    def get(self, method: str, /, **params: Any) -> Any:
        """Call a method that changes nothing."""
        return self.manager.get(method, self.service_id, params)

    def post(self, method: str, /, **params: Any) -> Any:
        """Call a method that changes something."""
        return self.manager.post(method, self.service_id, params)

    def upload(self, method: str, files: Mapping[str, str | Path], /, *, _timeout: float | None = None, **fields: Any) -> Any:
        """Send files, part name → path (`-` is standard input), streamed. `_timeout`: the longest silence of the manager, in seconds."""
        with tempfile.TemporaryDirectory(prefix="cps-") as scratch:
            parts = {part: self._readable(str(path), Path(scratch) / f"{part}.bin") for part, path in files.items()}
            return self.manager.upload(method, self.service_id, parts, fields, _timeout)

    def download(self, method: str, to: str | Path, /, *, _timeout: float | None = None, **params: Any) -> None:
        """Stream the answer into the file `to`, which appears complete or not at all; `-` is standard output."""
        target = Path.cwd() if str(to) == STANDARD_STREAM else Path(to).parent
        try:
            with tempfile.TemporaryDirectory(prefix=".cps-", dir=None if str(to) == STANDARD_STREAM else target) as scratch:
                part = Path(scratch) / "part"
                self.manager.download(method, self.service_id, part, params, _timeout)
                if str(to) == STANDARD_STREAM:
                    self.run.out.stdout.flush()
                    with part.open("rb") as file:
                        shutil.copyfileobj(file, getattr(self.run.out.stdout, "buffer", sys.stdout.buffer))
                else:
                    part.replace(to)
        except OSError as error:
            raise errors.ConPaaSError(f"Cannot write '{to}': {error.strerror or error}") from error

    @staticmethod
    def _readable(path: str, spool: Path) -> Path:
        if path != STANDARD_STREAM:
            return Path(path)
        with spool.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        return spool

    @staticmethod
    def field(reply: Any, name: str, kind: type[T]) -> T:
        """A field of a reply that must be an object: of this kind, empty if it is missing; a RemoteError otherwise."""
        value = replies.mapping(reply).get(name)
        if value is None:
            return kind()
        if not isinstance(value, kind):
            raise replies.malformed(f"an object with a {kind.__name__} named {name}", reply)
        return value

    # -- output

    def show(self, text: str, data: Any = None) -> None:
        """Print `text`, or `data` with --output json."""
        self.run.out.show(text, data)

    def table(self, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], empty: str, data: Any = None) -> None:
        """Print rows, or the sentence `empty`."""
        self.run.out.table(columns, rows, empty, data)

    def pairs(self, values: Mapping[str, Any]) -> None:
        """Print `key: value` lines."""
        self.run.out.pairs(values)

    def note(self, text: str) -> None:
        """Print a remark on stderr."""
        self.run.out.note(text)

    # -- flow

    def waiting(self, default: bool = True) -> bool:
        """Whether the user wants to wait: --wait or --no-wait, else `default`."""
        return self.run.will_wait(default)

    def change(self, sentence: str, request: Callable[[], Any], until: Collection[str] = ("RUNNING",), *, done: str | None = None) -> None:
        """Send a request and wait until this service's state is one of `until`; `done` is said then, in place of `<sentence>...  done.`

        For the application manager, the service is the one that the reply's `service_id` names.
        """

        def state(reply: Any) -> waiting.Seen:
            sid = self.service_id
            if sid == api.APPLICATION_MANAGER:
                sid = replies.integer(replies.mapping(reply).get("service_id"), "a service (service_id)")
            info = self.manager.service_info(sid)
            return waiting.Seen(replies.text(info.get("state")), replies.text(info.get("reason")))

        self.run.resume_hint = f"cps-tools wait {self.app_id} {self.service_id or ''}".rstrip() + f" --for {next(iter(until))}"
        self.run.change(
            sentence,
            request,
            until=until,
            state=state,
            manager=self.manager,
            about={"aid": self.app_id, "sid": self.service_id},
            advice=f"see 'cps-tools history {self.app_id} {self.service_id}' and 'cps-tools logs {self.app_id} {self.service_id}'",
            done=done,
        )

    def poll(self, probe: Callable[[], T | None], what: str) -> T:
        """Call `probe` until it answers something other than None, bounded by --timeout."""
        return self.run.poll(probe, what)

    def confirm(self, question: str) -> None:
        """Ask on a terminal; a no ends the command."""
        self.run.confirm(question)

    def ask_secret(self, prompt: str, confirm: bool = False) -> str:
        """Ask for a secret without showing it; it is the next line of standard input where that is no terminal."""
        from conpaas.client import asking

        return asking.secret(prompt, confirm=confirm) if sys.stdin.isatty() else asking.secret_from_stdin(prompt)

    def read_text(self, path: str) -> str:
        """The text of a file, `-` is standard input."""
        return read_text(path)

    def fail(self, message: str, hint: str | None = None) -> NoReturn:
        """End the command with an error."""
        self.run.fail(message, hint)

    def finish(self, code: int) -> NoReturn:
        """End the command with an exit code."""
        raise failures.Finished(code)


def read_text(path: str) -> str:
    """The UTF-8 text of a file, `-` is standard input."""
    try:
        return sys.stdin.read() if path == STANDARD_STREAM else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise errors.InvalidArgument(f"Cannot read '{path}': {getattr(error, 'strerror', None) or error}") from error


def safe_name(name: str, default: str = "download") -> str:
    """A server-supplied file name as a plain name in the current directory: no folders, no control characters, not hidden."""
    plain = name.replace("\\", "/").rsplit("/", 1)[-1]
    plain = "".join(c for c in plain if c.isprintable()).strip().lstrip(".")
    return plain[:200] or default
