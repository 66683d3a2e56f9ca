"""A real agent process of the generic service: killed at will, it loses no script, no notification and no volume."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from conpaas.core import errors, misc, paths
from conpaas.core.https import client, identity, x509

HOST = "127.18.0.2"
UID, AID = 7, 3


def eventually(condition: Callable[[], Any], what: str) -> Any:
    return misc.wait_until(condition, timeout=30, what=what)


class AgentVm:
    """The directory of a VM with its agent's process, and a manager's client."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.paths = paths.Paths.under(root, daemon="cpsagent")
        self.paths.create()
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            self.address = (HOST, int(probe.getsockname()[1]))
        self._ca_key, self._ca = x509.new_ca()
        self._issue(self.paths.certs, "agent")
        self._issue(root / "manager", "manager")
        self.rpc = client.RpcClient(identity.Credentials.from_dir(root / "manager"), identity.expect_agent(UID, AID))
        settings = {"TYPE": "generic", "USER_ID": UID, "APP_ID": AID, "SERVICE_ID": 1, "MANAGER_IP": HOST, "MY_IP": HOST}
        text = "[agent]\n" + "".join(f"{key} = {value}\n" for key, value in (settings | self.paths.to_config()).items())
        (root / "config.cfg").write_text(text + "[generic]\nSCRIPT_GRACE = 0.5\n")
        self.process: subprocess.Popen[bytes] | None = None

    def _issue(self, directory: pathlib.Path, role: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        key = x509.new_key()
        subject = x509.Subject(role=role, cn="ConPaaS", uid=UID, aid=AID)
        (directory / "cert.pem").write_text(x509.issue(self._ca_key, self._ca, key.public_key(), subject, san=[HOST]))
        (directory / "key.pem").write_text(x509.key_pem(key))
        (directory / "ca_cert.pem").write_text(x509.certificate_pem(self._ca))

    def start(self) -> None:
        words = [sys.executable, "-m", "conpaas.core.agent_daemon", "-c", str(self.root / "config.cfg"), "-p", str(self.address[1])]
        self.process = subprocess.Popen(words, start_new_session=True)
        eventually(self._answers, "the agent's first answer")

    def _answers(self) -> bool:
        with contextlib.suppress(errors.Unreachable):
            self.rpc.get(self.address, "check_process")
            return True
        return False

    def kill(self) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        with contextlib.suppress(errors.ConPaaSError):
            self.post("end_scripts")
        if self.process is not None and self.process.poll() is None:
            self.kill()
        self.rpc.close()

    def get(self, method: str, **arguments: Any) -> Any:
        return self.rpc.get(self.address, method, params=arguments)

    def post(self, method: str, **arguments: Any) -> Any:
        return self.rpc.post(self.address, method, params=arguments, timeout=60)

    def bring(self, activation: str, **files: str) -> Any:
        """Stage and activate a code version made of these files, and wait for its init.sh."""
        path = self.root / "code.tar"
        with tarfile.open(path, "w") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content.encode()))
        fields = {"codeVersionId": f"code-{activation}", "activation": activation}
        self.rpc.upload(self.address, "stage_code", fields=fields, files={"file": path})
        run = self.post("activate_code", **fields)["run"]
        return self.get("get_run", run=run, wait=20)["run"] if run else None

    def execute(self, command: str, **more: Any) -> Any:
        return self.post("execute_script", command=command, agents_info=self.members(), **more)

    @staticmethod
    def members(*others: str) -> str:
        known = [{"id": "iaas1", "ip": HOST, "role": "master"}]
        return json.dumps([*known, *({"id": name, "ip": "127.18.0.9", "role": "node"} for name in others)])

    def status(self, script: str) -> str:
        return str(self.get("get_script_status")["scripts"][script])

    def output(self, script: str) -> str:
        return str(self.get("get_script_output", script=script)["output"])


@pytest.fixture
def vm(tmp_path: pathlib.Path) -> Iterator[AgentVm]:
    made = AgentVm(tmp_path)
    try:
        made.start()
        made.post("init_agent", agents_info=made.members(), ip=HOST)
        yield made
    finally:
        made.close()


def test_a_script_outlives_its_agent_and_is_found_again(vm: AgentVm) -> None:
    vm.bring("a1", **{"run.sh": "echo begun; while [ ! -e go ]; do sleep 0.05; done; echo ended $1; exit 6"})
    run = vm.execute("run", parameters="'two words'")["run"]
    vm.kill()
    vm.start()
    assert vm.status("run.sh") == "RUNNING"
    with pytest.raises(errors.RemoteError, match=r"Scripts are already running: run\.sh"):
        vm.execute("run")
    (vm.paths.cache / "bin" / "go").touch()
    ended = vm.get("get_run", run=run, wait=20)["run"]
    assert (ended["status"], ended["exit_code"]) == ("STOPPED (return code 6)", 6)
    assert vm.output("run.sh") == "begun\nended two words\n"
    assert vm.get("get_log", filename="agent.out")["log"] == "begun\nended two words\n"


