"""Trying a site before it is switched to."""

from __future__ import annotations

import http.server
import pathlib
import threading
import time
from collections.abc import Callable

import pytest

from conpaas.core import errors
from conpaas.services.webservers import spec

from . import conftest

PHP = {
    "good/index.php": "<?php echo 'fine';",
    "broken/index.php": "<?php\n\nthis is no PHP;\n",
    "shown/index.php": "<?php http_response_code(500); echo '<html><style>p{}</style><p>the &amp; database is <b>gone</b></p>';",
    "slow/index.php": "<?php sleep(5);",
    "moved/index.php": "<?php header('Location: /elsewhere', true, 302);",
}


@pytest.mark.parametrize(
    ("directory_of", "status", "reason"),
    [
        ("good", 200, ""),
        ("moved", 302, ""),
        ("broken", 500, "PHP Parse error"),
        ("shown", 500, "the & database is gone"),
        ("slow", 0, "no answer within 1 s"),
    ],
)
def test_every_backend_is_asked_and_the_reason_told(
    node: conftest.Node, make_fpm: Callable[..., conftest.Fpm], directory_of: str, status: int, reason: str
):
    node.write("code-2", PHP)
    pools = [make_fpm(), make_fpm()]
    wanted = conftest.proxy_config(2, version="code-2", backends=tuple(pool.upstream for pool in pools), document_root=directory_of)
    answers = node.proxy().check_site(wanted, "/", 1.0)
    assert [(one["server"], one["status"]) for one in answers] == [(pool.upstream.address, status) for pool in pools]
    for one in answers:
        assert reason in one["reason"], one
        assert 0 <= one["seconds"] < 3
    assert list((node.paths.run / "nginx-trial").iterdir()) == [], "nothing is left of the trial"
    assert not node.paths.cache.joinpath("nginx-proxy.conf").exists(), "the proxy is not touched"


def test_a_path_goes_through_the_front_controller(node: conftest.Node, make_fpm: Callable[..., conftest.Fpm]):
    node.write("code-1", {"index.php": "<?php http_response_code($_SERVER['REQUEST_URI'] === '/health?deep=1' ? 204 : 500);"})
    fpm = make_fpm()
    (answer,) = node.proxy().check_site(conftest.proxy_config(backends=(fpm.upstream,)), "/health?deep=1", 3.0)
    assert answer["status"] == 204


def test_one_of_several_backends_is_dead(node: conftest.Node, make_fpm: Callable[..., conftest.Fpm]):
    node.write("code-1", {"index.php": "<?php echo 1;"})
    fpm, dead = make_fpm(), spec.Upstream(conftest.new_address(), 9000)
    answers = node.proxy().check_site(conftest.proxy_config(backends=(fpm.upstream, dead)), "/", 3.0)
    assert [one["status"] for one in answers] == [200, 502]
    assert "Connection refused" in answers[1]["reason"]


def test_web_servers_must_have_the_version(make_node: Callable[..., conftest.Node], make_toy: Callable[..., conftest.Toy]):
    front, *others = (make_node() for _ in range(3))
    for one in (front, *others):
        for version in ("code-1", "code-2"):
            one.write(version, {"a.txt": "a"})
    ports = [
        others[0].static().configure(["code-1", "code-2"], spec.SiteSettings()),
        others[1].static().configure(["code-1"], spec.SiteSettings()),
    ]
    web = tuple(spec.Upstream(one.address, port) for one, port in zip(others, ports, strict=True))
    gone = spec.Upstream(conftest.new_address(), 8080)
    wanted = conftest.proxy_config(version="code-2", web=(*web, gone), kind="java", backends=(spec.Upstream(front.address, 9),))
    answers = front.proxy().check_site(wanted, "/no/such/file", 3.0)
    assert [(one["server"], one["status"]) for one in answers] == [(web[0].address, 200), (web[1].address, 404), (gone.address, 0)]
    assert "does not serve the code version code-2" in answers[1]["reason"]
    assert "Connection refused" in answers[2]["reason"]


def test_a_hanging_backend_ends_with_its_time(node: conftest.Node, make_toy: Callable[..., conftest.Toy]):
    node.write("code-1", {"WEB-INF/web.xml": ""})
    release = threading.Event()

    def hang(handler: http.server.BaseHTTPRequestHandler) -> None:
        release.wait(30)
        conftest.send(handler, 200, b"late")

    toys = [make_toy(hang), make_toy()]
    began = time.monotonic()
    wanted = conftest.proxy_config(backends=tuple(toy.upstream for toy in toys), kind="java")
    answers = node.proxy().check_site(wanted, "/", 0.5)
    assert time.monotonic() - began < 4
    assert [one["status"] for one in answers] == [0, 200]
    release.set()


def test_what_cannot_be_tried_is_refused(node: conftest.Node):
    node.write("code-1", {"index.php": ""})
    wanted = conftest.proxy_config(backends=(spec.Upstream(node.address, 9),))
    for path in ("no-slash", "/a b", '/"', "/a\r\nX: y", ""):
        with pytest.raises(errors.InvalidArgument):
            node.proxy().check_site(wanted, path, 1.0)
    with pytest.raises(errors.NotFound):
        node.proxy().check_site(conftest.proxy_config(version="code-9"), "/", 1.0)
    (node.paths.cache / "nginx-user-rootloc.conf").write_text("nonsense;\n")
    with pytest.raises(errors.OperationFailed, match='unknown directive "nonsense"'):
        node.proxy().check_site(wanted, "/", 1.0)
    assert [path for path in pathlib.Path(node.paths.run / "nginx-trial").iterdir()] == []
