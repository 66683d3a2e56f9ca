"""The parts of the dummy cloud that need no processes: faults, addresses, records."""

from __future__ import annotations

import contextlib
import json
import socket

import pytest

from conpaas.core import errors
from conpaas.core.clouds import settings
from conpaas.core.clouds.dummy import faults as dummy_faults
from conpaas.core.clouds.dummy import network as dummy_network
from conpaas.core.clouds.dummy import store as dummy_store
from conpaas.core.clouds.dummy import vm as dummy_vm


def faults(section: dict[str, str]) -> dummy_faults.Faults:
    return dummy_faults.from_settings(settings.Settings("c", "dummy", section))


def test_faults_come_from_the_section_and_are_overridden_by_the_live_file(tmp_path):
    configured = faults({"BOOT_DELAY_S": "1.5", "FAIL_CREATE": "1, 3", "NEVER_BOOT": "true", "FAIL_DESTROY": "i-00000001"})
    assert configured.failing([0, 1, 2, 3]) == {1, 3}
    assert configured.refuses_to_destroy("i-00000001")
    assert not configured.refuses_to_destroy("i-00000002")
    assert dummy_faults.current(configured, tmp_path) == configured
    (tmp_path / "faults.json").write_text(json.dumps({"fail_create": 2, "never_boot": False}))
    live = dummy_faults.current(configured, tmp_path)
    assert (live.boot_delay_s, live.never_boot, live.failing([0, 1, 2, 3, 4])) == (1.5, False, {3, 4})
    assert live.failing([7]) == {7}


@pytest.mark.parametrize("text", ["{", "[]", '{"boom": 1}', '{"fail_create": true}', '{"boot_delay_s": "x"}', '{"never_boot": 2}'])
def test_a_wrong_file_of_faults_is_told(tmp_path, text):
    (tmp_path / "faults.json").write_text(text)
    with pytest.raises(errors.ConfigurationError, match=r"faults\.json"):
        dummy_faults.current(dummy_faults.Faults(), tmp_path)


def test_a_wrong_fault_in_the_section_is_told():
    with pytest.raises(errors.ConfigurationError, match=r"\[c\]"):
        faults({"LOSE_AFTER_S": "soon"})


@pytest.fixture
def taken():
    with contextlib.ExitStack() as stack:
        yield lambda pool, *arguments: [(ip, stack.enter_context(contextlib.closing(holder)))[0] for ip, holder in pool.take(*arguments)]


def test_addresses_are_given_in_turn_without_network_and_broadcast(taken):
    pool = dummy_network.Pool("127.14.8.0/23", [5555])
    assert taken(pool, 2, (), None) == ["127.14.8.1", "127.14.8.2"]
    assert taken(pool, 2, {"127.14.9.1"}, "127.14.8.254") == ["127.14.9.2", "127.14.9.3"]
    assert taken(pool, 1, (), "127.14.9.254") == ["127.14.8.3"], "reserved ones are passed over"


def test_an_address_where_somebody_listens_is_passed_over(taken):
    with socket.create_server(("127.14.10.1", 0)) as server:
        pool = dummy_network.Pool("127.14.10.0/24", [server.getsockname()[1]])
        assert taken(pool, 1, (), None) == ["127.14.10.2"]


def test_a_listener_on_all_addresses_is_named_as_the_reason():
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(errors.QuotaExceeded, match=rf"No address is free.*127\.14\.11\.1, on ports \[{port}\]"):
            dummy_network.Pool("127.14.11.0/24", [port]).take(1, (), None)


def test_all_addresses_of_a_request_or_none(taken):
    pool = dummy_network.Pool("127.14.12.0/29", [1])
    with pytest.raises(errors.QuotaExceeded, match="No address is free"):
        pool.take(8, (), None)
    assert len(taken(pool, 7, (), None)) == 7


@pytest.mark.parametrize("network", ["127.0.0.0/31", "x", "127.1.2.3/8"])
def test_a_network_that_is_none_is_refused(network):
    with pytest.raises(errors.ConfigurationError, match="NETWORK"):
        dummy_network.Pool(network, [])


def record(vmid: str) -> dummy_store.VmRecord:
    return dummy_store.VmRecord(vmid, "u", "key", 0, "name", "node", None, "127.14.0.1", {"a": "b"}, 1.0)


def test_records_appear_complete_and_private(tmp_path):
    store = dummy_store.Store(tmp_path / "state")
    with store.locked():
        store.add_vm(record("i-00000001"), "secret")
    assert store.list_vms() == [record("i-00000001")]
    directory = store.vm_directory("i-00000001")
    assert (directory.stat().st_mode & 0o777, (directory / "user-data").stat().st_mode & 0o777) == (0o700, 0o600)
    assert (store.directory.stat().st_mode & 0o777, (directory / "vm.json").stat().st_mode & 0o777) == (0o700, 0o600)


def test_what_a_dead_process_left_half_made_is_swept(tmp_path):
    store = dummy_store.Store(tmp_path)
    with store.locked():
        (store.vms / ".new-i-00000001" / "root").mkdir(parents=True)
        (store.volumes / "vol-00000001.img").touch()
        assert store.list_vms() == []
        store.sweep()
    store.empty_trash()
    assert [*store.vms.iterdir(), *store.volumes.iterdir(), *store.trash.iterdir()] == []


def test_ids_are_never_used_twice(tmp_path):
    store = dummy_store.Store(tmp_path)
    for expected in ("i-00000001", "i-00000002"):
        with store.locked():
            counters = store.counters()
            assert dummy_store.next_id(counters, "i") == expected
            store.save_counters(counters)


@pytest.mark.parametrize("vmid", ["../x", "", "i-1/..", "i-00000009", "i-00000009\n"])
def test_a_name_that_is_no_id_never_becomes_a_path(tmp_path, vmid):
    with pytest.raises(errors.NotFound):
        dummy_store.Store(tmp_path).vm(vmid)


def test_a_damaged_record_is_named(tmp_path):
    store = dummy_store.Store(tmp_path)
    with store.locked():
        store.add_vm(record("i-00000001"), "")
    (store.vms / "i-00000001" / "vm.json").write_text("{")
    with pytest.raises(errors.CloudError, match=r"i-00000001/vm\.json is damaged"):
        store.list_vms()


def test_the_guard_of_a_vm_is_one_persons_and_asking_does_not_disturb(tmp_path):
    (tmp_path / "lock").touch()
    with dummy_vm.guarded(tmp_path) as guard:
        assert guard is not None
        assert dummy_vm.is_held(tmp_path)
        with dummy_vm.guarded(tmp_path) as second:
            assert second is None
        assert dummy_vm.is_held(tmp_path)
    assert not dummy_vm.is_held(tmp_path)
    with pytest.raises(errors.CloudError):
        guard.fileno()
    with dummy_vm.guarded(tmp_path / "nowhere") as nothing:
        assert nothing is None
