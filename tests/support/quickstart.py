"""`scripts/quickstart` with a state directory and addresses of its own, for tests."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import shlex
import subprocess
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEADLINE = 900.0
"""Seconds that one run may take: the first one fetches packages."""


@dataclasses.dataclass
class Quickstart:
    """One state directory. `net` is the second number of its loopback addresses."""

    state: pathlib.Path
    net: int

    @property
    def address(self) -> str:
        return f"127.{self.net}.255.1:5555"

    def command(self, *options: str) -> list[str]:
        return [str(ROOT / "scripts" / "quickstart"), "--state", str(self.state), *options]

    @property
    def first(self) -> list[str]:
        """The options of a first run."""
        return ["--address", self.address, "--network", f"127.{self.net}.0.0/17"]

    @property
    def environment(self) -> dict[str, str]:
        """What a person's shell has; nothing of the virtual environment that runs the tests."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CPS_", "CONPAAS_", "VIRTUAL_ENV", "PYTHON"))}
        return {**kept, "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

    def run(self, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run it; with `check`, a failure fails the test with all that it printed."""
        return self._do(self.command(*options), ROOT, check)

    def paste(self, line: str, cwd: pathlib.Path = ROOT) -> str:
        """Have a shell do what quickstart proposed; its output."""
        return self._do(["bash", "-c", line], cwd, True).stdout

    def _do(self, command: list[str], cwd: pathlib.Path, check: bool) -> subprocess.CompletedProcess[str]:
        how: dict[str, Any] = {
            "env": self.environment,
            "stdin": subprocess.DEVNULL,
            "capture_output": True,
            "text": True,
            "timeout": DEADLINE,
        }
        done = subprocess.run(command, cwd=cwd, check=False, **how)
        assert not check or done.returncode == 0, f"{shlex.join(command)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def processes(self) -> list[str]:
        """The command lines of all processes that have to do with the state directory."""
        found, own, wanted = [], str(os.getpid()), os.fsencode(self.state)
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                command, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
            except OSError:
                continue  # it has ended, or is another user's
            if process.name != own and wanted in command + environment:
                found.append(command.replace(b"\0", b" ").decode(errors="replace"))
        return found


def proposals(output: str) -> list[str]:
    """The commands below 'Try next:'."""
    return re.findall(r"^    (\S.*)$", output.partition("Try next:\n")[2], re.MULTILINE)


def table(output: str) -> dict[str, str]:
    """The lines `Web pages …`, `Director …`, `User …`, `Password …`, `State …` and `Demo site …`."""
    return dict(re.findall(r"^    (Web pages|Director|User|Password|State|Demo site) +(\S.*)$", output, re.MULTILINE))
