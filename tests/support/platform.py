"""A whole platform for tests: a Director process with its own state directory, cloud and loopback addresses, and a user's command line.

Everything it starts is found again by its state directory and removed by `close`, also when the test failed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from conpaas.core import faults, resources

BIN = pathlib.Path(sys.executable).parent
DEADLINE = 90.0
"""Seconds that anything may take before a test gives up."""


def until(condition: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
    """Poll until `condition()` is true and return what it gave; fail with `what` after `deadline` seconds."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline:.0f} s: {what}")
        time.sleep(0.05)


@dataclasses.dataclass
class Result:
    """What one command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Platform:
    """A Director on `127.<net>.255.1:5555` whose `dummy` cloud hands out 127.<net>.0.0/17, and one user, `alice`.

    `packages`: a directory with Python packages that Director, VMs and commands have besides what is installed.
    `boot`: lines of shell that every VM runs before anything else.
    `frontend` are keys of its web front-end, which it has none of without `ENABLED`.
    `other` is the name of a second cloud, which hands out 127.<net>.128.0/18; without a name there is none.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        net: int,
        *,
        director: dict[str, str] | None = None,
        cloud: dict[str, str] | None = None,
        manager: dict[str, str] | None = None,
        frontend: dict[str, str] | None = None,
        commands: pathlib.Path = BIN,
        packages: pathlib.Path | None = None,
        boot: str = "",
        other: str = "",
    ) -> None:
        self.directory = directory
        self.clouds = {"iaas": directory / "cloud", **({other: directory / f"cloud-{other}"} if other else {})}
        """Where each cloud keeps what it has, by the names they have inside."""
        self.net = net
        self.url = f"https://127.{net}.255.1:5555"
        self.state = directory / "director"
        self.config = self.state / "director.cfg"
        self.director_faults = directory / "faults-director"
        self.manager_faults = directory / "faults-manager"
        self.process: subprocess.Popen[bytes] | None = None
        self._director_keys = director or {}
        self._cloud_keys = cloud or {}
        self._manager_keys = manager or {}
        self._frontend_keys = frontend or {}
        self._commands = commands
        self._packages = packages
        self._boot = boot if packages is None else f"{boot}\nexport PYTHONPATH={packages}"
        self.passwords: dict[str, str] = {}

    # --- the Director ------------------------------------------------------------------------------------------------

    def write_config(self) -> None:
        """The Director's configuration, and for managers one that reaches their fault points."""
        self.state.mkdir(parents=True, exist_ok=True)
        manager = self.directory / "conf" / "config" / "manager" / "default-manager.cfg"
        manager.parent.mkdir(parents=True, exist_ok=True)
        keys = "".join(f"{key} = {value}\n" for key, value in {"FAULTS": self.manager_faults, **self._manager_keys}.items())
        manager.write_text(resources.read("config/manager/default-manager.cfg") + keys)
        if self._boot:
            script = self.directory / "conf" / "scripts" / "cloud" / "dummy"
            script.parent.mkdir(parents=True, exist_ok=True)
            script.write_text(f"{resources.read('scripts/cloud/dummy')}\n{self._boot}\n")
        sections = {
            "conpaas": {"DEPLOYMENT_NAME": f"test-{self.net}", "CONF_DIR": self.directory / "conf"},
            "director": {
                "STATE_DIR": self.state,
                "DIRECTOR_URL": self.url,
                "SWEEP_INTERVAL": "2",
                "NODE_TIMEOUT": "60",
                **self._director_keys,
            },
        }
        for (name, where), network in zip(self.clouds.items(), ("0.0/17", "128.0/18"), strict=False):
            sections[name] = {"DRIVER": "dummy", "STATE_DIR": where, "NETWORK": f"127.{self.net}.{network}", **self._cloud_keys}
        sections["frontend"] = {"ENABLED": "no", **self._frontend_keys}
        sections["iaas"]["OTHER_CLOUDS"] = " ".join(name for name in self.clouds if name != "iaas")
        text = "".join(f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items()) for name, keys in sections.items())
        self.config.write_text(text)

    def start(self) -> None:
        """Start the Director and wait until it answers."""
        self._launch()
        until(self.answers, f"the Director answers; its words are in {self.directory / 'director.out'}", 30)

    def _launch(self) -> None:
        log = (self.directory / "director.out").open("ab")
        environment = {**self.environment(), "CONPAAS_FAULTS": str(self.director_faults)}
        self.process = subprocess.Popen(
            [self._commands / "cpsdirector", "serve"], env=environment, stdout=log, stderr=log, start_new_session=True
        )
        log.close()

    def answers(self) -> bool:
        certificate = self.state / "certs" / "ca_cert.pem"
        if not certificate.exists():
            return False
        command = ["curl", "--silent", "--fail", "--max-time", "2", "--cacert", str(certificate), f"{self.url}/version"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def kill_director(self) -> None:
        """SIGKILL, as a crash would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    @contextlib.contextmanager
    def revived(self) -> Iterator[None]:
        """While this lasts, a Director that dies is started again at once, as a supervisor would; in the end it answers."""
        ending = threading.Event()

        def keep() -> None:
            while not ending.wait(0.05):
                if self.process is not None and self.process.poll() is not None:
                    self._launch()

        keeper = threading.Thread(target=keep)
        keeper.start()
        try:
            yield
        finally:
            ending.set()
            keeper.join()
            if self.process is not None and self.process.poll() is not None:
                self._launch()
            until(self.answers, "the Director answers again", 30)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)

    # --- commands ----------------------------------------------------------------------------------------------------

    def environment(self, user: str = "alice") -> dict[str, str]:
        home = self.directory / "home" / user
        home.mkdir(parents=True, exist_ok=True)
        return {
            "PATH": f"{self._commands}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(home),
            "DIRECTOR_CFG": str(self.config),
            "LANG": "C.UTF-8",
            **({"PYTHONPATH": str(self._packages)} if self._packages is not None else {}),
        }

    def run(
        self, *command: str | os.PathLike[str], user: str = "alice", stdin: str = "", check: bool = True, cwd: pathlib.Path | None = None
    ) -> Result:
        """Run one of our commands as a user. With `check`, a failure fails the test with all that it printed."""
        done = subprocess.run(
            [self._commands / str(command[0]), *map(str, command[1:])],
            env=self.environment(user),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=DEADLINE * 3,
            check=False,
            cwd=cwd,
        )
        result = Result(done.returncode, done.stdout, done.stderr)
        assert not check or result.code == 0, f"{' '.join(map(str, command))} ended with {result.code}\n{result.out}\n{result.err}"
        return result

    def cps(self, *words: str | os.PathLike[str], user: str = "alice", check: bool = True) -> Result:
        return self.run("cps-tools", *words, user=user, check=check)

    def data(self, *words: str | os.PathLike[str], user: str = "alice") -> Any:
        """The JSON output of a command."""
        return self.run("cps-tools", "--output", "json", *words, user=user).json

    def add_user(self, name: str, credit: int = 1000) -> None:
        """Create a user and sign in as that user."""
        password = secrets.token_hex(12)
        self.passwords[name] = password
        self.run(
            "cpsdirector",
            "user",
            "create",
            name,
            "--email",
            f"{name}@example.org",
            "--credit",
            str(credit),
            "--password-file",
            "-",
            stdin=password,
        )
        self.run("cps-tools", "--username", name, "login", self.url, "--password-stdin", "--yes", user=name, stdin=password)

    # --- the cloud ---------------------------------------------------------------------------------------------------

    def vms(self) -> list[dict[str, Any]]:
        """The VMs that exist on the clouds, from their own records; `cloud` is the name of the cloud."""
        found = []
        for name, where in self.clouds.items():
            for record in sorted((where / "vms").glob("*/vm.json")):
                with contextlib.suppress(FileNotFoundError):
                    found.append({**json.loads(record.read_text()), "cloud": name})
        return found

    def cloud_faults(self, cloud: str = "iaas", /, **faults: Any) -> None:
        """Have a cloud fail as told (see `clouds/dummy/faults.py`); without arguments, no longer."""
        (self.clouds[cloud] / "faults.json").write_text(json.dumps(faults))

    # --- crashes -----------------------------------------------------------------------------------------------------

    def arm(self, component: str, kind: str, steps: list[str], whens: tuple[str, ...], *, hold: bool = False) -> int:
        """Have the component kill itself once at each of these points, in the order it gets there; how many they are.

        With `hold` it lives, and what it does stands still at each of them until `release`.
        """
        points = [f"{component} {kind} {step} {when}{f' {faults.HOLD}' if hold else ''}\n" for step in steps for when in whens]
        self._faults(component).write_text("".join(points))
        return len(points)

    def armed(self, component: str) -> list[str]:
        """The points not reached yet."""
        try:
            return self._faults(component).read_text().splitlines()
        except FileNotFoundError:
            return []

    def held(self, component: str) -> str:
        """The point at which the component waits now; empty if it waits at none."""
        try:
            return faults.held_file(self._faults(component)).read_text().strip()
        except FileNotFoundError:
            return ""

    def release(self, component: str) -> None:
        """Let the component go on from the point it is held at. Idempotent."""
        faults.held_file(self._faults(component)).unlink(missing_ok=True)

    def disarm(self, component: str) -> None:
        """Nothing happens to the component any more, and it goes on if it was held."""
        self._faults(component).unlink(missing_ok=True)
        self.release(component)

    def _faults(self, component: str) -> pathlib.Path:
        return self.director_faults if component == "director" else self.manager_faults

    # --- all of it ---------------------------------------------------------------------------------------------------

    def open(self) -> None:
        self.write_config()
        self.run("cpsdirector", "init", "--state", self.state)
        self.start()
        self.add_user("alice")

    def close(self) -> None:
        """Stop the Director, destroy every VM and volume, and check that nothing is left."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        if self.config.exists():
            self.run("cpsdirector", "cloud", "destroy")
        assert not self.vms(), "VMs were left behind"


@contextlib.contextmanager
def platform(directory: pathlib.Path, net: int, **keys: Any) -> Iterator[Platform]:
    """A platform for the length of a `with` block."""
    whole = Platform(directory, net, **keys)
    try:
        whole.open()
        yield whole
    finally:
        whole.close()