def test_an_interrupt_goes_on_when_the_agent_is_killed(vm: AgentVm) -> None:
    vm.bring("a1", **{"run.sh": "setsid sleep 600 & exec sleep 600", "interrupt.sh": "while [ ! -e go ]; do sleep 0.05; done"})
    run = vm.execute("run")["run"]
    vm.execute("interrupt")
    vm.kill()
    (vm.paths.cache / "bin" / "go").touch()
    vm.start()
    ended = vm.get("get_run", run=run, wait=20)["run"]
    assert (ended["ended_by"], ended["signal"]) == ("interrupt", "SIGTERM")
    eventually(lambda: not vm.get("get_script_status")["alive"], "the end of all processes")


def test_daemons_that_run_leaves_can_be_interrupted(vm: AgentVm) -> None:
    vm.bring("a1", **{"run.sh": "(setsid bash -c 'trap \"\" TERM; echo $$ > pid; sleep 600' >/dev/null 2>&1 &); sleep 0.1; exit 0"})
    vm.execute("run")
    pid = int(eventually(lambda: (vm.paths.cache / "bin/pid").exists() and (vm.paths.cache / "bin/pid").read_text().strip(), "the daemon"))
    eventually(lambda: vm.get("list_runs")["runs"][0]["daemons"], "the end of the script itself")
    assert vm.status("run.sh") == "RUNNING"
    vm.execute("interrupt")
    eventually(lambda: vm.status("run.sh") == "STOPPED (return code 0)", "the end of the daemon")
    assert not psutil.pid_exists(pid)


def test_a_notification_waits_for_init_and_the_latest_members_win(vm: AgentVm) -> None:
    init = "[ -e $HOME/skip ] && exit 0; while [ ! -e $HOME/go ]; do sleep 0.05; done"
    (vm.paths.scratch / "skip").parent.mkdir(exist_ok=True)
    path = vm.root / "code.tar"
    with tarfile.open(path, "w") as archive:
        for name, content in {"init.sh": init, "notify.sh": "cat $AGENTS_JSON; echo"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content.encode()))
    fields = {"codeVersionId": "code-1", "activation": "a1"}
    vm.rpc.upload(vm.address, "stage_code", fields=fields, files={"file": path})
    vm.post("activate_code", **fields)
    first = vm.post("execute_script", command="notify", agents_info=vm.members("iaas2"), run="n1")
    second = vm.post("execute_script", command="notify", agents_info=vm.members("iaas2", "iaas3"), run="n2")
    assert (first["run"], second["run"], vm.status("notify.sh")) == ("n1", "n2", "NEVER STARTED")
    vm.kill()
    vm.start()
    (vm.paths.scratch / "go").touch()
    assert vm.get("get_run", run="n2", wait=20)["run"]["exit_code"] == 0
    assert json.loads(vm.output("notify.sh"))[-1]["id"] == "iaas3"
    assert vm.get("get_run", run="n1")["run"]["ended_by"] == "replaced by n2"
    assert [run["run_id"] for run in vm.get("list_runs")["runs"] if run["started"]] == ["n2", "init-a1"]


def test_notify_runs_beside_run(vm: AgentVm) -> None:
    vm.bring("a1", **{"run.sh": "exec sleep 600", "notify.sh": "true"})
    vm.execute("run")
    run = vm.execute("notify")["run"]
    assert vm.get("get_run", run=run, wait=20)["run"]["exit_code"] == 0
    assert vm.status("run.sh") == "RUNNING"


def test_new_code_ends_what_the_old_code_left(vm: AgentVm) -> None:
    vm.bring("a1", **{"init.sh": "(setsid sleep 600 >/dev/null 2>&1 &) ; exit 0", "old": ""})
    assert vm.get("get_script_status") == {
        "scripts": {
            **dict.fromkeys(("notify.sh", "run.sh", "interrupt.sh", "cleanup.sh"), "NEVER STARTED"),
            "init.sh": "STOPPED (return code 0)",
        },
        "alive": True,
    }
    ended = vm.bring("a2", **{"init.sh": "pwd; ls; exit 3"})
    assert ended["exit_code"] == 3
    eventually(lambda: not vm.get("get_script_status")["alive"], "the end of all processes")
    assert vm.output("init.sh").splitlines()[1:] == ["init.sh"]
    assert [run["script"] for run in vm.get("list_runs")["runs"]] == ["init.sh", "init.sh"]
    assert vm.status("init.sh") == "STOPPED (return code 3)"


def test_an_activation_asked_for_again_is_the_same(vm: AgentVm) -> None:
    first = vm.bring("a1", **{"init.sh": "date +%N"})
    again = vm.bring("a1", **{"init.sh": "date +%N"})
    assert (again["run_id"], again["started"]) == (first["run_id"], first["started"])


