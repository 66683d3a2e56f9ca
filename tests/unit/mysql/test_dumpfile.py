"""Dumps are read whatever they are packed with; only lines that dump programs write for an old server are left out."""

from __future__ import annotations

import bz2
import gzip
import lzma
import pathlib
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conpaas.core import errors
from conpaas.services.mysql.workload import dumpfile


def cleaned(text: str, database: str | None = None, size: int = 7) -> str:
    """What the filter makes of a text that comes in pieces."""
    made, data = dumpfile.Filter(database), text.encode()
    pieces = [made.feed(data[start : start + size]) for start in range(0, len(data), size)]
    assert made.lines == text.count("\n")
    return (b"".join(pieces) + made.finish()).decode()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/*!50013 DEFINER=`root`@`localhost` SQL SECURITY DEFINER */", "/*!50013 SQL SECURITY DEFINER */"),
        (
            "/*!50003 CREATE*/ /*!50017 DEFINER=`a``b`@`%`*/ /*!50003 TRIGGER x BEFORE INSERT ON t",
            "/*!50003 CREATE*/ /*!50017 */ /*!50003 TRIGGER x BEFORE INSERT ON t",
        ),
        ("CREATE DEFINER=`root`@`localhost` PROCEDURE `p`()", "CREATE PROCEDURE `p`()"),
        ("create definer = root@localhost function f()", "create function f()"),
        ("CREATE ALGORITHM=UNDEFINED DEFINER=`u`@`h` SQL SECURITY DEFINER VIEW", "CREATE ALGORITHM=UNDEFINED SQL SECURITY DEFINER VIEW"),
        ("CREATE OR REPLACE DEFINER='u'@'h' VIEW v AS SELECT 1", "CREATE OR REPLACE VIEW v AS SELECT 1"),
        (") ENGINE=MyISAM AUTO_INCREMENT=3 DEFAULT CHARSET=utf8;", ") ENGINE=InnoDB AUTO_INCREMENT=3 DEFAULT CHARSET=utf8;"),
        ("SET @@SESSION.SQL_LOG_BIN= 0;", ""),
        ("SET @@GLOBAL.GTID_PURGED=/*!80000 '+'*/ 'abc:1-5';", ""),
    ],
)
def test_lines_for_an_old_server_are_left_out(line: str, expected: str) -> None:
    assert cleaned(f"a;\n{line}\nb;\n") == f"a;\n{expected}\nb;\n"


@pytest.mark.parametrize(
    "line",
    [
        "INSERT INTO t VALUES ('CREATE DEFINER=`a`@`b` VIEW');",
        " CREATE DEFINER=`a`@`b` VIEW v AS SELECT 1;",
        "SET @@GLOBAL.GTID_PURGED='a'; DROP TABLE x;",
        "/* DEFINER=`a`@`b` */",
        "INSERT INTO t VALUES (') ENGINE=MyISAM');",
        ") ENGINE=MyISAMx;",
    ],
)
def test_other_lines_stay(line: str) -> None:
    assert cleaned(line) == line


def test_the_database_that_is_replaced_is_not_chosen() -> None:
    text = "CREATE DATABASE /*!32312 IF NOT EXISTS*/ `my blog` /*!40100 DEFAULT CHARACTER SET latin1 */;\n\nUSE `my blog`;\nUSE `other`;\n"
    assert cleaned(text, "my blog") == "\n\n\nUSE `other`;\n"
    assert cleaned(text) == text
    assert cleaned("use blog;\nUSE blogs;\n", "blog") == "\nUSE blogs;\n"


@given(st.text(max_size=400), st.integers(1, 50))
def test_text_of_no_dump_program_comes_out_as_it_went_in(text: str, size: int) -> None:
    if not {"DEFINER", "ENGINE"} & set(text.upper().split()):
        assert cleaned(text, "x", size) == text


@pytest.mark.parametrize("size", [1000, 70_000, 300_000])
def test_a_line_longer_than_what_is_held_is_one_line(size: int) -> None:
    long = "x" * 200_000 + "CREATE DEFINER=`a`@`b` y"
    text = f"{long}\nCREATE DEFINER=`a`@`b` VIEW v\n"
    assert cleaned(text, size=size) == f"{long}\nCREATE VIEW v\n"


@pytest.mark.parametrize("cut", range(200_000, 200_003))
def test_what_follows_the_part_of_a_long_line_is_not_the_beginning_of_one(cut: int) -> None:
    made = dumpfile.Filter()
    text = (b"y" * cut) + b"CREATE DEFINER=`a`@`b` z"
    assert made.feed(text[:cut]) + made.feed(text[cut:]) + made.feed(b"\nq") + made.finish() == text + b"\nq"


def test_a_short_line_is_held_until_it_ends() -> None:
    made = dumpfile.Filter()
    assert made.feed(b"a;\nDELETE FROM t") == b"a;\n"
    assert made.feed(b" WHERE id = 1;\n") == b"DELETE FROM t WHERE id = 1;\n"


def zst(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-qc"], input=data, check=True, capture_output=True).stdout


PACKERS = {"none": bytes, "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zst}


def read(path: pathlib.Path) -> bytes:
    source = dumpfile.DumpFile(path)
    try:
        found = b"".join(source.chunks())
        assert source.position == source.size
        return found
    finally:
        source.close()


@pytest.mark.parametrize("kind", PACKERS)
def test_files_are_known_by_what_is_in_them(kind: str, tmp_path: pathlib.Path) -> None:
    data = b"".join(b"INSERT INTO t VALUES (%d);\n" % number for number in range(100_000))
    path = tmp_path / "dump.sql"
    path.write_bytes(PACKERS[kind](data))
    assert read(path) == data
    path.write_bytes(b"")
    assert read(path) == b""


@pytest.mark.parametrize("kind", [kind for kind in PACKERS if kind != "none"])
@pytest.mark.parametrize("harm", ["cut", "changed"])
def test_damaged_files_are_refused(kind: str, harm: str, tmp_path: pathlib.Path) -> None:
    data = PACKERS[kind](b"".join(b"INSERT INTO t VALUES (%d);\n" % (number * 7919) for number in range(50_000)))
    middle = len(data) // 2
    path = tmp_path / "dump"
    path.write_bytes(data[:middle] if harm == "cut" else data[:middle] + bytes(64) + data[middle + 64 :])
    with pytest.raises(errors.InvalidArgument, match=f"The {kind} file is damaged: "):
        read(path)


@pytest.mark.parametrize(("magic", "what"), [(b"PK\x03\x04", "a zip archive"), (b"PGDMP", "PostgreSQL's")])
def test_files_of_another_kind_are_named(magic: bytes, what: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "dump"
    path.write_bytes(magic + bytes(100))
    with pytest.raises(errors.InvalidArgument, match=what):
        read(path)


def test_a_dump_that_was_cut_off_is_told_from_a_whole_one(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "dump"
    whole = b"-- MariaDB dump 10.19\nSELECT 1;\n-- Dump completed on 2026-01-01\n"
    path.write_bytes(whole)
    assert read(path) == whole
    path.write_bytes(whole[:-40])
    with pytest.raises(errors.InvalidArgument, match="The dump is incomplete"):
        read(path)


def test_a_file_that_is_left_early_leaves_no_program_behind(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "dump"
    path.write_bytes(zst(bytes(10_000_000)))
    source = dumpfile.DumpFile(path)
    pieces = source.chunks()
    assert next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    source.close()
