"""multipart/form-data: reading an upload to disk, and sending one without holding it in memory."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, Final, Protocol

from conpaas.core import errors, params
from conpaas.core.https import limits as limits_

_CHUNK: Final = 64 * 1024
_OUT_OF_SPACE: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Source(Protocol):
    """Where a body is read from."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes, none at the end."""


class _Part:
    """One part being received: a field collected in memory, or a file written to disk."""

    def __init__(self, name: str, filename: str | None, spool_dir: pathlib.Path | None, limit: int) -> None:
        self.name = name
        self.filename = filename
        self._limit = limit
        self._size = 0
        self._pieces: list[bytes] = []
        self._file: BinaryIO | None = None
        self.path: pathlib.Path | None = None
        if filename is not None:
            import tempfile  # here, since most processes never get an upload

            descriptor, path = tempfile.mkstemp(prefix="upload-", dir=spool_dir)
            self._file = os.fdopen(descriptor, "wb")
            self.path = pathlib.Path(path)

    def write(self, data: bytes) -> None:
        self._size += len(data)
        if self._file is not None:
            self._file.write(data)
        elif self._size > self._limit:
            raise errors.TooLarge(f"The field '{params.shown(self.name)}' has more than {self._limit} bytes.")
        else:
            self._pieces.append(data)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def value(self) -> str | params.UploadedFile:
        if self.path is not None and self.filename is not None:
            return params.UploadedFile(self.filename, self.path, self._size)
        try:
            return b"".join(self._pieces).decode()
        except UnicodeDecodeError as error:
            raise errors.InvalidArgument(f"The field '{params.shown(self.name)}' is not UTF-8 text.") from error


class FormReader:
    """The fields of one multipart body. Use as a context manager: files that are left over are deleted at its end.

    Raises InvalidArgument for a malformed body, TooLarge, StorageFull, and TimeoutError from the source.
    """

    def __init__(self, boundary: bytes, spool_dir: pathlib.Path | None, limits: limits_.Limits) -> None:
        # The parser is imported when the first upload comes: most processes never get one.
        from python_multipart import exceptions, multipart

        logging.getLogger("python_multipart").setLevel(logging.ERROR)
        self._malformed = exceptions.FormParserError
        self._parse_options = multipart.parse_options_header
        self._spool_dir = spool_dir
        self._limits = limits
        self._parts: list[_Part] = []
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._headers: dict[bytes, bytes] = {}
        self._finished = False
        try:
            self._parser = multipart.MultipartParser(
                boundary,
                {
                    "on_part_begin": self._headers.clear,
                    "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": lambda data, start, end: self._parts[-1].write(data[start:end]),
                    "on_part_end": self._on_part_end,
                    "on_end": self._on_end,
                },
            )
        except self._malformed as error:
            raise errors.InvalidArgument(f"The upload is malformed: {error}.") from error

    def __enter__(self) -> FormReader:
        return self

    def __exit__(self, *_: object) -> None:
        for part in self._parts:
            with contextlib.suppress(OSError):  # what was not written yet is thrown away anyway
                part.close()
            if part.path is not None:
                part.path.unlink(missing_ok=True)

    def read(self, source: Source, length: int) -> dict[str, str | params.UploadedFile]:
        """Read the whole body; the last of repeated fields wins."""
        try:
            self._feed(source, length)
        except self._malformed as error:
            raise errors.InvalidArgument(f"The upload is malformed: {error}.") from error
        except OSError as error:
            if error.errno in _OUT_OF_SPACE:
                raise errors.StorageFull("There is no room left on the disk for the upload.") from error
            raise
        if not self._finished:
            raise errors.InvalidArgument("The upload is malformed: its last boundary is missing.")
        return {part.name: part.value() for part in self._parts}

    def _feed(self, source: Source, length: int) -> None:
        while length > 0:
            data = source.read(min(_CHUNK, length))
            if not data:
                raise errors.InvalidArgument("The upload ended early.")
            length -= len(data)
            self._parser.write(data)

    def _on_header_end(self) -> None:
        name, value = self._header
        self._headers[bytes(name).lower()] = bytes(value)
        name.clear()
        value.clear()

    def _on_headers_finished(self) -> None:
        _, options = self._parse_options(self._headers.get(b"content-disposition", b""))
        name, filename = options.get(b"name"), options.get(b"filename")
        if name is None:
            raise errors.InvalidArgument("The upload is malformed: a part has no name.")
        if len(self._parts) >= self._limits.fields:
            raise errors.TooLarge(f"The upload has more than {self._limits.fields} parts.")
        shown_name = None if filename is None else filename.decode("utf-8", "replace")
        self._parts.append(_Part(name.decode("utf-8", "replace"), shown_name, self._spool_dir, self._limits.field_bytes))

    def _on_part_end(self) -> None:
        self._parts[-1].close()

    def _on_end(self) -> None:
        self._finished = True


class FormWriter:
    """A multipart body to send, with its length known beforehand; iterate over it to get its pieces.

    `files` maps a field to a path or to (file name, open binary file); open files are read from their current position,
    and each iteration starts there again.
    """

    def __init__(self, fields: Mapping[str, Any], files: Mapping[str, pathlib.Path | tuple[str, BinaryIO]]) -> None:
        self._boundary = f"conpaas-{os.urandom(16).hex()}"
        self.content_type = f"multipart/form-data; boundary={self._boundary}"
        self._end = f"--{self._boundary}--\r\n".encode()
        self._fields = b"".join(self._head(name) + _text(value).encode() + b"\r\n" for name, value in fields.items())
        self._files = [(self._file_head(name, source), *_measured(source)) for name, source in files.items()]
        self._length = len(self._fields) + sum(len(head) + size + 2 for head, _, size, _ in self._files) + len(self._end)

    def _head(self, name: str, filename: str | None = None, content_type: str | None = None) -> bytes:
        disposition = f'form-data; name="{_quoted(name)}"'
        if filename is not None:
            disposition += f'; filename="{_quoted(filename)}"'
        kind = "" if content_type is None else f"Content-Type: {content_type}\r\n"
        return f"--{self._boundary}\r\nContent-Disposition: {disposition}\r\n{kind}\r\n".encode()

    def _file_head(self, name: str, source: pathlib.Path | tuple[str, BinaryIO]) -> bytes:
        import mimetypes

        filename = source.name if isinstance(source, pathlib.Path) else source[0]
        return self._head(name, filename, mimetypes.guess_type(filename)[0] or "application/octet-stream")

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        yield self._fields
        for head, source, size, start in self._files:
            yield head
            if isinstance(source, pathlib.Path):
                with source.open("rb") as file:
                    yield from _pieces(file, size, str(source))
            else:
                source.seek(start)
                yield from _pieces(source, size, "the file")
            yield b"\r\n"
        yield self._end


def _measured(source: pathlib.Path | tuple[str, BinaryIO]) -> tuple[pathlib.Path | BinaryIO, int, int]:
    """What to read from, how many bytes, and from which position."""
    if isinstance(source, pathlib.Path):
        try:
            return source, source.stat().st_size, 0
        except OSError as error:
            raise errors.NotFound(f"Cannot read the file {source}: {error.strerror}.") from error
    file = source[1]
    start = file.tell()
    return file, file.seek(0, os.SEEK_END) - start, start


def _pieces(file: BinaryIO, size: int, name: str) -> Iterator[bytes]:
    while size > 0:
        data = file.read(min(_CHUNK, size))
        if not data:
            raise errors.OperationFailed(f"{name} became shorter while it was being sent.")
        size -= len(data)
        yield data


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value)


def _quoted(name: str) -> str:
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