def test_time_limits(vm: AgentVm) -> None:
    vm.bring("a1", **{"run.sh": "sleep 600 & sleep 600"})
    run = vm.execute("run", timeLimit=1)["run"]
    assert vm.get("get_run", run=run, wait=20)["run"]["ended_by"] == "time limit of 1 s"


def test_the_agent_is_small(vm: AgentVm) -> None:
    vm.bring("a1", **{"init.sh": "true"})
    assert vm.process is not None
    resident = psutil.Process(vm.process.pid).memory_info().rss
    assert resident < 35_000_000, f"{resident} bytes"


def test_a_directory_volume_survives_and_its_users_are_named(vm: AgentVm) -> None:
    disk = vm.root / "disk"
    disk.mkdir()
    (vm.root / "dev").mkdir()
    (vm.root / "dev" / "sdb").symlink_to(disk)
    vm.post("mount_volume", dev_name="sdb", vol_name="data")
    vm.post("mount_volume", dev_name="sdb", vol_name="data")
    (vm.root / "media" / "data" / "file").write_text("kept")
    assert (disk / "file").read_text() == "kept"
    stranger = subprocess.Popen(["sleep", "600"], cwd=disk)
    try:
        with pytest.raises(errors.RemoteError, match=rf"Failed to unmount volume: .*process {stranger.pid} \(sleep 600\)"):
            vm.post("unmount_volume", vol_name="data")
    finally:
        stranger.kill()
        stranger.wait()
    vm.bring("a1", **{"init.sh": "cd ../../../../media/data && (setsid sleep 600 >/dev/null 2>&1 &)"})
    vm.post("unmount_volume", vol_name="data")
    vm.post("unmount_volume", vol_name="data")
    assert not (vm.root / "media" / "data").exists()


@pytest.mark.parametrize(
    ("method", "arguments", "text"),
    [
        ("mount_volume", {"dev_name": "../sda", "vol_name": "data"}, "is not the name of a device"),
        ("mount_volume", {"dev_name": "sdb", "vol_name": "../data"}, "Volume name contains invalid characters"),
        ("unmount_volume", {"vol_name": "a\n"}, "Volume name contains invalid characters"),
        ("get_run", {"run": "../../etc"}, "is not the id of a run"),
        ("get_log", {"filename": "/etc/passwd"}, "Failed to read log file: '/etc/passwd'"),
        ("init_agent", {"agents_info": "{}", "ip": "x"}, "should be a JSON list"),
        ("activate_code", {"codeVersionId": "c", "activation": "../x"}, "Parameter 'activation'"),
        ("activate_code", {"codeVersionId": "c", "activation": "nope"}, "is not staged on this node"),
    ],
)
def test_hostile_requests_are_refused(vm: AgentVm, method: str, arguments: dict[str, str], text: str) -> None:
    call = vm.get if method.startswith("get") else vm.post
    with pytest.raises(errors.RemoteError, match=text):
        call(method, **arguments)


@pytest.fixture
def loop_device(tmp_path: pathlib.Path) -> Iterator[str]:
    image = tmp_path / "image"
    with image.open("wb") as stream:
        stream.truncate(16_000_000)
    try:
        device = misc.run(["losetup", "--find", "--show", image]).strip()
    except errors.OperationFailed as error:
        pytest.skip(f"no loop devices here: {error}")
    yield device
    misc.run(["losetup", "--detach", device])


@pytest.mark.skipif(os.getuid() != 0 or shutil.which("losetup") is None, reason="needs root and losetup")
def test_a_block_volume_is_formatted_once(vm: AgentVm, loop_device: str) -> None:
    (vm.root / "dev").mkdir()
    (vm.root / "dev" / "sdb").symlink_to(loop_device)
    try:
        vm.post("mount_volume", dev_name="sdb", vol_name="data")
    except errors.RemoteError as error:
        pytest.skip(f"mounting is not possible here: {error}")
    mounted = vm.root / "media" / "data"
    (mounted / "file").write_text("kept")
    vm.post("mount_volume", dev_name="sdb", vol_name="data")
    with pytest.raises(errors.RemoteError, match="already taken"):
        (vm.root / "dev" / "sdc").symlink_to("/dev/loop0" if loop_device != "/dev/loop0" else "/dev/loop1")
        vm.post("mount_volume", dev_name="sdc", vol_name="data")
    user = subprocess.Popen(["sleep", "600"], cwd=mounted)
    try:
        with pytest.raises(errors.RemoteError, match=rf"Failed to unmount volume: .*{user.pid} \(sleep 600\)"):
            vm.post("unmount_volume", vol_name="data")
    finally:
        user.kill()
        user.wait()
    vm.post("unmount_volume", vol_name="data")
    assert not mounted.exists()
    vm.post("mount_volume", dev_name="sdb", vol_name="data")
    assert (mounted / "file").read_text() == "kept"
    vm.post("unmount_volume", vol_name="data")
