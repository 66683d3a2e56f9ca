"""The code versions of a service on its manager: uploaded archives and git revisions, exactly one of them enabled."""

from __future__ import annotations

import hashlib
import os
import pathlib
import re
import secrets
import shutil
import string
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from conpaas.core import archive, errors, file, git, params, rpc
from conpaas.core.state import records

DEFAULT_ID: Final = "code-default"
GIT: Final = "git"
QUOTA: Final = 2_000_000_000
"""Bytes that all uploaded versions of a service may take."""
LIMITS: Final = archive.Limits()

_LETTERS = string.ascii_letters + string.digits
_MAX_NAME = 200


class Records(Protocol):
    """Where versions are written down (`service_parts.ServiceCodes`); what returned is on disk."""

    def add(self, record: records.CodeRecord) -> None: ...
    def list(self) -> Sequence[records.CodeRecord]: ...
    def delete(self, version_id: str) -> None: ...
    def current(self) -> records.CodeRecord | None: ...
    def set_current(self, version_id: str) -> None: ...


class CodeRepository:
    """The code versions of one service.

    `directory` holds the archives under the ids of their versions; `revisions` is the application's git repository, in which this
    service has the directory `subdirectory`. Safe to use from several threads.
    """

    def __init__(
        self, versions: Records, directory: pathlib.Path, revisions: git.Repository, subdirectory: str, *, quota: int = QUOTA
    ) -> None:
        self._versions = versions
        self._directory = directory
        self._revisions = revisions
        self._subdirectory = subdirectory
        self._quota = quota
        self._lock = threading.Lock()

    def list(self) -> list[dict[str, Any]]:
        """All versions as they go over the wire, newest first; only the enabled one has the key `current`."""
        return [_to_wire(record) for record in self._versions.list()]

    def current(self) -> records.CodeRecord:
        """The enabled version."""
        record = self._versions.current()
        if record is None:
            raise errors.NotFound("There is no code version currently enabled.")
        return record

    def get(self, version_id: str) -> records.CodeRecord:
        """A version by its id. Raises InvalidArgument listing the ids there are."""
        known = {record.id: record for record in self._versions.list()}
        params.must_be_one_of("codeVersionId", version_id, list(known))
        return known[version_id]

    def upload(self, upload: params.UploadedFile, description: str = "", *, request: str | None = None) -> records.CodeRecord:
        """Take an uploaded archive as a new version that is not enabled. When this returns, a crash no longer loses it.

        With a key (`request`), a second upload of the same key makes nothing, and returns the version that the first one made.
        Raises InvalidArgument for anything but a harmless archive, StorageFull when the quota would be exceeded.
        """
        version_id = self._new_id() if request is None else f"code-{hashlib.sha256(request.encode()).hexdigest()[:12]}"
        for known in self._versions.list():
            if known.id == version_id:
                return known
        try:
            archive.check(upload.path, LIMITS)
        except errors.InvalidArgument as error:
            raise errors.InvalidArgument(f"Invalid arguments ({error})", hint=error.hint) from error
        return self._store(version_id, base_name(upload.filename), description, upload.path)

    def add_default(self, build: Callable[[pathlib.Path], None], name: str = f"{DEFAULT_ID}.tar") -> None:
        """Write the version that every service begins with, and enable it if nothing is. Idempotent."""
        with self._lock:
            target = self._directory / DEFAULT_ID
            draft = target.with_name(f".{DEFAULT_ID}.new")
            build(draft)
            _sync(draft)
            draft.replace(target)
            file.sync_directory(self._directory)
            record = records.CodeRecord(DEFAULT_ID, name, "Initial version", time.time(), "archive", str(target))
            self._versions.add(record)
            if self._versions.current() is None:
                self._versions.set_current(DEFAULT_ID)

    def register_push(self) -> records.CodeRecord | None:
        """Make a version of what was pushed last; None if this service's directory is absent from it or unchanged. Idempotent."""
        with self._lock:
            revision = self._revisions.pushed()
            if revision is None:
                return None
            tree = self._revisions.directory(revision.id, self._subdirectory)
            registered = next((record for record in self._versions.list() if record.kind == GIT), None)
            if tree is None or (registered is not None and tree == self._revisions.directory(registered.path, self._subdirectory)):
                return None
            self._revisions.keep(revision.id)
            record = records.CodeRecord(f"git-{revision.short}", revision.short, revision.subject, time.time(), GIT, revision.id)
            self._versions.add(record)
            return record

    def download(self, version_id: str | None) -> rpc.FileDownload:
        """The archive of a version (None: of the enabled one) as it was uploaded."""
        record = self.current() if version_id is None else self._known(version_id)
        if record.kind == GIT:
            raise errors.InvalidArgument("ERROR: To download this code, please clone the git repository")
        return rpc.FileDownload(record.filename, self._directory / record.id)

    def delete(self, version_id: str) -> None:
        """Forget a version that is not enabled, and its archive."""
        with self._lock:
            record = self._known(version_id)
            if record.current:
                raise errors.InvalidArgument("Invalid arguments (Cannot remove the active code version)")
            self._versions.delete(record.id)
            (self._directory / record.id).unlink(missing_ok=True)
            if record.kind == GIT:
                self._revisions.release(record.path)

    def set_current(self, version_id: str) -> None:
        """Note that a version is the enabled one."""
        self._versions.set_current(version_id)

    def archive(self, version_id: str) -> pathlib.Path:
        """The archive to ship to the nodes; for a git version it is made from its revision, and checked like an upload."""
        record = self.get(version_id)
        path = self._directory / record.id
        with self._lock:
            if record.kind == GIT and not path.exists():
                draft = path.with_name(f".{record.id}.new")
                try:
                    self._revisions.archive(record.path, self._subdirectory, draft)
                    archive.check(draft, LIMITS)
                    draft.replace(path)
                finally:
                    draft.unlink(missing_ok=True)
        if not path.exists():
            raise errors.NotFound(f"The archive of code version {record.id} is missing on the manager", hint="upload it again")
        return path

    def clean(self) -> None:
        """Remove archives that no version refers to: uploads cut off by a crash. Call before serving."""
        known = {record.id for record in self._versions.list()}
        for path in self._directory.iterdir():
            if path.name not in known:
                file.remove_tree(path)

    def _known(self, version_id: str) -> records.CodeRecord:
        for record in self._versions.list():
            if record.id == version_id:
                return record
        raise errors.InvalidArgument("Invalid arguments (Invalid codeVersionId)")

    def _new_id(self) -> str:
        known = {record.id for record in self._versions.list()}
        while (version_id := "code-" + "".join(secrets.choice(_LETTERS) for _ in range(6))) in known:
            pass
        return version_id

    def _store(self, version_id: str, filename: str, description: str, content: pathlib.Path) -> records.CodeRecord:
        target = self._directory / version_id
        with self._lock:
            used = sum(path.stat().st_size for path in self._directory.iterdir() if path.is_file())
            if used + content.stat().st_size > self._quota:
                raise errors.StorageFull(
                    f"The code versions of this service take {used} bytes; with this one they would exceed {self._quota}",
                    hint="delete code versions that are no longer used",
                )
            draft = target.with_name(f".{version_id}.new")
            try:
                shutil.copyfile(content, draft)
                _sync(draft)
                draft.replace(target)
            except OSError as error:
                raise errors.StorageFull(f"The code version cannot be stored: {error.strerror}") from error
            finally:
                draft.unlink(missing_ok=True)
            file.sync_directory(self._directory)
            record = records.CodeRecord(version_id, filename, description, time.time(), "archive", str(target))
            self._versions.add(record)
            return record


def base_name(filename: str) -> str:
    """The last part of a name that a client sent, harmless in a header and as the name of a file."""
    name = re.split(r"[/\\]", filename)[-1]
    name = "".join(letter for letter in name if letter.isprintable() and letter not in '"').strip()[-_MAX_NAME:]
    return name if name not in ("", ".", "..") else "code"


def _to_wire(record: records.CodeRecord) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "codeVersionId": record.id,
        "filename": record.filename,
        "description": record.description,
        "time": record.time,
    }
    return shown | ({"current": True} if record.current else {})


def _sync(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
