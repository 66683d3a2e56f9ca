"""Reading and writing multipart bodies."""

from __future__ import annotations

import contextlib
import io
import pathlib
import resource
import signal

import hypothesis
import pytest
from hypothesis import strategies as st

from conpaas.core import errors, params
from conpaas.core.https import limits, multipart

SMALL = limits.Limits(field_bytes=1000, fields=5)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters='"\\\0', exclude_categories=("Cc", "Cs")), min_size=1, max_size=20)
VALUES = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=200)


def parse(body: bytes, boundary: bytes, spool: pathlib.Path, bounds: limits.Limits = SMALL) -> dict[str, object]:
    """The fields of a body, files as (name, content)."""
    with multipart.FormReader(boundary, spool, bounds) as form:
        fields = form.read(io.BytesIO(body), len(body))
        return {
            name: (value.filename, value.open().read()) if isinstance(value, params.UploadedFile) else value
            for name, value in fields.items()
        }


def written(form: multipart.FormWriter) -> bytes:
    body = b"".join(form)
    assert len(body) == len(form)
    return body


@hypothesis.given(st.dictionaries(NAMES, VALUES, max_size=3), st.binary(max_size=3000), NAMES)
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, fields: dict[str, str], data: bytes, filename: str
) -> None:
    hypothesis.assume("file" not in fields and not filename.startswith("\\\\") and filename[1:3] != ":\\")
    spool = tmp_path_factory.mktemp("spool")
    form = multipart.FormWriter(fields, {"file": (filename, io.BytesIO(data))})
    boundary = form.content_type.partition("boundary=")[2].encode()
    assert parse(written(form), boundary, spool) == {**fields, "file": (filename, data)}
    assert written(form) == written(form), "a body can be sent again"
    assert not list(spool.iterdir())


def test_files_come_from_disk_and_from_where_they_stand(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "code.tar.gz"
    path.write_bytes(b"x" * 200_000)
    opened = io.BytesIO(b"skipped-rest")
    opened.seek(8)
    form = multipart.FormWriter({"flag": True}, {"a": path, "b": ("dir/b.txt", opened)})
    body = written(form)
    assert b"Content-Type: application/x-tar" in body
    fields = parse(body, form.content_type.partition("boundary=")[2].encode(), tmp_path)
    assert fields == {"flag": "True", "a": ("code.tar.gz", b"x" * 200_000), "b": ("dir/b.txt", b"rest")}


def test_a_missing_file_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.NotFound, match=r"absent\.zip"):
        multipart.FormWriter({}, {"code": tmp_path / "absent.zip"})


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", errors.InvalidArgument),
        (b"garbage", errors.InvalidArgument),
        (b"--b\r\n", errors.InvalidArgument),
        (b"--b\r\nContent-Disposition: form-data; name=x\r\n\r\nvalue", errors.InvalidArgument),
        (b"--b\r\nContent-Disposition: form-data\r\n\r\nvalue\r\n--b--\r\n", errors.InvalidArgument),
        (b"--b\r\n\r\nvalue\r\n--b--\r\n", errors.InvalidArgument),
        (b"--b\r\nContent-Disposition: form-data; name=x\r\n\r\n\xff\xfe\r\n--b--\r\n", errors.InvalidArgument),
        (b"--b\r\nContent-Disposition: form-data; name=x\r\n\r\n" + b"v" * 1001 + b"\r\n--b--\r\n", errors.TooLarge),
        (b"".join(b"--b\r\nContent-Disposition: form-data; name=x\r\n\r\n\r\n" for _ in range(6)) + b"--b--\r\n", errors.TooLarge),
        (b"--b\r\n" + b"X: y\r\n" * 100 + b"\r\n\r\n--b--\r\n", errors.InvalidArgument),
        (b"--b\r\nX" + b"x" * 100_000 + b": y\r\n\r\n\r\n--b--\r\n", errors.InvalidArgument),
    ],
)
def test_bad_bodies_are_refused_and_leave_nothing(tmp_path: pathlib.Path, body: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        parse(body, b"b", tmp_path)
    assert not list(tmp_path.iterdir())


@hypothesis.given(st.binary(max_size=300))
def test_no_bytes_confuse_it(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    spool = tmp_path_factory.mktemp("spool")
    body = b'--b\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n' + data
    with contextlib.suppress(errors.InvalidArgument):
        parse(body, b"b", spool)
    assert not list(spool.iterdir())


def test_the_last_of_repeated_fields_wins_and_no_file_is_left(tmp_path: pathlib.Path) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="x"; filename="%s"\r\n\r\n%s\r\n'
    body = part % (b"one", b"1") + part % (b"two", b"2") + b"--b--\r\n"
    assert parse(body, b"b", tmp_path) == {"x": ("two", b"2")}
    assert not list(tmp_path.iterdir())


def test_a_file_the_handler_moved_stays(tmp_path: pathlib.Path) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="x"; filename="a"\r\n\r\nkept\r\n--b--\r\n'
    with multipart.FormReader(b"b", tmp_path, SMALL) as form:
        uploaded = form.read(io.BytesIO(body), len(body))["x"]
        assert isinstance(uploaded, params.UploadedFile)
        uploaded.path.rename(tmp_path / "kept")
    assert (tmp_path / "kept").read_bytes() == b"kept"


def test_a_full_disk_is_reported_as_such(tmp_path: pathlib.Path) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="x"; filename="a"\r\n\r\n' + b"x" * 200_000 + b"\r\n--b--\r\n"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(errors.StorageFull):
            parse(body, b"b", tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert not list(tmp_path.iterdir())
