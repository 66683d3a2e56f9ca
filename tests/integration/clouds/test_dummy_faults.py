"""Failures: asked for by a person, forced by a quota, or a Director killed in the middle of its work."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping

import pytest

import conpaas
from conpaas.core import errors
from conpaas.core.clouds import base, dummy, factory

from .conftest import Door, dummy_section, eventually, fresh_key, wanted


def ask(cloud: dummy.DummyCloud, **faults: object) -> None:
    """Changes the faults while everything runs."""
    cloud.store.prepare()
    (cloud.directory / "faults.json").write_text(json.dumps(faults))


def states(cloud: base.Cloud) -> list[str]:
    return [node.state for node in cloud.list_nodes()]


@pytest.mark.parametrize(("fault", "failed"), [(2, {3, 4}), ([0, 3], {0, 3})])
def test_some_nodes_of_a_request_fail_and_are_made_when_asked_again(cloud: dummy.DummyCloud, fault: object, failed: set[int]):
    request = wanted(5)
    ask(cloud, fail_create=fault)
    with pytest.raises(base.NodesNotCreated, match=r"2 of 5 nodes could not be created on cloud iaas: node .*told to fail") as caught:
        cloud.create_nodes(request)
    assert set(caught.value.reasons) == failed
    assert [node.index for node in caught.value.created] == sorted({0, 1, 2, 3, 4} - failed)
    assert [node.vmid for node in cloud.list_nodes()] == [node.vmid for node in caught.value.created]
    ask(cloud)
    nodes = cloud.create_nodes(request)
    assert [node.index for node in nodes] == [0, 1, 2, 3, 4]
    assert {node.vmid for node in caught.value.created} < {node.vmid for node in nodes}


def test_a_slow_boot_is_pending_until_its_user_data_runs(cloud: dummy.DummyCloud, door: Door):
    ask(cloud, boot_delay_s=0.5)
    (node,) = cloud.create_nodes(wanted(1, door.knock("up")))
    assert node.state is base.NodeState.PENDING
    assert states(cloud) == ["pending"]
    door.heard(1)
    assert states(cloud) == ["running"]


def test_a_vm_that_is_halted_before_its_user_data_runs_it_later(cloud: dummy.DummyCloud, door: Door):
    ask(cloud, boot_delay_s=600)
    (node,) = cloud.create_nodes(wanted(1, door.knock("up")))
    cloud.halt_all()
    assert states(cloud) == ["stopped"]
    assert cloud.resume() == [node.vmid]
    door.heard(1)
    assert states(cloud) == ["running"]


def test_a_vm_may_run_and_never_answer(cloud: dummy.DummyCloud, door: Door):
    ask(cloud, never_boot=True)
    cloud.create_nodes(wanted(1, door.knock("up")))
    eventually(lambda: states(cloud) == ["running"])
    assert door.silent()


def test_a_vm_may_be_lost(cloud: dummy.DummyCloud, door: Door):
    ask(cloud, lose_after_s=0.4)
    (node,) = cloud.create_nodes(wanted(1, door.knock("up") + "; sleep 1000"))
    door.heard(1)
    eventually(lambda: states(cloud) == ["terminated"])
    cloud.destroy_nodes([node.vmid])


def test_a_destruction_that_fails_names_the_vm_and_can_be_repeated(cloud: dummy.DummyCloud):
    one, two = cloud.create_nodes(wanted(2))
    ask(cloud, fail_destroy=[two.vmid])
    with pytest.raises(base.NodesNotDestroyed, match=two.vmid) as caught:
        cloud.destroy_nodes([one.vmid, two.vmid])
    assert set(caught.value.reasons) == {two.vmid}
    assert [node.vmid for node in cloud.list_nodes()] == [two.vmid]
    ask(cloud)
    cloud.destroy_nodes([one.vmid, two.vmid])
    assert cloud.list_nodes() == []


def test_every_call_about_volumes_may_fail_or_be_slow(cloud: dummy.DummyCloud):
    (node,) = cloud.create_nodes(wanted(1))
    request = base.VolumeRequest(fresh_key(), "v", 10)
    ask(cloud, fail_volume_create=True)
    with pytest.raises(errors.CloudError, match="fail_volume_create"):
        cloud.create_volume(request)
    ask(cloud, fail_volume_attach=True, volume_delay_s=0.2)
    begun = time.monotonic()
    volume = cloud.create_volume(request)
    assert time.monotonic() - begun >= 0.2
    with pytest.raises(errors.CloudError, match="fail_volume_attach"):
        cloud.attach_volume(volume.vol_id, node.vmid, "sdb")
    ask(cloud, fail_volume_detach=True)
    cloud.attach_volume(volume.vol_id, node.vmid, "sdb")
    with pytest.raises(errors.CloudError, match="fail_volume_detach"):
        cloud.detach_volume(volume.vol_id)


def test_a_node_whose_volume_fails_exists_and_is_named(cloud: dummy.DummyCloud, door: Door):
    request = wanted(1, door.knock("up"), volumes=(base.VolumeSpec("v", 10, "sdb"),))
    ask(cloud, fail_volume_attach=True)
    with pytest.raises(base.NodesNotCreated, match=r"node 0: .*volumes") as caught:
        cloud.create_nodes(request)
    assert [node.state for node in caught.value.created] == ["pending"]
    assert door.silent()
    ask(cloud)
    (node,) = cloud.create_nodes(request)
    assert node.vmid == caught.value.created[0].vmid
    door.heard(1)


def test_a_wrong_faults_file_is_a_problem_that_is_told(cloud: dummy.DummyCloud):
    ask(cloud, explode=True)
    assert ["unknown fault 'explode'" in problem for problem in cloud.check()] == [True]
    with pytest.raises(errors.ConfigurationError, match="explode"):
        cloud.create_nodes(wanted(1))
    assert cloud.list_nodes() == []


def test_quotas_refuse_before_anything_is_made(section: Mapping[str, str], cloud: dummy.DummyCloud):
    limited = factory.open_cloud("iaas", {**section, "MAX_VMS": "2", "MAX_VOLUMES": "1", "MAX_VOLUME_MB": "50"})
    request = wanted(2)
    with pytest.raises(errors.QuotaExceeded, match="Cloud default allows 2 VMs and has 0; 3 more do not fit"):
        limited.create_nodes(wanted(3))
    assert limited.list_nodes() == []
    limited.create_nodes(request)
    limited.create_nodes(request)
    with pytest.raises(errors.QuotaExceeded):
        limited.create_nodes(wanted(1))
    with pytest.raises(errors.QuotaExceeded, match="volumes of 50 MB, not 51 MB"):
        limited.create_volume(base.VolumeRequest(fresh_key(), "large", 51))
    limited.create_volume(base.VolumeRequest(fresh_key(), "v", 50))
    with pytest.raises(errors.QuotaExceeded, match="allows 1 volumes"):
        limited.create_volume(base.VolumeRequest(fresh_key(), "v", 50))
    for key, what in (("DISK_MB", "disk"), ("MEMORY_MB", "memory")):
        huge = factory.open_cloud("iaas", {**section, key: "100000000"})
        with pytest.raises(errors.QuotaExceeded, match=f"MB of {what} left"):
            huge.create_nodes(wanted(1))


def test_two_clouds_with_one_network_never_share_an_address(section: Mapping[str, str], cloud: dummy.DummyCloud, tmp_path: pathlib.Path):
    other = factory.open_cloud("other", {**section, "STATE_DIR": str(tmp_path / "other")})
    ours, theirs = cloud.create_nodes(wanted(3)), other.create_nodes(wanted(3))
    try:
        assert len({node.ip for node in [*ours, *theirs]}) == 6
    finally:
        other.destroy_nodes([node.vmid for node in theirs])


def test_misspelt_keys_and_what_is_not_available_are_told_by_check(section: Mapping[str, str]):
    misspelt = factory.open_cloud("iaas", {**section, "MAX_WMS": "2", "NETWORK": "10.0.0.0/8"})
    problems = " ".join(misspelt.check())
    assert "does not know: MAX_WMS" in problems
    assert "10.0.0.0/8 are not addresses of this machine" in problems


SOURCE = str(pathlib.Path(conpaas.__file__).resolve().parent.parent)

CRASHES = {
    "before anything is recorded": "dummy_store.Store.add_vm",
    "with a half-made VM": "conpaas.core.file.write_atomically:vm.json",
    "with a first VM recorded": "dummy_store.Store.add_vm:2",
    "before a volume is made": "dummy_volumes.Volumes.make",
    "with a volume made, before it is attached": "dummy_volumes.Volumes.connect",
    "before the first VM is started": "dummy_vm.start",
    "with two VMs started": "dummy_vm.start:3",
    "when all is made, before it is answered": "dummy.DummyCloud._node",
}
PROGRAM = """
import importlib, itertools, json, os, signal, sys
from conpaas.core import file
from conpaas.core.clouds import base, dummy, factory
from conpaas.core.clouds.dummy import store as dummy_store
from conpaas.core.clouds.dummy import vm as dummy_vm
from conpaas.core.clouds.dummy import volumes as dummy_volumes
section, point, user_data = json.loads(sys.argv[1])
place, _, when = point.partition(":")
owner = globals()
*path, name = place.removeprefix("conpaas.core.").split(".")
for part in path:
    owner = owner[part] if isinstance(owner, dict) else getattr(owner, part)
