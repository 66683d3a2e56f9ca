"""Installing Debian's packages: their daemons neither start nor stay enabled, and those that were there before are left alone."""

from __future__ import annotations

import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
PROGRAMS = {
    "dpkg-query": '[ -e "$MACHINE/packages/${@: -1}" ] && echo installed',
    "apt-get": """
        [[ " $* " != *" install "* ]] && exit
        [ -e "$MACHINE/interrupted" ] && { kill -KILL $PPID; exit 1; }
        "$POLICY" || echo denied >>"$MACHINE/told"
        for name in "${@: -3}"; do touch "$MACHINE/packages/$name"; done
        touch "$MACHINE/units/nginx.service" "$MACHINE/units/php8.2-fpm.service" """,
    "systemctl": 'echo "$@" >>"$MACHINE/told"',
    "sudo": '[ -e "$MACHINE/sudo" ] && shift && exec "$@"',
    "id": "echo 1000",
}


class Machine:
    """A machine on which all programs that matter only note what they were told."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        for name in ("bin", "packages", "units", "systemd", "state"):
            (directory / name).mkdir()
        for name, text in PROGRAMS.items():
            program = directory / "bin" / name
            program.write_text(f"#!/bin/bash\n{text}\n")
            program.chmod(0o755)
        (directory / "sudo").touch()

    def install(self) -> subprocess.CompletedProcess[str]:
        script = ". scripts/lib/bootstrap.sh; PATH=$MACHINE/bin:$PATH; install_packages nginx-light php8.2-fpm logrotate"
        places = {"STATE": "state", "SYSTEMD": "systemd", "UNIT_PLACES": "units", "POLICY": "policy-rc.d"}
        environment = {"PATH": os.environ["PATH"], "ROOT": str(ROOT), "PROGRAM": "quickstart", "MACHINE": str(self.directory)}
        environment |= {name: str(self.directory / place) for name, place in places.items()}
        return subprocess.run(["bash", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    @property
    def told(self) -> list[str]:
        return (self.directory / "told").read_text().splitlines() if (self.directory / "told").exists() else []


@pytest.fixture
def machine(tmp_path: pathlib.Path) -> Machine:
    return Machine(tmp_path)


DENIED = "denied"
DISABLED = ["disable --now nginx", "disable --now php8.2-fpm"]


def test_new_daemons_are_neither_started_nor_enabled(machine: Machine) -> None:
    done = machine.install()
    assert (done.returncode, machine.told) == (0, [DENIED, *DISABLED]), done.stdout + done.stderr
    assert not (machine.directory / "policy-rc.d").exists()
    assert machine.install().returncode == 0
    assert machine.told == [DENIED, *DISABLED]


def test_a_web_server_that_was_there_before_is_left_alone(machine: Machine) -> None:
    (machine.directory / "units" / "nginx.service").touch()
    assert machine.install().returncode == 0
    assert machine.told == [DENIED, "disable --now php8.2-fpm"]


def test_what_an_interrupted_run_installed_is_disabled_by_the_next_one(machine: Machine) -> None:
    (machine.directory / "interrupted").touch()
    assert machine.install().returncode != 0
    (machine.directory / "interrupted").unlink()
    for name in ("nginx", "php8.2-fpm"):
        (machine.directory / "units" / f"{name}.service").touch()
    assert machine.install().returncode == 0
    assert machine.told == [DENIED, *DISABLED]


def test_without_root_the_whole_command_is_told(machine: Machine) -> None:
    (machine.directory / "sudo").unlink()
    refused = machine.install()
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[1].strip() == (
        "Ask for them once with:  sudo apt-get install --no-install-recommends nginx-light php8.2-fpm logrotate"
        " && sudo systemctl disable --now nginx php8.2-fpm"
    )
    assert machine.told == []
