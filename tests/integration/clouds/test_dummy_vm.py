"""The VMs of the dummy cloud as machines: what they see, that they die as a whole, and that they outlive their Director."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from conpaas.core import resources
from conpaas.core.clouds import base, dummy
from conpaas.core.clouds.dummy import vm as dummy_vm

from .conftest import Door, eventually, wanted

SERVICE = r"""
mkdir $VM_ROOT/service/s
printf '#!/bin/bash\ntrap "echo ended >> $VM_ROOT/trace; exit 0" TERM\n%s\n' '{start}' > $VM_ROOT/service/s/run
echo 'while :; do read -t 1 < <(exec sleep 1); done' >> $VM_ROOT/service/s/run
chmod +x $VM_ROOT/service/s/run
"""
# A daemon that does all it can to get away: own session, double fork, no environment.
RUNAWAY = "(setsid env -i bash -c 'cd $0; (exec sleep 86399 > hidden) & echo $! > pid; {knock}' $VM_ROOT/root)"


def service(start: str) -> str:
    return SERVICE.replace("{start}", start)


def trace(cloud: dummy.DummyCloud, vmid: str) -> list[str]:
    path = cloud.directory / "vms" / vmid / "root" / "trace"
    return path.read_text().split() if path.exists() else []


def states(cloud: base.Cloud) -> list[str]:
    return [node.state for node in cloud.list_nodes()]


def users(directory: pathlib.Path) -> set[int]:
    """Processes that have the directory, or a file in it, as working directory or open."""
    found = set()
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        if int(process.name) != os.getpid() and any(place.is_relative_to(directory) for place in dummy_vm._places(int(process.name))):
            found.add(int(process.name))
    return found


def test_others_reach_the_disk_inside_a_vm_that_has_its_own_mounts(cloud: dummy.DummyCloud, door: Door, monkeypatch: pytest.MonkeyPatch):
    """The directories of the cloud are closed; a web server's worker must reach its files all the same, where the machine allows it."""
    monkeypatch.setattr(dummy_vm, "MOUNT_POINT", pathlib.Path("/run/conpaas") / f"test-{os.getpid()}")
    before = os.umask(0o077)  # as a careful operator's
    try:
        mounted = dummy_vm.mount_point(cloud.isolation)
    finally:
        os.umask(before)
    reader = "chpst -u nobody" if mounted else ""
    look = f"{reader} cat $VM_ROOT/page > $VM_ROOT/root/seen"
    (node,) = cloud.create_nodes(wanted(1, f"echo hello > $VM_ROOT/page; {look}; {door.knock('seen')}"))
    door.heard(1)
    assert (cloud.directory / "vms" / node.vmid / "root" / "root" / "seen").read_text() == "hello\n"
    cloud.destroy_nodes([node.vmid])
    if mounted:
        mounted.rmdir()


