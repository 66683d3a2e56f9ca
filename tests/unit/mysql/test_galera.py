"""What a stopped node knows of its cluster, and what its server said."""

from __future__ import annotations

import pathlib

import pytest

from conpaas.core import errors
from conpaas.services.mysql.agent import footprint, rejoin
from conpaas.services.mysql.workload import galera, mariadb

UUID = "be482b41-e91d-11f1-b53e-33798f70a536"
SAVED = f"# GALERA saved state\nversion: 2.1\nuuid:    {UUID}\nseqno:   42\nsafe_to_bootstrap: 1\n"


@pytest.mark.parametrize(
    ("text", "state"),
    [
        (SAVED, galera.SavedState(galera.Position(UUID, 42), True)),
        (SAVED.replace("42", "-1").replace(": 1", ": 0"), galera.SavedState(galera.Position(UUID, -1), False)),
        (SAVED.replace("42", "many"), galera.SavedState(galera.Position(UUID, -1), True)),
        (SAVED.replace(UUID, "nonsense"), None),
        ("", None),
        ("\0" * 500, None),
    ],
)
def test_saved_states_are_read(tmp_path: pathlib.Path, text: str, state: galera.SavedState | None):
    (tmp_path / "grastate.dat").write_text(text)
    assert galera.saved_state(tmp_path) == state


def test_a_node_without_saved_state_has_none(tmp_path: pathlib.Path):
    assert galera.saved_state(tmp_path) is None
    galera.allow_bootstrap(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_bootstrapping_is_allowed_in_place(tmp_path: pathlib.Path):
    path = tmp_path / "grastate.dat"
    path.write_text(SAVED.replace("safe_to_bootstrap: 1", "safe_to_bootstrap: 0"))
    path.chmod(0o660)
    galera.allow_bootstrap(tmp_path)
    assert path.read_text() == SAVED
    assert path.stat().st_mode & 0o777 == 0o660


def test_the_last_recovered_position_counts():
    log = (
        "2026-11-25 22:17:41 0 [Note] InnoDB: log sequence number 57876\n"
        f"2026-11-25 22:17:41 0 [Note] WSREP: Recovered position: {UUID}:17\n"
        f"2026-11-25 22:18:41 0 [Note] WSREP: Recovered position: {UUID}:18,1-1-9\n"
    )
    assert galera.recovered(log) == galera.Position(UUID, 18)
    assert galera.recovered(f"WSREP: Recovered position: {galera.NO_CLUSTER}:-1") == galera.Position()
    assert galera.recovered("2026-11-25 [Note] WSREP: disabled, skipping position recovery") is None


def test_addresses():
    assert galera.cluster_address(["10.0.0.1", "fd00::1"], 4567) == "gcomm://10.0.0.1:4567,[fd00::1]:4567"
    with pytest.raises(errors.InvalidArgument, match="';'"):
        galera.provider_options("10.0.0.1", "10.0.0.1", group_port=1, ist_port=2, cache=3, tls=pathlib.Path("/a;pc.bootstrap=yes"))


def test_the_options_fit_each_other():
    """A member is suspected after several missing signs of life, and left out of the cluster later than it is suspected."""
    seconds = {name: float(value.removeprefix("PT").removesuffix("S")) for name, value in galera.TIMING.items()}
    assert seconds["evs.inactive_check_period"] <= seconds["evs.keepalive_period"]
    assert seconds["evs.keepalive_period"] * 4 <= seconds["evs.suspect_timeout"]
    assert seconds["evs.suspect_timeout"] < seconds["evs.inactive_timeout"] <= seconds["evs.install_timeout"]


RUN = "2026-11-25 22:15:56 0 [Note] Starting MariaDB 10.11.19-MariaDB source revision 58\n"


def test_runs_are_told_apart():
    text = f"former{RUN}[ERROR] one\n{RUN}[ERROR] two\n"
    assert mariadb.reason(mariadb.last_run(text)) == "two"
    assert mariadb.reason(mariadb.former_run(text)) == "one"
    assert mariadb.last_run("no start") == "no start"
    assert mariadb.former_run("no start") == ""
    assert mariadb.runs("") == []


def test_reasons_leave_out_what_tells_nothing():
    text = (
        "2026-11-25 22:16:50 0 [ERROR] WSREP: Failed to read uuid:seqno and wsrep_gtid_domain_id from joiner script.\n"
        "WSREP_SST: [ERROR] Cleanup after exit with status: 2 (20261125 22:16:50.625)\n"
        "WSREP_SST: [ERROR] xtrabackup_checkpoints missing, failed mariadb-backup/SST on donor (20261125 22:16:50.623)\n"
        "2026-11-25 22:16:50 0 [Warning] WSREP: 0.0 (n1): State transfer to 1.0 (n3) failed: Invalid argument\n"
        "2026-11-25 22:16:50 0 [ERROR] Aborting\n"
    )
    assert mariadb.reason(text) == (
        "the donor n1 could not send its data: Invalid argument; xtrabackup_checkpoints missing, failed mariadb-backup/SST on donor"
    )
    assert mariadb.reason("[Note] all is well") is None
    full = "2026-11-25 0 [ERROR] mariadbd: Error writing file './a' (Errcode: 28 \"No space left on device\")"
    assert str(mariadb.reason(full)).startswith("the disk is full: ")


def test_who_waits_alone_is_told_from_who_works():
    waiting = f"{RUN}[Note] WSREP: Received NON-PRIMARY.\nView:\n  status: non-primary\n  members(1):\n\t0: m0\n"
    assert rejoin.waits_alone(waiting)
    assert not rejoin.waits_alone(waiting + "  members(2):\n")
    assert not rejoin.waits_alone(waiting + "[Note] WSREP: State transfer required: \n")
    assert not rejoin.waits_alone(RUN)


def test_progress_of_transfers(tmp_path: pathlib.Path):
    started = f"{RUN}WSREP_SST: [INFO] rsync SST started on joiner (2026)\n"
    assert footprint.transfer(tmp_path, RUN) is None
    assert footprint.transfer(tmp_path, started) == "what is missing, by rsync; 0 MB are here"
    assert footprint.transfer(tmp_path, started + "Receiving IST...  40.0% (4/10 events) complete.\n") == "what was missed, 40 % so far"
    assert footprint.transfer(tmp_path, started + "Synchronized with group, ready for connections\n") is None


def test_only_what_travels_counts(tmp_path: pathlib.Path):
    (tmp_path / "a").mkdir()
    for name in ("ibdata1", "a/t.ibd", "galera.cache", "ib_logfile0", "mysql-bin.000001", "ibtmp1"):
        (tmp_path / name).write_bytes(b"x" * 100)
    assert footprint.measure(tmp_path) == 200
    assert footprint.measure(tmp_path / "nowhere") == 0
