"""Whatever a configuration of nginx is made from, it holds the directives of its template and no others."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import subprocess
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies

from conpaas.core import errors
from conpaas.services.webservers import spec
from conpaas.services.webservers.workload import nginx_config

NGINX = "/usr/sbin/nginx"
SERVER = spec.Upstream("127.61.0.1", 9000)


def host(directory: pathlib.Path) -> nginx_config.Host:
    return nginx_config.Host(
        name="nginx-proxy",
        directory=directory / "scratch",
        socket="s.sock",
        pid_file=directory / "pid",
        error_log=directory / "error.log",
        user_files=directory,
        access_log=directory / "access.log",
        timed_log=directory / "timed.log",
    )


def configuration(**values: Any) -> spec.ProxyConfig:
    site = {name: values.pop(name) for name in list(values) if name in {field.name for field in dataclasses.fields(spec.SiteSettings)}}
    defaults: dict[str, Any] = {"serial": 1, "code_version": "code-1", "web": (SERVER,), "backends": (SERVER,), "domains": ()}
    return spec.ProxyConfig(**{**defaults, **values}, site=spec.SiteSettings(**site))


def rendered(directory: pathlib.Path, wanted: spec.ProxyConfig, *, local: bool = False, files_only: bool = False, **rest: Any) -> str:
    return nginx_config.proxy(
        host(directory),
        wanted,
        root=directory / "www" / wanted.code_version / wanted.site.document_root,
        files_only=files_only,
        local=local,
        listening=nginx_config.Listening(("127.61.0.1:8091",), ("127.61.0.1:8092",), 8092),
        **rest,
    )


def accepted(directory: pathlib.Path, text: str) -> str:
    """What nginx says of a text; empty if it takes it."""
    (directory / "scratch").mkdir(exist_ok=True)
    path = directory / "nginx.conf"
    path.write_text(text)
    done = subprocess.run([NGINX, "-t", "-q", "-c", str(path)], cwd=directory, capture_output=True, check=False)
    return "" if done.returncode == 0 else done.stderr.decode()


def directives(text: str) -> list[str]:
    """The names of all directives, in order, read as nginx reads: words, quotes, comments, `;` and braces."""
    names = []
    fresh = True
    for token in re.findall(r'"(?:\\.|[^"\\])*"|#[^\n]*|[;{}]|[^\s;{}"]+(?:\{\w+\}[^\s;{}"]*)?', text):
        if token.startswith("#"):
            continue
        if token in (";", "{", "}"):
            fresh = True
        elif fresh:
            names.append(token)
            fresh = False
    return names


def test_only_the_backends_that_have_a_socket_are_reached_by_it(tmp_path: pathlib.Path):
    other = spec.Upstream("127.61.0.2", 9000, weight=7)
    way = pathlib.Path("/run/with space/9000.sock")  # a short path: a socket's has 107 characters at most
    text = rendered(tmp_path, configuration(backends=(SERVER, other)), local=True, sockets={SERVER.address: way})
    assert re.findall(r"server (.*) weight=(\d+)", text) == [(f'"unix:{way}"', str(SERVER.weight)), (other.address, "7")]
    assert accepted(tmp_path, text) == ""


@pytest.mark.parametrize("kind", ["php", "java"])
@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("files_only", [True, False])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"balancing": "dynamic", "gzip": False, "security_headers": False, "static_max_age": 0, "hsts": True},
        {"front_controller": "", "document_root": "public/web", "backends": (), "web": ()},
        {"front_controller": "app/front.php", "backends": (SERVER, spec.Upstream("::1", 9001, 3)), "web": (SERVER,) * 2},
    ],
)
def test_nginx_takes_every_kind_of_configuration(
    tmp_path: pathlib.Path, kind: str, local: bool, files_only: bool, settings: dict[str, Any]
):
    text = rendered(tmp_path, configuration(kind=kind, **settings), local=local, files_only=files_only)
    assert accepted(tmp_path, text) == ""


def test_nginx_takes_trials_and_static_servers(tmp_path: pathlib.Path):
    for kind in ("php", "java"):
        wanted = configuration(kind=kind, backends=(SERVER, SERVER))
        text = nginx_config.trial(host(tmp_path), wanted, root=tmp_path, files_only=False, sockets=["0.sock", "1.sock"])
        assert accepted(tmp_path, text) == ""
    versions = [("code-1", tmp_path / "a b"), ("git-1", tmp_path)]
    assert accepted(tmp_path, nginx_config.static(host(tmp_path), versions, spec.SiteSettings(), ["127.61.0.1:8093"])) == ""


def test_a_static_server_is_told_the_version_and_the_visitor_and_nothing_that_it_has_no_use_for(tmp_path: pathlib.Path):
    text = rendered(tmp_path, configuration(web=(spec.Upstream("127.61.0.3", 8080),)))
    block = text.rpartition("location / {")[2].partition("\n        }")[0]
    assert re.findall(r"proxy_set_header (\S+)", block) == ["Host", "Connection", "X-Real-IP"]
    assert "X-Request-ID" not in block, "files have none: to make one costs more than to log the request"
    assert len(re.findall("add_header X-Request-ID", text)) == len(re.findall("fastcgi_pass", text)) == 3


def test_servers_left_out_are_marked_but_never_all(tmp_path: pathlib.Path):
    servers = (SERVER, spec.Upstream("127.61.0.2", 9000, 7))
    text = rendered(tmp_path, configuration(backends=servers), down=frozenset({SERVER.address, "127.61.9.9:1"}), local=True)
    assert "server 127.61.0.1:9000 weight=100 max_fails=2 fail_timeout=1s down;" in text
    assert "server 127.61.0.2:9000 weight=7 max_fails=2 fail_timeout=1s;" in text
    text = rendered(tmp_path, configuration(backends=servers), down=frozenset(one.address for one in servers), local=True)
    assert " down;" not in text


NASTY = ['"; load_module x;', "};\n", "$host", "${x}", "a;b", "a b", "a\nb", "..", "/", "\\", '\\"', "# x", "{", "it's", "%0a", "é", "\x00"]
BEGUN = ["code-1", "public", "www.example.org", "index.php", "127.0.0.1", "::1%"]
HOSTILE = strategies.one_of(
    strategies.text(max_size=40),
    strategies.sampled_from(NASTY),
    strategies.builds(lambda begin, end: begin + end, strategies.sampled_from(BEGUN), strategies.text(max_size=12)),
)
NUMBERS = strategies.one_of(strategies.integers(), strategies.booleans(), strategies.floats(), HOSTILE)


@hypothesis.settings(max_examples=400, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(data=strategies.data())
def test_nothing_from_a_spec_can_add_a_directive(tmp_path: pathlib.Path, data: strategies.DataObject):  # D3
    """Every field of what travels is given hostile text: either it is refused, or the directives are those of a harmless value."""
    wire = configuration(domains=(spec.Domain("www.example.org"),)).to_dict()
    field, strategy = data.draw(
        strategies.sampled_from(
            [
                ("serial", NUMBERS),
                ("code_version", HOSTILE),
                *((f"site.{name}", HOSTILE) for name in ("kind", "document_root", "front_controller", "balancing")),
                *((f"site.{name}", NUMBERS) for name in ("upload_size", "response_timeout", "static_max_age", "gzip", "hsts")),
                *((f"{group}.0.{name}", NUMBERS) for group in ("web", "backends") for name in ("port", "weight")),
                *((f"{group}.0.ip", HOSTILE) for group in ("web", "backends")),
                ("domains.0.name", HOSTILE),
            ]
        )
    )
    place: Any = wire
    *way, last = field.split(".")
    for step in way:
        place = place[int(step)] if step.isdigit() else place[step]
    place[last] = data.draw(strategy)
    try:
        wanted = spec.ProxyConfig.from_dict(wire)
        names = [one.name for one in wanted.domains]
        text = rendered(tmp_path, wanted, pairs=[(names, nginx_config.Pair(tmp_path / "c", tmp_path / "k"))])
    except errors.InvalidArgument:
        return
    harmless = dataclasses.replace(
        wanted,
        code_version="code-1",
        web=(SERVER,),
        backends=(SERVER,),
        site=dataclasses.replace(
            wanted.site, document_root="", front_controller="index.php" if wanted.site.front_controller else "", static_max_age=3600
        ),
    )
    pairs = [(["www.example.org"], nginx_config.Pair(tmp_path / "c", tmp_path / "k"))]
    expected = directives(rendered(tmp_path, harmless, pairs=pairs))
    got = directives(text)
    assert [name for name in got if not name.startswith('"')] == [name for name in expected if not name.startswith('"')] or (
        wanted.site.static_max_age == 0
    )


@hypothesis.settings(max_examples=60, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(
    name=strategies.text(strategies.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1, max_size=20)
)
def test_directories_of_any_name_are_quoted_or_refused(tmp_path: pathlib.Path, name: str):
    hypothesis.assume(name not in (".", ".."))
    try:
        text = nginx_config.static(host(tmp_path), [("code-1", tmp_path / name)], spec.SiteSettings(), ["127.61.0.1:8093"])
    except errors.InvalidArgument:
        return
    assert accepted(tmp_path, text) == ""
    plain = nginx_config.static(host(tmp_path), [("code-1", tmp_path / "x")], spec.SiteSettings(), ["127.61.0.1:8093"])
    assert directives(text) == directives(plain)


@pytest.mark.parametrize("ip", ["fe80::1%eth0", "fe80::1%a;b", "fe80::1%\n}"])
def test_zones_of_addresses_are_refused(ip: str):
    with pytest.raises(errors.InvalidArgument):
        nginx_config.server(spec.Upstream(ip, 80))


@pytest.mark.parametrize("value", [True, -1, 1.5, "1", None])
def test_only_whole_numbers_are_numbers(value: object):
    with pytest.raises(errors.InvalidArgument):
        nginx_config.number(value)


@pytest.mark.parametrize("value", ["", "a b", "a;", "a{", "$a", "a\n", 'a"', "é"])
def test_only_harmless_characters_make_words(value: str):
    with pytest.raises(errors.InvalidArgument):
        nginx_config.word(value)


def test_what_passed_no_filter_is_refused():
    with pytest.raises(TypeError, match="no filter passed"):
        nginx_config._environment().from_string("{{ x }}").render(x="harmless")


def test_a_directory_with_signs_of_a_pattern_is_refused(tmp_path: pathlib.Path):
    with pytest.raises(errors.ConfigurationError, match="its name holds one of"):
        host(tmp_path / "a[b]").user_file("server")
