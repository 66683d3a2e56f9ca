"""Ready-made applications: which there are, and what their files are made of."""

from __future__ import annotations

import json
import os
import pathlib
import tarfile

import pytest

from conpaas.core import errors
from conpaas.director.manifest import fetch, prepare, ready_made, schema

APT = """#!/bin/sh
[ -z "$APT_FAILS" ] || { echo "E: Unable to locate package" >&2; exit 100; }
for package in "$@"; do case $package in -*|download) ;; *) : >"$package.deb" ;; esac; done
"""
DPKG = """#!/bin/sh
mkdir -p "$3/usr/share/mediawiki/maintenance" "$3/usr/share/elsewhere" "$3/etc"
cd "$3/usr/share/mediawiki"
echo code >index.php
echo secret >LocalSettings.php
ln -sf /usr/share/elsewhere linked
ln -sf ../elsewhere/file relative.php
ln -sf /etc/passwd outside.php
ln -sf ../../../../../../../../etc/hostname far-outside.php
ln -sf . loop
echo file >../elsewhere/file
echo "CREATE TABLE t (a INT) ENGINE = MyISAM;" >maintenance/tables-generated.sql
echo "INSERT INTO t VALUES (1);" >maintenance/update-keys.sql
"""


@pytest.fixture
def tools(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Stand-ins for Debian's commands, since packages come from the network."""
    where = tmp_path / "bin"
    where.mkdir()
    for name, text in (("apt-get", APT), ("dpkg-deb", DPKG)):
        (where / name).write_text(text)
        (where / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{where}:{os.environ['PATH']}")
    return tmp_path


def test_every_descriptor_is_complete_and_its_manifest_names_its_files_only() -> None:
    found = {one.name: one for one in ready_made.catalogue()}
    assert set(found) == {"mediawiki", "wordpress"}
    for one in found.values():
        assert one.label and one.description and one.then and one.packages
        schema.parse(json.dumps(one.manifest))
        named = {name for name in json.dumps(one.manifest).split('"') if name.startswith(ready_made.SCHEME)}
        assert named == {f"{ready_made.SCHEME}{path.name.partition('.')[0]}" for path in one.files(pathlib.Path())}


def test_files_are_made_of_the_packages_and_ours(tools: pathlib.Path) -> None:
    wiki, directory, said = ready_made.find("mediawiki"), tools / "ready", list[str]()
    assert "cpsdirector ready-made prepare mediawiki" in wiki.missing(directory)
    archive, dump = prepare.prepare(wiki, directory, said.append)
    assert wiki.missing(directory) == ""
    assert said == ["Downloading mediawiki mediawiki-classes", "Packing mediawiki.tar.gz"]
    with tarfile.open(archive) as packed:
        names = packed.getnames()
        settings = packed.extractfile("LocalSettings.php")
        assert settings is not None and b"conpaas_setting" in settings.read()  # ours, not the package's
        assert all(member.isfile() for member in packed)
    assert {"index.php", "linked/file", "relative.php", "setup.php"} <= set(names)
    assert not {"outside.php", "far-outside.php"} & set(names)
    assert names.count("LocalSettings.php") == 1
    text = dump.read_text()
    assert text.startswith("CREATE DATABASE IF NOT EXISTS `mediawiki`;\nUSE `mediawiki`;\n")
    assert "MyISAM" not in text and "INSERT INTO t" in text
    assert sorted(path.name for path in directory.iterdir()) == ["mediawiki-tables.sql", "mediawiki.tar.gz"]


def test_a_failure_leaves_what_was_there(tools: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wiki, directory = ready_made.find("mediawiki"), tools / "ready"
    archive, _ = prepare.prepare(wiki, directory, lambda _: None)
    before = archive.stat().st_mtime_ns
    monkeypatch.setenv("APT_FAILS", "1")
    with pytest.raises(errors.OperationFailed, match="E: Unable to locate package"):
        prepare.prepare(wiki, directory, lambda _: None)
    assert archive.stat().st_mtime_ns == before
    assert len(list(directory.iterdir())) == 2


def test_a_machine_without_debians_commands_says_so(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.OperationFailed, match="`apt-get` cannot be run"):
        prepare.prepare(ready_made.find("wordpress"), tmp_path / "ready", lambda _: None)


def test_a_ready_made_file_is_fetched_from_its_directory_only(tmp_path: pathlib.Path) -> None:
    directory = tmp_path / "ready"
    directory.mkdir()
    (directory / "blog.tar.gz").write_bytes(b"archive")
    (tmp_path / "secret.tar.gz").write_bytes(b"secret")
    (directory / "tables.sql").write_bytes(b"sql")
    fetcher = fetch.Fetcher(ready_made=directory)
    for name, content in (("blog", b"archive"), ("tables", b"sql")):
        label = fetcher.fetch(f"ready-made:{name}", tmp_path / "got", 100)
        assert label.startswith(f"{name}.") and (tmp_path / "got").read_bytes() == content
    for url in (
        "ready-made:../secret",
        "ready-made:",
        "ready-made:blog.tar",
        "ready-made:blog\n",
        "ready-made:/etc/passwd",
        "ready-made:none",
    ):
        with pytest.raises(errors.OperationFailed, match="is not on this Director"):
            fetcher.fetch(url, tmp_path / "got", 100)
    with pytest.raises(errors.OperationFailed):
        fetch.Fetcher().fetch("ready-made:blog", tmp_path / "got", 100)


def test_an_application_that_is_not_there() -> None:
    with pytest.raises(errors.NotFound) as caught:
        ready_made.find("zope")
    assert caught.value.hint == "There are: mediawiki, wordpress."
