"""Nothing but a value of the form its variable has ever gets to the server or into its configuration."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conpaas.core import errors
from conpaas.services.mysql import variables

SAFE = re.compile(r"[A-Za-z0-9_,.:+-]*\Z")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("max_connections", "500", "500"),
        ("max_connections", 500, "500"),
        ("innodb_buffer_pool_size", "1G", "1073741824"),
        ("innodb_buffer_pool_size", "512m", "536870912"),
        ("max_allowed_packet", "64M", "67108864"),
        ("max_allowed_packet", 16777217, "16777216"),
        ("long_query_time", "0.50", "0.5"),
        ("long_query_time", 2, "2"),
        ("slow_query_log", "on", "ON"),
        ("slow_query_log", False, "OFF"),
        ("sql_mode", "strict_trans_tables, ANSI_QUOTES", "ANSI_QUOTES,STRICT_TRANS_TABLES"),
        ("sql_mode", "", ""),
        ("time_zone", "+02:00", "+02:00"),
        ("time_zone", "system", "SYSTEM"),
        ("character_set_server", "UTF8MB4", "utf8mb4"),
        ("collation_server", "utf8mb4_unicode_ci", "utf8mb4_unicode_ci"),
        ("query_cache_type", "demand", "DEMAND"),
    ],
)
def test_values_are_taken(name: str, value: object, expected: str) -> None:
    assert variables.check(name, value) == expected


@pytest.mark.parametrize("name", variables.CATALOGUE)
@pytest.mark.parametrize("value", ["1\ninit_file=/etc/passwd", "1; DROP DATABASE x", "'", '"', "`", "-1", "1e9", None, [], {}, "١", "x y"])
def test_others_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(errors.InvalidArgument, match=f"The variable {name} takes "):
        variables.check(name, value)


@given(st.sampled_from(sorted(variables.CATALOGUE)), st.text(max_size=40) | st.integers() | st.floats() | st.booleans())
def test_what_passes_is_harmless_and_stays_the_same(name: str, value: object) -> None:
    try:
        checked = variables.check(name, value)
    except errors.InvalidArgument:
        return
    assert SAFE.match(checked)
    assert variables.check(name, checked) == checked
    assert variables.same(name, checked, checked)


@pytest.mark.parametrize(
    "name",
    [
        *("innodb_flush_log_at_trx_commit", "sync_binlog", "wsrep_on", "binlog_format", "secure_file_priv", "local_infile", "datadir"),
        *("general_log", "general_log_file", "init_connect", "init_file", "plugin_dir", "read_only", "", "max_connections; x"),
        "MAX_CONNECTIONS",
    ],
)
def test_what_endangers_the_data_is_not_there(name: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="is not among the server variables"):
        variables.check_all({name: "1"})


def test_all_are_checked_and_in_one_order() -> None:
    given_ = {"wait_timeout": "60", "max_connections": "100", "collation_server": "utf8mb4_bin", "character_set_server": "utf8mb4"}
    assert list(variables.check_all(given_)) == ["max_connections", "wait_timeout", "character_set_server", "collation_server"]
    with pytest.raises(errors.InvalidArgument, match="utf8mb4_bin does not belong to the character set latin1"):
        variables.check_all(given_ | {"character_set_server": "latin1"})


@pytest.mark.parametrize(
    ("name", "wanted", "told", "expected"),
    [
        ("long_query_time", "2", "2.000000", True),
        ("sql_mode", "B,A", "A,B", True),
        ("slow_query_log", "ON", "1", True),
        ("slow_query_log", "ON", "OFF", False),
        ("innodb_buffer_pool_size", "134217729", "268435456", True),
        ("innodb_buffer_pool_size", "134217728", "1073741824", False),
        ("max_connections", "100", "151", False),
        ("read_buffer_size", "8192", "8192", True),
    ],
)
def test_the_servers_words_are_understood(name: str, wanted: str, told: str, expected: bool) -> None:
    assert variables.same(name, wanted, told) is expected


def test_each_variable_tells_what_it_takes() -> None:
    for one in variables.CATALOGUE.values():
        told = one.to_dict()
        assert told["help"].endswith(".")
        assert told["values"]
    assert variables.CATALOGUE["max_allowed_packet"].describe() == "a size from 1M to 1G, such as 512K, 64M or 1G"
    assert variables.shown_size(1536) == "1536"
    assert variables.shown_size(3 << 20) == "3M"


def test_a_collation_brings_its_character_set() -> None:
    assert variables.check_all({"collation_server": "latin1_bin"}) == {"character_set_server": "latin1", "collation_server": "latin1_bin"}


def test_names_in_a_configuration() -> None:
    assert variables.options({"time_zone": "+02:00", "back_log": "90"}) == {"default_time_zone": "+02:00", "back_log": "90"}
