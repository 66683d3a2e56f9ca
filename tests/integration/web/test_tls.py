"""Domains with certificates of their own."""

from __future__ import annotations

import contextlib
import socket
import ssl
import stat
import subprocess

import pytest

from conpaas.core import errors
from conpaas.services.webservers import spec

from . import certificates, conftest

ONE, TWO = "one.example.org", "two.example.org"


def configure(node: conftest.Node, serial: int, *domains: spec.Domain, **site: object) -> dict[str, object]:
    node.write("code-1", {"index.html": "page", ".well-known/acme-challenge/token": "proof"})
    return node.proxy().configure(conftest.proxy_config(serial, domains=domains, **site))


@contextlib.contextmanager
def connected(node: conftest.Node, name: str | None, *, alpn: tuple[str, ...] = (), newest: ssl.TLSVersion | None = None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if newest:
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = newest
    with socket.create_connection((node.address, 443), timeout=10) as plain, context.wrap_socket(plain, server_hostname=name) as wrapped:
        yield wrapped


def served(node: conftest.Node, name: str, target: str = "/") -> str:
    with connected(node, name) as client:
        client.sendall(f"GET {target} HTTP/1.0\r\nHost: {name}\r\n\r\n".encode())
        answer = b""
        while chunk := client.recv(65536):
            answer += chunk
    return answer.decode()


def certificate_of(node: conftest.Node, name: str) -> str:
    with connected(node, name) as client:
        der = client.getpeercert(binary_form=True)
    assert der
    return certificates.common_name(der)


def test_every_domain_has_its_own_certificate_and_others_get_none(node: conftest.Node):
    assert configure(node, 1, certificates.domain(ONE), certificates.domain(TWO)) == {"port": 80, "tls_port": 443}
    assert certificate_of(node, ONE) == ONE
    assert certificate_of(node, TWO) == TWO
    assert served(node, ONE).endswith("\r\n\r\npage")
    for stranger in ("three.example.org", None):
        with pytest.raises(ssl.SSLError), connected(node, stranger):
            pass


def test_plain_http_leads_to_https_but_only_for_names_with_a_certificate(node: conftest.Node):
    configure(node, 1, certificates.domain(ONE), spec.Domain("plain.example.org"))
    reply = node.ask("/a?b=c", headers={"Host": ONE})
    assert (reply.status, reply.headers["location"]) == (301, f"https://{ONE}/a?b=c")
    assert node.ask("/", method="POST", body=b"x", headers={"Host": ONE}).status == 308, "the method stays"
    assert node.ask("/.well-known/acme-challenge/token", headers={"Host": ONE}).text == "proof"
    for host in ("plain.example.org", "other.example.org", node.address):
        assert node.ask("/", headers={"Host": host}).text == "page"
    configure(node, 2, certificates.domain(ONE), https_redirect=False)
    assert node.ask("/", headers={"Host": ONE}).text == "page"


def test_hsts_is_said_over_tls_only_and_when_wanted(node: conftest.Node):
    configure(node, 1, certificates.domain(ONE), hsts=True)
    assert "strict-transport-security: max-age=31536000" in served(node, ONE).lower()
    assert "strict-transport-security" not in node.ask("/").headers
    configure(node, 2, certificates.domain(ONE))
    assert "strict-transport-security" not in served(node, ONE).lower()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_http2_is_spoken_and_old_tls_is_not(node: conftest.Node):
    configure(node, 1, certificates.domain(ONE))
    with connected(node, ONE, alpn=("h2", "http/1.1")) as client:
        assert client.selected_alpn_protocol() == "h2"
        assert client.version() == "TLSv1.3"
    with pytest.raises((ssl.SSLError, OSError)), connected(node, ONE, newest=ssl.TLSVersion.TLSv1_1):
        pass


def test_keys_are_private_and_gone_when_nobody_needs_them(node: conftest.Node):
    configure(node, 1, certificates.domain(ONE), certificates.domain(TWO))
    files = sorted((node.paths.lib / "nginx-proxy").iterdir())
    assert len(files) == 4
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE((node.paths.lib / "nginx-proxy.json").stat().st_mode) == 0o600
    configure(node, 2, certificates.domain(ONE))
    assert len(list((node.paths.lib / "nginx-proxy").iterdir())) == 2
    assert "PRIVATE KEY" not in (node.paths.cache / "nginx-proxy.conf").read_text()
    node.proxy().stop()
    assert list((node.paths.lib / "nginx-proxy").iterdir()) == []


def test_a_changed_certificate_is_served_by_the_next_connection(node: conftest.Node):
    configure(node, 1, certificates.domain(ONE))
    other = certificates.domain("renewed.example.org")
    configure(node, 2, spec.Domain(ONE, other.certificate, other.key))
    assert certificate_of(node, ONE) == "renewed.example.org"


def test_what_does_not_fit_together_is_refused_with_the_reason(node: conftest.Node):
    configure(node, 1, certificates.domain(ONE))
    one, two = certificates.domain(ONE), certificates.domain(TWO)
    with pytest.raises(errors.OperationFailed, match="key values mismatch"):
        configure(node, 2, spec.Domain(ONE, one.certificate, two.key))
    with pytest.raises(errors.OperationFailed, match="cannot load certificate"):
        configure(node, 3, spec.Domain(ONE, "nonsense", one.key))
    with pytest.raises(errors.InvalidArgument, match=r"two\.example\.org needs a certificate and its key both"):
        configure(node, 4, spec.Domain(TWO, two.certificate))
    with pytest.raises(errors.InvalidArgument, match="is there twice"):
        configure(node, 5, one, spec.Domain(ONE.upper(), two.certificate, two.key))
    assert certificate_of(node, ONE) == ONE
    assert node.proxy().state()["serial"] == 1


def test_a_passphrase_is_not_waited_for(node: conftest.Node):
    one = certificates.domain(ONE)
    locked = subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-v2", "aes256", "-passout", "pass:x"], input=one.key.encode(), capture_output=True, check=True
    ).stdout.decode()
    with pytest.raises(errors.OperationFailed, match="nginx refuses the configuration"):
        configure(node, 1, spec.Domain(ONE, one.certificate, locked))


def test_scripts_know_that_the_client_came_over_tls(node: conftest.Node, make_fpm):
    node.write("code-1", {"s.php": "<?php echo $_SERVER['HTTPS'], $_SERVER['REQUEST_SCHEME'], $_SERVER['HTTP_X_FORWARDED_PROTO'];"})
    fpm = make_fpm(node.address)
    node.proxy().configure(conftest.proxy_config(backends=(fpm.upstream,), domains=(certificates.domain(ONE),)))
    assert served(node, ONE, "/s.php").endswith("onhttpshttps")


def test_redirects_name_a_port_that_is_not_the_usual(make_node):
    node = make_node()
    with socket.create_server((node.address, 443)):
        assert configure(node, 1, certificates.domain(ONE)) == {"port": 80, "tls_port": 444}
    assert node.ask("/", headers={"Host": ONE}).headers["location"] == f"https://{ONE}:444/"