original, calls = getattr(owner, name), itertools.count(1)
def deadly(*arguments, **keywords):
    hit = when in str(arguments[0]) if when and not when.isdigit() else next(calls) == int(when or 1)
    if hit:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments, **keywords)
setattr(owner, name, deadly)
volumes = (base.VolumeSpec("v", 10, "sdb"),)
specs = tuple(base.NodeSpec(index, "n", user_data=user_data, volumes=volumes, tags={"a": "1"}) for index in range(4))
factory.open_cloud("iaas", section).create_nodes(base.NodeRequest("crashed", specs))
"""


@pytest.mark.parametrize("point", CRASHES.values(), ids=CRASHES.keys())
def test_a_director_killed_while_it_makes_nodes(section: Mapping[str, str], door: Door, point: str):
    user_data = f"#!/bin/bash\n{door.knock('$VM_ID')}\n"
    arguments = json.dumps([dict(section, PARALLEL="1"), point, user_data])
    dead = subprocess.run([sys.executable, "-c", PROGRAM, arguments], timeout=60, check=False, capture_output=True, text=True)
    assert dead.returncode == -signal.SIGKILL, dead.stderr
    cloud = factory.open_cloud("iaas", section)
    assert isinstance(cloud, dummy.DummyCloud)
    cloud.resume()
    found = cloud.list_nodes({"a": "1"})
    assert found == cloud.list_nodes()
    specs = tuple(
        base.NodeSpec(index, "n", user_data=user_data, volumes=(base.VolumeSpec("v", 10, "sdb"),), tags={"a": "1"}) for index in range(4)
    )
    nodes = cloud.create_nodes(base.NodeRequest("crashed", specs))
    assert [node.index for node in nodes] == [0, 1, 2, 3]
    assert {node.vmid for node in found} <= {node.vmid for node in nodes}
    assert door.heard(4) == [node.vmid for node in nodes], "every VM ran its user-data, once"
    assert [[volume.device for volume in node.volumes] for node in cloud.list_nodes()] == [["sdb"]] * 4
    assert len(cloud.list_volumes()) == 4
    assert door.silent()


ORDINARY = """
import json, sys
from conpaas.core.clouds import base, factory
cloud = factory.open_cloud("iaas", json.loads(sys.argv[1]))
assert cloud.check() == [], cloud.check()
nodes = cloud.create_nodes(base.NodeRequest("k", tuple(base.NodeSpec(i, "n", user_data=sys.argv[2]) for i in range(2))))
volume = cloud.create_volume(base.VolumeRequest("v", "v", 10))
cloud.attach_volume(volume.vol_id, nodes[0].vmid, "sdb")
input()
cloud.halt_all()
assert cloud.resume() == [node.vmid for node in nodes]
cloud.destroy_nodes([node.vmid for node in nodes])
cloud.destroy_volume(volume.vol_id)
assert (cloud.list_nodes(), cloud.list_volumes()) == ([], [])
print(cloud.isolation, cloud.volume_kind)
"""


@pytest.mark.parametrize("isolation", ["auto", "session"])
def test_an_ordinary_user_may_have_a_cloud_too(door: Door, isolation: str):
    directory = pathlib.Path(tempfile.mkdtemp(prefix="conpaas-dummy-"))
    directory.chmod(0o777)
    section = dummy_section(directory / "state", ISOLATION=isolation)
    become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if _is_root() else []
    python = next((path for path in (sys.executable, "/usr/bin/python3") if _may_run(become, path)), None)
    if python is None:
        pytest.skip("an ordinary user cannot reach a Python interpreter and this source tree here")
    try:
        with subprocess.Popen(
            [*become, python, "-c", ORDINARY, json.dumps(section), f"#!/bin/bash\n{door.knock('$VM_ID')}\n"],
            env={**os.environ, "PYTHONPATH": SOURCE},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
        ) as program:
            assert door.heard(2) == ["i-00000001", "i-00000002"]
            out, err = program.communicate("\n", timeout=60)
        assert (program.returncode, err) == (0, "")
        assert out.split()[0] in ({"session"} if isolation == "session" else {"session", "pidns"})
        assert out.split()[1] == "directory"
        assert list((directory / "state" / "vms").iterdir()) == []
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _may_run(become: list[str], python: str) -> bool:
    """Whether the user may run this interpreter (by itself: setpriv still has root's rights when it starts it) and read our code."""
    test = ["sh", "-c", '"$0" -c "import conpaas.core.clouds.dummy"', python]
    done = subprocess.run([*become, *test], env={**os.environ, "PYTHONPATH": SOURCE}, cwd="/", capture_output=True, timeout=60, check=False)
    return done.returncode == 0


def _is_root() -> bool:
    return pathlib.Path("/proc/self").stat().st_uid == 0
