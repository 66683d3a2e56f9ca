"""The configuration of a server, and what must never get into one."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies

from conpaas.core import errors, paths
from conpaas.services.mysql import spec
from conpaas.services.mysql.workload import layout, mariadb_config

PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
TLS = spec.TlsFiles(PEM, PEM.replace("CERTIFICATE", "PRIVATE KEY"), PEM)
MEMBERS = (spec.Member("m1", "10.0.0.1"), spec.Member("m2", "10.0.0.2"))
SERVER = mariadb_config.Server("10.0.0.1", 3306, 4567, 4568, 4444, "/usr/lib/galera/libgalera_smm.so", "mysql", 128, 96, 64, 2)
PLACES = layout.Layout.of(paths.Paths.under(pathlib.Path("/vm")))


def render(**changes: Any) -> str:
    settings: dict[str, Any] = {"cluster": "c1", "name": "m1", "members": MEMBERS, "tls": TLS}
    return mariadb_config.render(SERVER, spec.NodeSettings(**{**settings, **changes}), PLACES)


def values(text: str) -> dict[str, str]:
    lines = [line.partition(" = ") for line in text.splitlines() if " = " in line and not line.startswith("#")]
    return {name: value.strip('"') for name, _, value in lines}


def test_what_galera_needs_is_there():
    found = values(render(donors=("m2",)))
    assert found["wsrep_cluster_address"] == "gcomm://10.0.0.1:4567,10.0.0.2:4567", "all members, this one too"
    assert found["bind_address"] == "10.0.0.1", "on its own address only"
    assert found["wsrep_sst_donor"] == "m2,", "and any other, if that one cannot"
    assert (found["binlog_format"], found["innodb_autoinc_lock_mode"], found["default_storage_engine"]) == ("ROW", "2", "InnoDB")
    assert (found["innodb_flush_log_at_trx_commit"], found["sync_binlog"]) == ("1", "1")
    assert found["wsrep_sst_receive_address"] == "10.0.0.1:4444"
    assert found["ssl_mode"] == "VERIFY_CA"
    assert found["wsrep_sst_auth"] == "mysql:", "a user of the operating system, without a password"
    options = dict(one.split("=") for one in render().partition("wsrep_provider_options = ")[2].splitlines()[0].strip('"').split(";"))
    assert options["gmcast.listen_addr"] == "ssl://10.0.0.1:4567"
    assert options["socket.ssl"] == "yes"
    assert options["gcache.recover"] == options["pc.recovery"] == "yes"
    assert "wsrep_sst_donor" not in values(render())
    assert TLS.key not in render()


def test_what_a_member_logs_for_itself_is_numbered_apart_from_all_others():
    domains = {name: int(values(render(name=name))["gtid_domain_id"]) for name in ("m1", "m2")}
    assert len({*domains.values(), 0, int(values(render())["wsrep_gtid_domain_id"])}) == 4
    assert domains["m1"] == int(values(render())["gtid_domain_id"]), "the same at every start"
    assert max(domains.values()) < 2**32


def test_a_server_of_root_is_told_so():
    settings = spec.NodeSettings("c1", "m1", MEMBERS, TLS)
    assert "\nuser = root\n" in mariadb_config.render(dataclasses.replace(SERVER, account="root"), settings, PLACES)
    assert "\nuser = " not in render()


@pytest.mark.parametrize(
    ("chosen", "charset"),
    [({}, "utf8mb4"), ({"collation_server": "latin1_german1_ci"}, "latin1"), ({"character_set_server": "ascii"}, "ascii")],
)
def test_new_databases_hold_all_letters_unless_users_choose_otherwise(chosen: dict[str, str], charset: str) -> None:
    text = render(variables=chosen)
    assert text.count("\ncharacter_set_server = ") == 1
    assert values(text)["character_set_server"] == charset


def test_chosen_variables_come_last():
    text = render(variables={"max_connections": "77", "innodb_buffer_pool_size": "64M", "long_query_time": "0.5"})
    assert values(text)["innodb_buffer_pool_size"] == "64M"
    assert text.index("innodb_buffer_pool_size = 128M") < text.index('innodb_buffer_pool_size = "64M"') < text.index("[sst]")


@pytest.mark.parametrize(
    "name",
    [
        *(
            "datadir",
            "wsrep_cluster_address",
            "wsrep_on",
            "plugin_load_add",
            "init_file",
            "secure_file_priv",
            "log_bin",
            "skip_grant_tables",
        ),
        *("general_log_file", "sync_binlog", "innodb_flush_log_at_trx_commit", "local_infile", "ssl_key", "user", "port", "server_id"),
        *("innodb_force_recovery", "MAX_CONNECTIONS", "max-connections", "a b", "a=b", "a\nb", "[mariadbd]", "", "x" * 100, "log_error"),
    ],
)
def test_variables_that_endanger_a_node_are_refused(name: str):
    with pytest.raises(errors.InvalidArgument, match="cannot be chosen"):
        render(variables={name: "1"})


@pytest.mark.parametrize("value", ["1\n[mariadbd]\nplugin_load_add=x", 'a"b', "a'b", "a\\", "\0", "a\x7fb", "a\u2028b"])
def test_values_cannot_leave_their_place(value: str):
    with pytest.raises(errors.InvalidArgument, match="cannot stand"):
        render(variables={"sql_mode": value})
    with pytest.raises(errors.InvalidArgument, match="must be text"):
        render(variables={"sql_mode": 1})  # type: ignore[dict-item]


@hypothesis.given(strategies.dictionaries(strategies.text(max_size=30), strategies.text(max_size=30), max_size=3))
def test_whatever_is_chosen_adds_that_and_nothing_else(variables: dict[str, str]):
    plain = render().splitlines()
    try:
        text = render(variables=variables)
    except errors.InvalidArgument:
        return
    added = [line for line in text.splitlines() if line not in plain and not line.startswith("# Chosen")]
    assert all(line in {f'{name} = "{value}"' for name, value in variables.items()} for line in added)


def test_only_what_counts_at_a_start_is_a_difference():
    before = render(variables={"max_connections": "77"})
    after = render(variables={"back_log": "99"}, transfer="mariabackup", donors=("m2",), members=(*MEMBERS, spec.Member("m3", "10.0.0.3")))
    assert mariadb_config.differences(before, after) == ["back_log", "max_connections"]
    assert mariadb_config.differences(before, before) == []


def test_sockets_fit_into_their_addresses():
    assert layout.socket_in(pathlib.Path("/run/mysql")) == pathlib.Path("/run/mysql/mysql.sock")
    deep = [layout.socket_in(pathlib.Path("/deep" * 40) / name) for name in ("a", "b")]
    assert all(len(str(one)) <= layout.SOCKET_LIMIT for one in deep)
    assert deep[0] != deep[1]