def test_the_environment_is_the_vms_own(cloud: dummy.DummyCloud, door: Door, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECRET_OF_THE_DIRECTOR", "x")
    (node,) = cloud.create_nodes(
        wanted(1, f"env > $VM_ROOT/env; umask >> $VM_ROOT/env; ls /proc/self/fd | wc -l >> $VM_ROOT/env; {door.knock('x')}")
    )
    door.heard(1)
    root = cloud.directory / "vms" / node.vmid / "root"
    *lines, umask, descriptors = (root / "env").read_text().splitlines()
    seen = dict(line.split("=", 1) for line in lines)
    seen_as = dummy_vm.mount_point(cloud.isolation) or root
    expected = {
        "VM_ROOT": str(seen_as),
        "VM_ID": node.vmid,
        "IP_PUBLIC": node.ip,
        "PRIVATE_IP": node.ip,
        "CPS_PYTHON": sys.executable,
        "CPS_IMAGE_SHA256": resources.code_sha256(),
        "HOME": str(seen_as / "root"),
        "LANG": "C.UTF-8",
        "PATH": dummy_vm.PATH,
    }
    assert {name: seen.get(name) for name in expected} == expected
    assert set(seen) - set(expected) <= {dummy_vm.MARKER, "PWD", "OLDPWD", "SHLVL", "_"}
    assert (umask, descriptors) == ("0022", "4"), "standard streams, and the one that ls itself opened"


def test_a_destroyed_vm_leaves_no_process_and_no_file(cloud: dummy.DummyCloud, door: Door):
    (node,) = cloud.create_nodes(wanted(1, service("echo up >> $VM_ROOT/trace") + RUNAWAY.replace("{knock}", door.knock("away"))))
    directory = cloud.directory / "vms" / node.vmid
    door.heard(1)
    eventually(lambda: trace(cloud, node.vmid) == ["up"])
    assert len(users(directory)) >= 3
    cloud.destroy_nodes([node.vmid])
    assert users(directory) == set()
    assert not directory.exists()


def test_a_large_disk_may_take_its_time_to_go(cloud: dummy.DummyCloud, monkeypatch: pytest.MonkeyPatch):
    (node,) = cloud.create_nodes(wanted(1))
    delete, late = cloud.store.delete, dummy_vm.KILL_TIMEOUT + 1

    def slowly(directory: pathlib.Path) -> None:
        delete(directory)
        now = time.monotonic()
        monkeypatch.setattr("conpaas.core.clouds.dummy.cloud.time.monotonic", lambda: now + late)

    monkeypatch.setattr(cloud.store, "delete", slowly)
    cloud.destroy_nodes([node.vmid])
    assert states(cloud) == []


def test_a_vm_whose_guard_was_killed_is_terminated_and_still_destroyed_as_a_whole(cloud: dummy.DummyCloud, door: Door):
    (node,) = cloud.create_nodes(wanted(1, service("echo up >> $VM_ROOT/trace") + RUNAWAY.replace("{knock}", door.knock("away"))))
    directory = cloud.directory / "vms" / node.vmid
    door.heard(1)
    eventually(lambda: trace(cloud, node.vmid) == ["up"])
    os.kill(int((directory / "pid").read_text()), signal.SIGKILL)
    eventually(lambda: states(cloud) == ["terminated"])
    assert cloud.resume() == []
    cloud.destroy_nodes([node.vmid])
    assert users(directory) == set()


def test_a_killed_vm_stays_dead_and_keeps_its_disk(cloud: dummy.DummyCloud, door: Door):
    request = wanted(2, door.knock("{index}"))
    one, _ = cloud.create_nodes(request)
    door.heard(2)
    cloud.kill(one.vmid)
    cloud.kill(one.vmid)
    assert states(cloud) == ["terminated", "running"]
    assert cloud.resume() == []
    assert [node.state for node in cloud.create_nodes(request)] == ["terminated", "running"]
    assert (cloud.directory / "vms" / one.vmid / "root").is_dir()
    assert door.silent()


def test_halted_vms_come_back_with_their_disks_and_without_their_user_data(cloud: dummy.DummyCloud, door: Door):
    start = f"echo up >> $VM_ROOT/trace; {door.knock('up')}"
    nodes = cloud.create_nodes(wanted(2, f"echo user-data > $VM_ROOT/trace; {service(start)}"))
    door.heard(2)
    cloud.halt_all()
    assert states(cloud) == ["stopped", "stopped"]
    assert users(cloud.directory / "vms") == set()
    assert cloud.resume() == [node.vmid for node in nodes]
    assert cloud.resume() == []
    door.heard(2)
    assert states(cloud) == ["running", "running"]
    for node in nodes:
        assert trace(cloud, node.vmid) == ["user-data", "up", "ended", "up"], "services end before the power goes"
    assert [node.ip for node in cloud.list_nodes()] == [node.ip for node in nodes]


def test_after_a_reboot_of_the_host_the_vms_come_back(cloud: dummy.DummyCloud, door: Door, tmp_path, monkeypatch: pytest.MonkeyPatch):
    (node,) = cloud.create_nodes(wanted(1, service(door.knock("up"))))
    door.heard(1)
    cloud.kill(node.vmid)
    (tmp_path / "boot_id").write_text("another boot\n")
    monkeypatch.setattr(dummy.cloud, "_BOOT_ID", tmp_path / "boot_id")
    assert states(cloud) == ["stopped"]
    assert cloud.resume() == [node.vmid]
    door.heard(1)
    assert states(cloud) == ["running"]


def test_vms_outlive_the_process_that_made_them(section, cloud: dummy.DummyCloud, door: Door):
    program = (
        "import sys, json; from conpaas.core.clouds import factory, base\n"
        "cloud = factory.open_cloud('iaas', json.loads(sys.argv[1]))\n"
        "cloud.create_nodes(base.NodeRequest('k', (base.NodeSpec(0, 'n', user_data=sys.argv[2]),)))\n"
    )
    subprocess.run([sys.executable, "-c", program, json.dumps(dict(section)), service(door.knock("up"))], check=True, timeout=60)
    door.heard(1)
    assert states(cloud) == ["running"]


def test_user_data_is_private_and_may_fail(cloud: dummy.DummyCloud):
    (node,) = cloud.create_nodes(wanted(1, "exit 3"))
    eventually(lambda: "user-data ended with status 3" in cloud.console_log(node.vmid))
    assert (cloud.directory / "vms" / node.vmid / "user-data").stat().st_mode & 0o777 == 0o600
    assert states(cloud) == ["running"]


def test_a_talkative_vm_does_not_fill_the_disk(cloud: dummy.DummyCloud, door: Door):
    (node,) = cloud.create_nodes(wanted(1, f"head -c 3000000 /dev/zero | tr '\\0' x; echo; echo the end; {door.knock('x')}; sleep 1000"))
    door.heard(1)
    cloud.list_nodes()
    assert (cloud.directory / "vms" / node.vmid / "console.log").stat().st_size <= dummy.cloud.CONSOLE_LIMIT
    assert cloud.console_log(node.vmid).endswith("x\nthe end\n")
    assert len(cloud.console_log(node.vmid)) <= 65536
