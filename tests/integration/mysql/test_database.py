"""Real database servers in real clusters, as a manager has them run by their agents."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import signal
import socket
import ssl
import stat
import tempfile
from collections.abc import Callable

import pymysql
import pytest

from conpaas.core import errors
from conpaas.services.mysql.agent import rejoin
from conpaas.services.mysql.workload import galera

from . import certificates, machine

Make = Callable[..., machine.Machine]


def cluster_of(make_machine: Make, size: int) -> list[machine.Machine]:
    """A cluster with one row in it; the first node founded it."""
    nodes = [make_machine() for _ in range(size)]
    nodes[0].start(nodes, bootstrap=True)
    nodes[0].sql("CREATE DATABASE a")
    nodes[0].sql("CREATE TABLE a.t (i INT PRIMARY KEY)")
    nodes[0].sql("INSERT INTO a.t VALUES (1)")
    for one in nodes[1:]:
        one.start(nodes)
        one.synced(nodes.index(one) + 1)
    return nodes


def rows(node: machine.Machine) -> list[int]:
    return [number for (number,) in node.sql("SELECT i FROM a.t ORDER BY i")]


def test_a_founded_cluster_works_at_once_and_has_no_account_but_those_of_the_machine(node: machine.Machine):
    answer = node.start([node], bootstrap=True)
    assert answer == {"port": 3306, "restart_needed": []}
    node.synced(1)
    found = set(node.sql("SELECT user, host FROM mysql.user"))
    assert found == {("root", "localhost"), (node.agent._database.account, "localhost"), ("mariadb.sys", "localhost")}
    assert node.sql("SELECT COUNT(*) FROM mysql.global_priv WHERE JSON_VALUE(priv, '$.authentication_string') NOT IN ('invalid', '')") == [
        (0,)
    ]
    assert {name for (name,) in node.sql("SHOW DATABASES")} == {"information_schema", "mysql", "performance_schema", "sys"}
    assert node.state["incoming"] == [f"{node.address}:3306"]


@pytest.mark.parametrize("transfer", ["rsync", "mariabackup"])
def test_a_second_member_gets_all_data(make_machine: Make, transfer: str):
    first, second = both = [make_machine(), make_machine()]
    first.start(both, bootstrap=True, transfer=transfer)
    first.sql("CREATE DATABASE a")
    first.sql("CREATE TABLE a.t (i INT PRIMARY KEY)")
    first.sql("INSERT INTO a.t VALUES (1)")
    second.start(both, transfer=transfer, donors=("m0",))
    second.synced(2)
    assert f"{transfer} SST completed on joiner" in second.log()
    assert rows(second) == [1]
    second.sql("INSERT INTO a.t VALUES (2)")
    assert rows(first) == [1, 2]
    assert second.state["sst"] is None


def test_a_killed_member_comes_back_with_what_it_missed_and_nobody_waits_long(make_machine: Make):
    nodes = cluster_of(make_machine, 3)
    nodes[1].signal(signal.SIGKILL)
    nodes[0].sql("INSERT INTO a.t VALUES (2)")
    nodes[1].synced(3)
    assert rows(nodes[1]) == [1, 2]
    assert "IST received" in nodes[1].log().rpartition("Starting MariaDB")[2]

    # The node that founded the cluster is one like any other, whether its server dies, its agent is made anew, or it boots again.
    nodes[0].signal(signal.SIGKILL)
    nodes[0].new_agent()
    nodes[0].synced(3)
    nodes[0].reboot()
    nodes[0].new_agent()
    nodes[0].synced(3)
    assert len({one.state["cluster_uuid"] for one in nodes}) == 1
    assert rows(nodes[0]) == [1, 2]


def test_after_all_were_killed_the_most_advanced_one_founds_the_cluster_again(make_machine: Make, monkeypatch: pytest.MonkeyPatch):
    nodes = cluster_of(make_machine, 3)
    uuid = nodes[0].state["cluster_uuid"]
    nodes[1].agent.stop_mysqld(30)
    nodes[2].sql("INSERT INTO a.t VALUES (2)")
    with pytest.raises(errors.WrongState, match="runs"):
        nodes[0].agent.get_position(None)
    for one in (nodes[0], nodes[2]):
        one.signal(signal.SIGKILL)  # it takes no leave, as it would when it is told to end
        one.agent.supervisor.stop("mariadbd", 0)
    for one in nodes:
        one.agent.stop_mysqld(30)
    positions = [one.agent.get_position(None) for one in nodes]
    assert {one["uuid"] for one in positions} == {uuid}
    # Who acknowledged the row has it; another one that was killed in the same instant may not have applied it yet.
    assert positions[1]["seqno"] < positions[2]["seqno"] >= positions[0]["seqno"]
    assert not nodes[2].state["safe_to_bootstrap"]

    # Nobody founds anything by itself: without the others there is no cluster. Who waits for it finds it once it is there.
    monkeypatch.setattr(rejoin, "PERIOD", 0.2)
    monkeypatch.setattr(rejoin, "PATIENCE", 4.0)
    nodes[0].new_agent()
    nodes[0].start(nodes)
    machine.until(lambda: "Received NON-PRIMARY" in nodes[0].log().rpartition("Starting MariaDB")[2], "the node looks for the others")
    assert nodes[0].state["cluster_status"] != "Primary"
    nodes[2].start(nodes, bootstrap=True)
    nodes[2].synced(2)
    nodes[1].start(nodes)
    for one in nodes:
        one.synced(3)
    assert nodes[1].state["cluster_uuid"] == uuid
    assert [rows(one) for one in nodes] == [[1, 2]] * 3
    assert not nodes[2].layout.bootstrap.exists()


def test_what_was_told_holds_for_a_new_agent(node: machine.Machine):
    node.start([node], bootstrap=True)
    node.sql("CREATE DATABASE a")
    pid = node.pid
    node.new_agent()
    assert node.pid == pid, "the server was not touched"
    assert node.start([node], bootstrap=True) == {"port": 3306, "restart_needed": []}
    assert node.pid == pid, "the same once more is nothing"
    node.agent.stop_mysqld(30)
    node.agent.stop_mysqld(30)
    node.new_agent()
    assert node.state["daemon"] == "STOPPED"
    assert node.state["position"]["seqno"] > 0
    node.start([node], bootstrap=True)
    assert ("a",) in node.sql("SHOW DATABASES"), "data are kept"
    with contextlib.suppress(errors.OperationFailed):  # there is nobody to connect to, which the server may say at once
        node.agent.restart_mysqld()
    assert node.state["cluster_status"] != "Primary", "a restart founds nothing, even where nobody else could"


def test_settings_of_a_running_server(node: machine.Machine):
    node.start([node], bootstrap=True)
    node.sql("CREATE USER client@'%%'")  # who has no account anywhere does not come as far as TLS
    pid = node.pid
    other = certificates.authority().files("m0", node.address)
    changed = {"variables": {"max_connections": "77", "back_log": "99"}, "tls": other}
    assert node.start([node], **changed)["restart_needed"] == ["back_log"], "what can be set while it runs needs no restart"
    assert node.pid == pid
    assert _certificate_of(node.address) == ssl.PEM_cert_to_DER_cert(other.certificate), "a new certificate is in force at once"
    with pytest.raises(errors.InvalidArgument, match="Unknown suffix 'X'"):
        node.start([node], variables={"innodb_buffer_pool_size": "5X"})
    before = node.layout.configuration.read_text()
    with pytest.raises(errors.InvalidArgument, match="nonsense"):
        node.start([node], variables={"character_set_server": "nonsense"})
    assert node.layout.configuration.read_text() == before
    assert node.pid == pid
    node.new_agent()
    assert node.layout.configuration.read_text() == before, "what was refused is not remembered either"
    assert node.start([node], **changed)["restart_needed"] == ["back_log"]


def _certificate_of(address: str) -> bytes:
    """What a server shows that speaks TLS after a word of its own."""
    with socket.create_connection((address, 3306), timeout=5) as raw:
        raw.recv(1024)
        # A request for TLS: 32 bytes, with protocol 4.1, TLS and secure connection among the client's abilities.
        raw.sendall(b"\x20\x00\x00\x01" + (0x8A00).to_bytes(4, "little") + b"\x00\x00\x00\x01\x21" + b"\x00" * 23)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with context.wrap_socket(raw) as secured:
            return secured.getpeercert(binary_form=True) or b""


def test_members_talk_in_secret_and_only_among_themselves(node: machine.Machine):
    node.start([node], bootstrap=True)
    key = node.layout.tls / "key.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    options = node.sql("SELECT @@wsrep_provider_options")[0][0]
    assert re.search(r"socket\.ssl = YES;", options)
    assert "ist.recv_addr = ssl://" in options
    with socket.create_connection((node.address, 4567), timeout=5) as plain:
        plain.settimeout(1)
        with contextlib.suppress(TimeoutError):
            assert plain.recv(100)[:1] in (b"", b"\x15"), "to one who speaks no TLS nobody says anything but an alert of TLS"
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname = False
    stranger.verify_mode = ssl.CERT_NONE
    with pytest.raises(OSError), socket.create_connection((node.address, 4567), timeout=5) as raw, stranger.wrap_socket(raw) as secured:
        assert secured.recv(1) == b"", "whoever has no certificate of the service is sent away"
        raise OSError


def test_sessions_over_the_socket_do_not_pay_for_encryption(node: machine.Machine):
    node.start([node], bootstrap=True)
    node.synced(1)
    assert node.sql("SHOW VARIABLES LIKE 'have_ssl'") == [("have_ssl", "YES")]
    assert node.sql("SHOW SESSION STATUS LIKE 'Ssl_cipher'") == [("Ssl_cipher", "")]


def test_the_state_comes_in_time_from_a_frozen_server(node: machine.Machine):
    assert node.state["daemon"] == "ABSENT"
    node.start([node], bootstrap=True)
    node.synced(1)
    node.signal(signal.SIGSTOP)
    state = node.state
    assert (state["daemon"], state["ready"]) == ("RUNNING", False)
    node.signal(signal.SIGCONT)
    node.synced(1)


def test_draining_waits_for_transactions(node: machine.Machine):
    node.start([node], bootstrap=True)
    node.sql("CREATE USER client@'%%' IDENTIFIED BY 'secret'")
    node.sql("CREATE DATABASE a")
    node.sql("GRANT ALL ON a.* TO client@'%%'")
    node.sql("CREATE TABLE a.t (i INT PRIMARY KEY)")
    client = pymysql.connect(host=node.address, user="client", password="secret", database="a")
    assert node.agent.drain_mysqld(0) == {"sessions": 0}
    assert node.layout.out_of_service.exists()
    client.cursor().execute("INSERT INTO t VALUES (1)")
    assert node.agent.drain_mysqld(0) == {"sessions": 1}
    client.commit()
    assert node.agent.drain_mysqld(5) == {"sessions": 0}
    client.close()
    node.agent.set_health(True)
    assert node.state["in_service"]
    node.agent.set_desync(True)
    assert node.state["state"] == "Donor/Desynced"
    node.agent.set_desync(False)
    node.synced(1)
    assert float(node.agent.getLoad()["load"]) >= 0


def test_data_are_on_the_disk_and_are_taken_over_with_it(make_machine: Make):
    first, second = make_machine(), make_machine()
    disk = first.paths.root.parent / "disk"
    disk.mkdir(mode=0o755)
    for one in (first, second):
        device = one.paths.root / "dev" / "sdb"
        device.parent.mkdir(parents=True)
        device.symlink_to(disk)
    first.start([first], bootstrap=True, device="sdb")
    first.sql("CREATE DATABASE a")
    assert (disk / "data" / "a").is_dir()
    first.agent.stop_mysqld(30)
    position = second.agent.get_position("sdb")
    assert position["seqno"] > 0
    second.start([second], bootstrap=True, device="sdb")
    assert ("a",) in second.sql("SHOW DATABASES")
    second.reboot()
    second.new_agent()
    machine.until(lambda: second.state["daemon"] == "RUNNING" or "gcomm: connecting" in second.log(), "the server runs again")
    (second.paths.root / "dev" / "sdb").unlink()
    (second.paths.media / "mysql").unlink()
    second.agent.stop_mysqld(30)
    with pytest.raises(errors.OperationFailed, match="sdb"):
        second.agent._database._member.mounts.mount("sdb", "mysql", device_timeout=0.1)


def test_why_a_server_does_not_start_is_told(make_machine: Make):
    node = make_machine()
    node.start([node], bootstrap=True)
    node.agent.stop_mysqld(30)
    data = node.layout.data
    (data / "ibdata1").write_bytes(b"nonsense" * 1000)
    with pytest.raises(errors.OperationFailed, match=r"^The database server does not start: .*ibdata1.*\.$"):
        node.start([node], bootstrap=True)
    state = node.state
    assert state["daemon"] == "STOPPED", "what failed is not tried again by itself"
    assert "ibdata1" in state["reason"]
    (data / "ibdata1").unlink()
    with pytest.raises(errors.OperationFailed, match="not a whole database"):
        node.start([node], bootstrap=True)


def test_why_a_member_gets_no_data_is_told(make_machine: Make):
    first, second = both = [make_machine(), make_machine()]
    first.start(both, bootstrap=True, transfer="mariabackup")
    first.sql("ALTER USER %s@localhost ACCOUNT LOCK", first.agent._database.account)
    second.start(both, transfer="mariabackup")
    said = machine.until(lambda: second.state["reason"], "the member tells of the failure")
    assert "donor" in said
    told = machine.until(lambda: first.state["transfer_error"], "the donor tells why")
    assert "locked" in told
    first.sql("ALTER USER %s@localhost ACCOUNT UNLOCK", first.agent._database.account)
    second.synced(2)
    assert second.state["reason"] is None


def test_an_ordinary_user_runs_a_cluster_too(directory: pathlib.Path):
    directory.chmod(0o777)
    child = os.fork()
    if child == 0:
        os._exit(_as_ordinary_user(directory))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _as_ordinary_user(directory: pathlib.Path) -> int:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    os.environ.pop("TMPDIR", None)  # it may be a place that only root writes to
    tempfile.tempdir = None
    made: list[machine.Machine] = []
    try:
        # So deep that the server's socket has no room in its own directory.
        for name in ("m0", "m1"):
            made.append(machine.Machine(directory / ("deep" * 20) / name, name))
        made[0].start(made, bootstrap=True)
        made[1].start(made, transfer="mariabackup")
        made[1].synced(2)
        made[1].sql("CREATE DATABASE a")
        return 0
    finally:
        for one in made:
            one.close()


def test_positions_are_found_after_a_crash(node: machine.Machine):
    node.start([node], bootstrap=True)
    node.sql("CREATE DATABASE a")
    seqno = node.state["seqno"]
    node.agent.supervisor.stop("mariadbd", 0)
    assert galera.saved_state(node.layout.data) == galera.SavedState(
        galera.Position(node.state["position"]["uuid"], galera.UNKNOWN), safe_to_bootstrap=True
    )
    node.agent.stop_mysqld(1)
    assert node.agent.get_position(None)["seqno"] == seqno
