"""A VM of the dummy cloud with a PID namespace of its own, from the Director's user-data to an agent whose daemons runit keeps."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator

import pytest

from conpaas.core.clouds import base, factory
from conpaas.core.https import client, identity

from . import conftest, vm

NETWORK = "127.19.64.0/24"

# What an agent does, inside the VM: it has daemons taken up one after another. Waking runsvdir works from in there only.
ENSURE = """
import os, pathlib
from conpaas.core import supervisor
disk = pathlib.Path(os.environ["VM_ROOT"])
watcher = supervisor.Supervisor(disk / "service", disk / "var" / "log")
for name in ("first", "second"):
    watcher.ensure(supervisor.Daemon(name, ("sleep", "86392")))
    print(name, watcher.status(name).state, flush=True)
os.execvp("sleep", ["sleep", "86391"])
"""
STARTUP = f"""
mkdir -p "$VM_ROOT/service/.new/" && cat >"$VM_ROOT/service/.new/run" <<'END'
#!/bin/sh
exec "$CPS_PYTHON" -c '{ENSURE}' >"$VM_ROOT/root/told" 2>&1
END
chmod 755 "$VM_ROOT/service/.new/run"
mv "$VM_ROOT/service/.new" "$VM_ROOT/service/ensure"
echo not for the console
exit 3
"""


@pytest.fixture
def cloud(tmp_path: pathlib.Path) -> Iterator[base.Cloud]:
    section = {"DRIVER": "dummy", "STATE_DIR": str(tmp_path / "cloud"), "NETWORK": NETWORK, "AGENT_PORT": str(vm.PORT)}
    opened = factory.open_cloud("iaas", section)
    yield opened
    opened.destroy_nodes([node.vmid for node in opened.list_nodes()])


def test_a_real_vm_boots_tells_its_steps_and_takes_up_daemon_after_daemon(cloud: base.Cloud, tmp_path: pathlib.Path):
    for name in ("pki", "composed"):
        (tmp_path / name).mkdir()
    authority = vm.Authority(tmp_path / "pki")
    with (
        vm.open_desk(authority, "127.19.0.2") as desk,
        contextlib.closing(client.RpcClient(authority.credentials("manager"), identity.expect_agent(vm.UID, vm.AID))) as caller,
    ):
        composed = vm.Vm(tmp_path / "composed" / "disk", "127.19.0.3", desk).user_data(startup_script=STARTUP)
        node = cloud.create_nodes(base.NodeRequest("boot", (base.NodeSpec(0, "node", user_data=composed),)))[0]

        def answers() -> bool:
            with contextlib.suppress(Exception):
                return bool(caller.get((node.ip, vm.PORT), "check_process", timeout=5) == {})
            return False

        conftest.until(answers, "the agent answers")
        assert caller.get((node.ip, vm.PORT), "get_startup_status") == {"code": 3}
        console = cloud.console_log(node.vmid)
        assert "user-data: the startup script failed with code 3" in console
        assert "user-data: cpsagent is handed to the supervisor" in console
        assert "not for the console" not in console

        told = next((tmp_path / "cloud").glob("**/root/root")) / "told"
        conftest.until(lambda: told.exists() and "second" in told.read_text(), "both daemons are taken up")
        assert told.read_text() == "first running\nsecond running\n"
