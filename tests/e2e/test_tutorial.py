"""The tutorial, done as it says: its files written, its commands run, on a Director and nodes of their own."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator

import pytest

from tests.support import platform as platforms

ROOT = pathlib.Path(__file__).resolve().parents[2]
TUTORIAL = ROOT / "docs" / "tutorial-new-service.md"


def files() -> dict[str, str]:
    """The files that the tutorial has its reader write: a line with the name, then a fenced block."""
    found = re.findall(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)^```$", TUTORIAL.read_text(), re.MULTILINE | re.DOTALL)
    return dict(found)


def commands() -> list[list[str]]:
    blocks = re.findall(r"^```console\n(.*?)^```$", TUTORIAL.read_text(), re.MULTILINE | re.DOTALL)
    return [line.removeprefix("$ ").split() for block in blocks for line in block.splitlines()]


@pytest.fixture
def environment(tmp_path: pathlib.Path) -> pathlib.Path:
    """A virtual environment that sees all that this one has, so that installing the tutorial's package leaves no trace; its bin."""
    target = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", target], check=True)
    site = next(target.glob("lib/python*/site-packages"))
    (site / "base.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    for command in pathlib.Path(sys.executable).parent.glob("cps*"):
        text = command.read_text().split("\n", 1)[1]
        (target / "bin" / command.name).write_text(f"#!{target}/bin/python\n{text}")
        (target / "bin" / command.name).chmod(0o755)
    return target / "bin"


@pytest.fixture
def project(tmp_path: pathlib.Path) -> pathlib.Path:
    for name, text in files().items():
        path = tmp_path / "greetings" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "greetings"


@pytest.fixture
def platform(tmp_path: pathlib.Path, environment: pathlib.Path, project: pathlib.Path) -> Iterator[platforms.Platform]:
    install = [sys.executable, "-m", "pip", "--python", str(environment / "python"), "install", "--quiet", "--no-deps"]
    subprocess.run([*install, "--editable", str(project)], check=True)
    with platforms.platform(tmp_path, 72, commands=environment) as made:
        yield made


def test_a_reader_gets_what_the_tutorial_promises(platform: platforms.Platform, environment: pathlib.Path, project: pathlib.Path) -> None:
    last = ""
    for command in commands():
        if command[0] == "pip":
            continue
        if command[0] == "pytest":
            tests = [environment / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *command[1:]]
            subprocess.run(tests, cwd=project, check=True, timeout=300)
            continue
        last = platform.run(*command).out
    assert [line.split(" I am ")[0] for line in last.splitlines()] == ["Hello, Ada!"] * 3


def test_the_scaffold_writes_a_service_whose_tests_pass(environment: pathlib.Path, tmp_path: pathlib.Path) -> None:
    subprocess.run([environment / "cps-new-service", "shop_window", "--directory", tmp_path / "shop"], check=True)
    install = [sys.executable, "-m", "pip", "--python", str(environment / "python"), "install", "--quiet", "--no-deps"]
    subprocess.run([*install, "--editable", str(tmp_path / "shop")], check=True)
    tests = [environment / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    subprocess.run(tests, cwd=tmp_path / "shop", check=True, timeout=300)
