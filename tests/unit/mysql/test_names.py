"""Names and passwords from outside mean nothing but themselves wherever they end up."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conpaas.core import errors
from conpaas.services.mysql import names

HOSTILE = ["a`b", "a'b", 'a"b', "x; DROP DATABASE y", "$(id)", "--result-file=x", "a%b_c", "-- c", "ü", "a.b", "*x"]


@pytest.mark.parametrize("name", ["blog", "my_site", "Shop-2", "x" * 64, *HOSTILE])
def test_any_plain_text_is_a_name(name: str) -> None:
    if "'" not in name and '"' not in name:
        assert names.check_database(name) == name
    assert names.check_user(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "a ",
        " a",
        "x" * 65,
        "a/b",
        "a\\b",
        "a'b",
        'a"b',
        "*",
        "a\x00",
        "a\n",
        "#mysql50#x",
        "#MYSQL50#../x",
        "mysql",
        "MySQL",
        "sys",
        "information_schema",
        "performance_schema",
        "blog__load_0123abcd",
        "😀",
    ],
)
def test_other_databases_are_refused(name: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        names.check_database(name)


@pytest.mark.parametrize("name", ["", "root", "ROOT", "mysql", "mariadb.sys", "conpaas_load", "Conpaas_Load_x", "me", "x" * 81, "a\tb"])
def test_accounts_of_the_server_are_refused(name: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        names.check_user(name, reserved=("me",))


@pytest.mark.parametrize("host", ["%", "10.0.0.1", "10.0.%", "db-1.example.org", "10.0.0.0/255.255.0.0", "fe80::1", "localhost"])
def test_hosts(host: str) -> None:
    assert names.check_host(host) == host


@pytest.mark.parametrize("host", ["", "a b", "x'", "10.0.0.0/8", "10.0.0.1/255.0.0.0", "a;b", "::g", "-a", "a\n", "h" * 300])
def test_other_hosts_are_refused(host: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="A user can come from"):
        names.check_host(host)


def test_passwords() -> None:
    assert names.check_password("12345678") == "12345678"
    assert names.check_password("pä'ß`\"\\;$ x") == "pä'ß`\"\\;$ x"
    with pytest.raises(errors.InvalidArgument, match=r"^Password too short$"):
        names.check_password("1234567")
    for bad in ("secret-text\0", "secret-text\n", "secret-text\ud800", "secret-text" * 200):
        with pytest.raises(errors.InvalidArgument) as caught:
            names.check_password(bad)
        assert "secret" not in str(caught.value)


def test_the_hash_is_the_servers_own() -> None:
    # SELECT PASSWORD('password')
    assert names.password_hash("password") == "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19"


@given(st.text(max_size=30))
def test_the_hash_tells_nothing(password: str) -> None:
    if password.isascii() or password.encode("utf-8", "ignore").decode() == password:
        assert names.password_hash(password)[1:].isalnum()
        assert hashlib.sha1(password.encode()).hexdigest().upper() not in names.password_hash(password)


@given(st.text(max_size=70))
def test_an_identifier_is_one_word(name: str) -> None:
    quoted = names.identifier(name)
    assert quoted[0] == quoted[-1] == "`"
    assert quoted[1:-1].replace("``", "").count("`") == 0
    assert quoted[1:-1].replace("``", "`") == name


@given(st.text(max_size=70).filter(lambda name: "\\" not in name and name != "*"))
def test_the_database_of_a_grant_is_found_again(name: str) -> None:
    stored = names.stored_pattern(name)
    assert names.database_of(stored) == name
    plain = stored.replace("\\_", "").replace("\\%", "")
    assert "_" not in plain
    assert "%" not in plain


def test_every_database_is_a_pattern() -> None:
    assert names.grant_pattern("*") == "`%`"
    assert names.database_of("%") == "*"
    assert names.grant_pattern("a_b%") == "`a\\_b\\%`"


@given(st.text(min_size=1, max_size=64))
def test_scratch_schemas_are_told_from_databases(name: str) -> None:
    made = names.scratch(name, "0123abcd")
    assert len(made) <= 64
    assert names.is_scratch(made)
    assert names.users_own([made, "mysql", "sys", "shop"]) == ["shop"]


def test_each_database_has_a_loader_of_its_own() -> None:
    assert len({names.loader(one) for one in (None, "a", "b", "A")}) == 4
    assert all(names.is_reserved(names.loader(one)) for one in (None, "a"))
    assert len(names.loader("x" * 64)) <= 80


def test_privileges() -> None:
    assert [names.check_privileges(one) for one in ("all", "read")] == ["all", "read"]
    with pytest.raises(errors.InvalidArgument, match="must be one of all, read, not 'ALL'"):
        names.check_privileges("ALL")
