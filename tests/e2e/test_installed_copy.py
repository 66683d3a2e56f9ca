"""An installed copy needs nothing of the source tree: installed from a copy that is then deleted, it boots VMs and runs a service."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator

import pytest

from tests.support import platform as platforms

ROOT = pathlib.Path(__file__).resolve().parents[2]
TREES = ("config", *(f"scripts/{part}" for part in ("agent", "cloud", "manager", "vm")), "misc/completion", "misc/examples")
NOT_SOURCE = ("var", ".git", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis")


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CONPAAS_", "CPS_"))}


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A virtual environment with the package, not editable, and what it depends on (from the one that runs this); its bin."""
    place = tmp_path_factory.mktemp("installed")
    source, target = place / "source", place / "venv"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*NOT_SOURCE))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", target], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(target / "bin" / "python"), "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, str(source)], check=True, env=clean_environment(), stdin=subprocess.DEVNULL)
    shutil.rmtree(source)
    site = next(target.glob("lib/python*/site-packages"))
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")  # as a plain path: the editable copy in there is not seen
    return target / "bin"


@pytest.fixture
def platform(tmp_path: pathlib.Path, commands: pathlib.Path) -> Iterator[platforms.Platform]:
    with platforms.platform(tmp_path, 115, commands=commands) as made:
        yield made


def evaluate(commands: pathlib.Path, program: str) -> str:
    done = subprocess.run(
        [commands / "python", "-c", program], cwd="/", env=clean_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_it_is_the_copy_that_is_imported(commands: pathlib.Path) -> None:
    place = pathlib.Path(evaluate(commands, "import conpaas; print(conpaas.__file__)"))
    assert place.is_relative_to(commands.parent)


@pytest.mark.parametrize("tree", TREES)
def test_it_has_the_files_that_it_needs_at_run_time(commands: pathlib.Path, tree: str) -> None:
    have = pathlib.Path(evaluate(commands, "import conpaas; print(conpaas.__path__[0])")) / "_data" / tree
    wanted = {path.relative_to(ROOT / tree) for path in (ROOT / tree).rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert wanted
    assert {path.relative_to(have) for path in have.rglob("*") if path.is_file() and path.suffix != ".pyc"} == wanted


def test_a_service_runs_on_it(platform: platforms.Platform, commands: pathlib.Path) -> None:
    platform.cps("application", "create", "shop")
    platform.cps("application", "start", "shop")
    platform.cps("helloworld", "add", "shop")
    platform.cps("service", "start", "shop", "1")
    platform.cps("service", "add_nodes", "shop", "1", "--count", "1")
    assert len({node["ip"] for node in platform.data("service", "list_nodes", "shop", "1")}) == 2
    assert platform.cps("helloworld", "get_helloworld", "shop", "1").out.count("Received helloworld from") == 2
    running = [process for process in pathlib.Path("/proc").glob("[0-9]*/cmdline") if _mentions(process, platform.directory)]
    assert any(str(commands.parent) in process.read_text(errors="replace") for process in running), "VMs run the installed copy"


def _mentions(command: pathlib.Path, directory: pathlib.Path) -> bool:
    try:
        return str(directory) in command.read_text(errors="replace")
    except OSError:
        return False


def test_the_commands_complete_and_explain_themselves(platform: platforms.Platform) -> None:
    assert "complete" in platform.cps("completion", "bash").out
    assert "cps-tools" in platform.cps("--help").out
