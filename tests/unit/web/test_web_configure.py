"""Changing what a site serves: nothing is used before it works, and what fails was never used."""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import pathlib
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from conpaas.core import errors
from conpaas.services.webservers.agent import client
from conpaas.testing import harness

from .fake_agent import FakeAgent, WebHarness
from .test_web_manager import grown


@pytest.fixture
def php() -> Iterator[WebHarness]:
    with WebHarness() as made:
        yield made
        made.watch()


@pytest.fixture
def big(php: WebHarness) -> WebHarness:
    """Two proxies, a web server, two backends."""
    grown(php)
    php.rest()
    php.world.calls.clear()
    return php


def enable(made: WebHarness, version: str) -> Any:
    return made.do("update_php_configuration", codeVersionId=version)


class TestCode:
    def test_a_service_begins_with_a_page(self, php: WebHarness, tmp_path: pathlib.Path) -> None:
        (only,) = php.call("list_code_versions")["codeVersions"]
        assert (only["codeVersionId"], only["filename"], only["description"]) == ("code-default", "code-default.tar", "Initial version")
        assert b"Welcome to ConPaaS!" in php.call("download_code_version")
        with WebHarness("java") as java:
            assert java.call("list_code_versions")["codeVersions"][0]["filename"] == "code-default.war"
            assert java.call("download_code_version")[:2] == b"PK"

    def test_a_version_goes_to_all_nodes_first_and_then_all_proxies_switch(self, big: WebHarness) -> None:
        version = big.upload()
        big.world.calls.clear()
        enable(big, version)
        methods = big.world.methods()
        assert methods.count("updatePHPCode") == 5
        assert max(i for i, name in enumerate(methods) if name == "updatePHPCode") < methods.index("createPHP")
        assert max(i for i, name in enumerate(methods) if name == "createPHP") < methods.index("check_site")
        assert methods.index("check_site") < methods.index("updateHttpProxy")
        assert big.call("get_configuration")["codeVersionId"] == version
        assert big.serving().code_version == version
        big.rest()
        assert {tuple(big.fake(number).releases) for number in range(5) if big.fake(number).releases} == {(2,)}
        web = next(big.world.agents[one.ip] for one in big.nodes if one.role == "web")
        assert web.web is not None
        assert web.web["versions"] == [version]  # D9: both while proxies switched (the world looks), one when they had

    def test_enabling_before_the_start_is_only_recorded(self, php: WebHarness) -> None:
        version = php.upload()
        assert php.call("update_php_configuration", codeVersionId=version) == {}
        php.start()
        assert php.serving().code_version == version
        assert php.fake(0).code == {version}

    def test_the_enabled_version_again_changes_nothing(self, big: WebHarness) -> None:  # D8
        assert big.call("update_php_configuration", codeVersionId="code-default") == {}
        assert big.world.methods() == []

    @pytest.mark.parametrize(("status", "reason"), [(500, "PHP Parse error: syntax error in index.php on line 3"), (0, "timed out")])
    def test_a_version_that_fails_its_check_is_never_switched_to(self, big: WebHarness, status: int, reason: str) -> None:
        version = big.upload()
        big.world.pages[version] = (status, reason)
        before = big.serving()
        with pytest.raises(errors.OperationFailed) as caught:
            enable(big, version)
        backend = next(one for one in big.nodes if one.role == "backend")
        how = "answered 500" if status else "did not answer within 10 seconds"
        assert str(caught.value) == f"GET / on {backend.id} {how}: {reason}; code version {version} will not be used"
        assert big.serving().code_version == before.code_version
        assert big.call("get_configuration")["codeVersionId"] == "code-default"
        assert big.state == "RUNNING"
        assert big.history[-1][1].endswith("will not be used")
        big.rest()
        assert all(version not in big.fake(number).code for number in range(5))
        assert {tuple(big.fake(number).releases) for number in range(5) if big.fake(number).releases} == {(1,)}

    def test_an_error_that_a_page_hides_is_found(self, big: WebHarness) -> None:
        version = big.upload()
        big.world.logged[version] = ["PHP Fatal error: Uncaught Error in index.php on line 1"]
        with pytest.raises(errors.OperationFailed, match="logged: PHP Fatal error: Uncaught Error in index"):
            enable(big, version)

    def test_any_status_below_500_answers_the_default_path_but_not_one_of_the_users(self, big: WebHarness) -> None:
        version, other = big.upload(), big.upload()
        big.world.pages[version] = big.world.pages[other] = (404, "")
        enable(big, version)
        with pytest.raises(errors.OperationFailed, match=r"GET /health on \S+ answered 404; code version"):
            big.do("update_web_settings", settings={"healthPath": "/health"})
            enable(big, other)

    @pytest.mark.parametrize("method", ["updatePHPCode", "createPHP", "updateWebServer", "check_site", "updateHttpProxy"])
    def test_whatever_fails_the_site_keeps_its_version(self, big: WebHarness, method: str) -> None:  # D14
        version = big.upload()
        big.world.refuse[method, "*"] = 1
        with pytest.raises(errors.OperationFailed, match=f"{method} fails by order of a test"):
            enable(big, version)
        assert big.state == "RUNNING"
        assert {one.proxy.configuration.code_version for one in big.world.present().values() if one.proxy} == {"code-default"}
        big.rest()
        big.check()

    @pytest.mark.parametrize("call", ["list_code", "start_backend", "configure_web", "check_site", "release_errors", "configure_proxy"])
    def test_an_agent_that_is_away_for_a_moment_is_asked_again(self, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
        with WebHarness(AGENT_PATIENCE="5") as made:
            made.start()
            version = made.upload()
            made.world.logged[version] = ["PHP Fatal error: Uncaught Error in index.php on line 1"] if call == "release_errors" else []
            answers, away = getattr(client, call), [errors.Unreachable("connection refused")]

            def restarting(*args: Any, **options: Any) -> Any:
                if away:
                    raise away.pop()
                return answers(*args, **options)

            monkeypatch.setattr(client, call, restarting)
            with pytest.raises(errors.OperationFailed, match="logged") if call == "release_errors" else contextlib.nullcontext():
                enable(made, version)
            assert not away

    @pytest.mark.parametrize("method", ["updatePHPCode", "createPHP", "check_site", "updateHttpProxy"])
    @pytest.mark.parametrize("role", ["proxy", "web", "backend"])
    def test_a_node_that_dies_in_the_middle_costs_one_clear_error(self, big: WebHarness, method: str, role: str) -> None:  # D11
        version = big.upload()
        dying = [one for one in big.nodes if one.role == role][-1]

        def die(_agent: FakeAgent, called: str) -> None:
            if called == method and dying.id in big.director.machines:
                big.kill_node(dying)

        big.world.before = die
        try:
            enable(big, version)
        except errors.OperationFailed as error:
            assert "does not answer" in str(error)
        big.world.before = lambda _agent, _called: None
        assert big.state == "RUNNING"
        big.pass_time(60)
        current = big.call("get_configuration")["codeVersionId"]
        assert {one.proxy.configuration.code_version for one in big.world.present().values() if one.proxy} == {current}
        assert len(big.nodes) == 5
        big.check()

    @pytest.mark.parametrize(
        ("method", "role"),
        [
            *(("updatePHPCode", role) for role in ("proxy", "web", "backend")),
            ("createPHP", "backend"),
            ("updateWebServer", "web"),
            ("check_site", "proxy"),
        ],
    )
    def test_a_version_that_fills_the_disk_of_a_node(self, big: WebHarness, method: str, role: str) -> None:
        """One clear error, and the site stays as it was; going back needs no room, as all that it needs runs already."""
        version = big.upload()
        full = next(one for one in big.nodes if one.role == role)
        before = {ip: one.proxy for ip, one in big.world.agents.items()}

        def no_room(agent: FakeAgent, called: str) -> None:
            if called == method and agent.my_ip == full.ip and big.operations()[0].status == "RUNNING":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        big.world.before = no_room
        reply = big.call("update_php_configuration", codeVersionId=version)
        big.settle()
        done = big.operation(reply["operation"])
        assert done.status == "UNDONE"
        assert done.error is not None
        assert done.error.endswith("There is no room left on the disk.")
        assert big.history[-1] == ("RUNNING", f"configure failed: {done.error}")
        assert {ip: one.proxy for ip, one in big.world.agents.items()} == before, "no proxy was told anything"
        assert big.call("get_configuration")["codeVersionId"] == "code-default"
        big.world.before = lambda _agent, _called: None
        big.rest()
        assert all(version not in big.fake(number).code for number in range(5))
        enable(big, version)
        big.check()

    def test_an_archive_that_would_fill_the_disk_is_no_version(self, tmp_path: pathlib.Path) -> None:
        bomb, large = tmp_path / "bomb.zip", tmp_path / "large.bin"
        with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("zeros", bytes(80 << 20))
        with zipfile.ZipFile(large, "w") as packed:
            packed.writestr("noise", os.urandom(50_000))
        with WebHarness(CODE_QUOTA="60000") as made:
            made.start()
            before = made.call("list_code_versions")
            with pytest.raises(errors.RemoteError, match="unpacks to more than 200 times its size"):
                made.call("upload_code_version", code=bomb)
            with pytest.raises(errors.RemoteError, match="they would exceed 60000"):
                made.call("upload_code_version", code=large)
            assert made.call("list_code_versions") == before
            assert made.state == "RUNNING"

    def test_a_version_is_as_old_on_a_node_that_comes_later(self, php: WebHarness) -> None:
        php.start()
        version = php.upload()
        enable(php, version)
        php.add_nodes({"web": 2})
        made = next(one["time"] for one in php.call("list_code_versions")["codeVersions"] if one["codeVersionId"] == version)
        for one in php.nodes:
            assert dict(php.world.agents[one.ip].times)[version] == int(made)

    def test_two_at_once_are_one_too_many(self, big: WebHarness) -> None:  # D23
        version, other = big.upload(), big.upload()
        big.call("update_php_configuration", codeVersionId=version)
        with pytest.raises(errors.RemoteError, match=r"Wrong service state: was expecting one of .* but current state is 'ADAPTING'"):
            big.call("update_php_configuration", codeVersionId=other)
        big.settle()
        assert big.serving().code_version == version

    def test_rollback(self, big: WebHarness) -> None:
        version = big.upload()
        with pytest.raises(errors.RemoteError, match="There is no former code version"):
            big.call("rollback")
        enable(big, version)
        big.rest()
        big.world.calls.clear()
        assert big.do("rollback")["codeVersionId"] == "code-default"
        assert big.serving().code_version == "code-default"
        assert "updatePHPCode" not in big.world.methods()
        releases = big.call("list_releases")["releases"]
        assert [entry["codeVersionId"] for entry in releases] == ["code-default", version, "code-default"]
        assert [entry["number"] for entry in releases] == [3, 2, 1]
        assert [entry.get("current") for entry in releases] == [True, None, None]
        assert releases[0]["requester"] == "user 1"
        big.do("rollback", codeVersionId=version)
        assert big.serving().code_version == version

    def test_deleted_versions_leave_the_nodes_later(self, big: WebHarness) -> None:
        version, other = big.upload(), big.upload()
        enable(big, version)
        with pytest.raises(errors.RemoteError, match="Cannot remove the active code version"):
            big.call("delete_code_version", codeVersionId=version)
        enable(big, other)
        big.rest()
        assert big.fake(0).code == {version, other}
        big.call("delete_code_version", codeVersionId=version)
        big.rest()
        assert big.fake(0).code == {other}
        assert big.do("rollback")["codeVersionId"] == "code-default"

    def test_a_version_deleted_while_it_is_enabled(self, big: WebHarness) -> None:
        version = big.upload()
        big.call("update_php_configuration", codeVersionId=version)
        big.call("delete_code_version", codeVersionId=version)
        big.settle()
        assert big.state == "RUNNING"
        assert big.operations()[0].status == "UNDONE"
        big.rest()
        big.check()

    def test_unknown_versions(self, php: WebHarness) -> None:
        with pytest.raises(errors.RemoteError, match="Parameter 'codeVersionId': 'nope' must be one of"):
            php.call("update_php_configuration", codeVersionId="nope")

    def test_requests_of_the_former_version_end_before_it_does(self, big: WebHarness) -> None:
        big.world.drain = 50
        enable(big, big.upload())
        backend = next(big.world.agents[one.ip] for one in big.nodes if one.role == "backend")
        big.pass_time(4)
        assert len(backend.releases) == 2
        big.add_nodes({"backend": 1})
        big.pass_time(4)
        assert len(backend.releases) == 2
        big.rest(200)
        assert len(backend.releases) == 1


class TestPhpSettings:
    def test_defaults_and_changes(self, big: WebHarness) -> None:
        told = big.call("get_configuration")
        assert {key: told[key] for key in ("codeVersionId", "cdn", "autoscaling")} == {
            "codeVersionId": "code-default",
            "cdn": False,
            "autoscaling": False,
        }
        assert len(told["phpconf"]) == 7
        big.do("update_php_configuration", phpconf={"display_errors": "On", "max_execution_time": 120})
        assert big.call("get_configuration")["phpconf"]["display_errors"] == "On"
        backend = next(big.world.agents[one.ip] for one in big.nodes if one.role == "backend")
        settings = backend.releases[2]["settings"]
        assert (settings["phpconf"]["max_execution_time"], settings["max_time"]) == ("120", 150)  # D30
        assert big.serving().site.response_timeout == 160

    @pytest.mark.parametrize(
        ("phpconf", "text"),
        [
            ({"memory_limit": "-1"}, "Invalid arguments"),
            ({"display_errors": "On\nallow_url_include = On"}, "Invalid arguments"),  # D2
            ({"display_errors": "Only"}, "Invalid arguments"),
            ({"disable_functions": "exec;x"}, "Invalid arguments"),
            ({"extension": "x.so"}, 'Unexpected arguments phpconf attribute "extension"'),
            ({}, 'Missing argument "at least one of "codeVersionId" or "phpconf""'),
        ],
    )
    def test_bad_ones_are_refused_before_anything_changes(self, php: WebHarness, phpconf: dict[str, Any], text: str) -> None:
        before = php.call("get_configuration")
        with pytest.raises(errors.RemoteError, match=text):
            php.call("update_php_configuration", phpconf={"max_execution_time": 5, **phpconf} if phpconf else phpconf)
        assert php.call("get_configuration") == before

    def test_limits_of_uploads_agree(self, php: WebHarness) -> None:  # D30
        assert php.call("get_web_settings")["settings"]["uploadSize"] == 8
        php.call("update_php_configuration", phpconf={"upload_max_filesize": "32M"})
        assert php.call("get_configuration")["phpconf"]["post_max_size"] == "32M"
        assert php.call("get_web_settings")["settings"]["uploadSize"] == 32
        php.call("update_web_settings", settings={"uploadSize": 100})
        phpconf = php.call("get_configuration")["phpconf"]
        assert (phpconf["upload_max_filesize"], phpconf["post_max_size"]) == ("100M", "100M")
        php.start()
        assert php.serving().site.upload_size == 100

    def test_a_broken_site_can_still_be_set_up(self, big: WebHarness) -> None:
        """Somebody whose site answers 500 must be able to switch debug mode on."""
        big.world.pages["code-default"] = (500, "no database")
        big.do("update_php_configuration", phpconf={"display_errors": "On"})
        assert any("That was so before" in note.text for note in big.operation(big.operations()[0].id).notes)

    def test_settings_that_break_the_site_are_not_used(self, big: WebHarness) -> None:
        answers = iter([(500, "out of memory"), (200, "")])
        big.world.before = lambda _agent, called: called == "check_site" and big.world.pages.update({"code-default": next(answers)})  # type: ignore[assignment]
        with pytest.raises(errors.OperationFailed, match="out of memory; these settings will not be used"):
            big.do("update_php_configuration", phpconf={"memory_limit": "1M"})
        assert big.call("get_configuration")["phpconf"]["memory_limit"] == "128M"

    def test_two_services_share_nothing(self) -> None:  # D15
        with WebHarness() as one:
            other = one.call("add_service", 0, service_type="php")["service_id"]
            one.call("update_php_configuration", phpconf={"memory_limit": "64M"})
            one.call("set_environment", environment={"A": "1"})
            told = one.call("get_configuration", other)
            assert told["phpconf"]["memory_limit"] == "128M"
            assert one.call("get_environment", other) == {"environment": {}, "secrets": [], "given": {}}


class TestEnvironment:
    def test_variables_reach_backends_and_secrets_never_come_back(self, big: WebHarness) -> None:
        big.do("set_environment", environment={"MYSQL_IP": "10.0.0.9"}, secrets={"TOKEN": "s3cr3t"})
        assert big.call("get_environment") == {"environment": {"MYSQL_IP": "10.0.0.9"}, "secrets": ["TOKEN"], "given": {}}
        backend = next(big.world.agents[one.ip] for one in big.nodes if one.role == "backend")
        assert backend.releases[2]["settings"]["environment"] == {"MYSQL_IP": "10.0.0.9", "TOKEN": "s3cr3t"}
        for told in (big.call("get_configuration"), big.call("list_releases"), big.call("list_operations"), big.call("export_manifest")):
            assert "s3cr3t" not in str(told)
        assert [op.args for op in big.operations() if op.kind == "configure"] == [{}]
        big.do("set_environment", environment={"MYSQL_IP": None}, secrets={"TOKEN": None})
        assert big.call("get_environment") == {"environment": {}, "secrets": [], "given": {}}

    def test_a_name_moves_between_the_kinds(self, php: WebHarness) -> None:
        php.call("set_environment", environment={"A": "1"})
        php.call("set_environment", secrets={"A": "2"})
        assert php.call("get_environment") == {"environment": {}, "secrets": ["A"], "given": {}}

    @pytest.mark.parametrize(
        "given",
        [{"environment": {"1A": "x"}}, {"environment": {"A": "x\ny"}}, {"secrets": {"A": 1}}, {}, {"environment": {"A": "x" * 9000}}],
    )
    def test_bad_ones(self, php: WebHarness, given: dict[str, Any]) -> None:
        with pytest.raises(errors.RemoteError):
            php.call("set_environment", **given)
        assert php.call("get_environment") == {"environment": {}, "secrets": [], "given": {}}


class TestWebSettings:
    def test_they_reach_the_proxies(self, big: WebHarness) -> None:
        settings = {"documentRoot": "/public/", "loadBalancing": "dynamic", "gzip": "no", "hsts": True, "staticMaxAge": "60", "workers": 8}
        big.do("update_web_settings", settings=settings)
        site = big.serving().site
        assert (site.document_root, site.balancing, site.gzip, site.hsts, site.static_max_age) == ("public", "dynamic", False, True, 60)
        big.do("update_web_settings", settings={"documentRoot": None})
        assert big.serving().site.document_root == ""

    @pytest.mark.parametrize(
        "settings", [{"documentRoot": "../x"}, {"healthPath": "x y"}, {"loadBalancing": "random"}, {"jvmMemory": 64}, {"nope": 1}, {}]
    )
    def test_bad_ones(self, php: WebHarness, settings: dict[str, Any]) -> None:
        with pytest.raises(errors.RemoteError):
            php.call("update_web_settings", settings=settings)

    def test_no_file_is_asked_for_below_the_wrong_document_root(self, big: WebHarness) -> None:
        def roots_agree(_agent: FakeAgent, _called: str) -> None:
            for one in big.world.present().values():
                for worker in one.workers():
                    for upstream in worker.configuration.web:
                        server = big.world.agents[upstream.ip].web
                        if upstream.ip != one.my_ip and server is not None:
                            assert server["site"]["document_root"] == worker.configuration.site.document_root

        big.world.before = roots_agree
        big.do("update_web_settings", settings={"documentRoot": "public"})
        big.rest()

    def test_java_has_its_own(self) -> None:
        with WebHarness("java") as java:
            java.call("update_web_settings", settings={"jvmMemory": 512, "maxTime": 300, "uploadSize": 10})
            java.start()
            assert java.fake(0).releases[4]["settings"]["jvm_memory"] == 512 if 4 in java.fake(0).releases else True
            (release,) = java.fake(0).releases.values()
            assert (release["settings"]["jvm_memory"], release["settings"]["max_time"]) == (512, 300)


class TestWeights:
    def test_they_reach_the_proxies(self, big: WebHarness) -> None:  # D16
        first, second = [one for one in big.nodes if one.role == "backend"]
        big.do("update_nodes_weight", backend={first.id: 300})
        assert [(one.ip, one.weight) for one in big.serving().backends] == [(first.ip, 300), (second.ip, 100)]
        assert big.call("get_node_info", serviceNodeId=first.id)["serviceNode"]["weightBackend"] == 300
        assert "createPHP" not in [name for name in big.world.methods() if name == "check_site"]

    @pytest.mark.parametrize("role", ["web", "backend"])
    def test_nodes_of_another_role_have_none(self, big: WebHarness, role: str) -> None:
        with pytest.raises(errors.RemoteError) as caught:
            big.call("update_nodes_weight", **{role: {big.nodes[0].id: 1}})
        assert str(caught.value) == f"Invalid arguments (The {role} node ID does not exist)"

    def test_a_weight_is_a_positive_number(self, big: WebHarness) -> None:
        for bad in (0, -1, 10**9):
            with pytest.raises(errors.RemoteError):
                big.call("update_nodes_weight", web={}, backend={big.nodes[0].id: bad})


class TestCron:
    def test_one_backend_runs_the_entries(self, php: WebHarness) -> None:
        php.start()
        entry = {"schedule": "*/5 * * * *", "command": "php cron.php"}
        php.do("set_cron", entries=[entry])
        assert php.call("get_cron") == {"entries": [entry], "node": php.nodes[0].id}
        assert php.fake(0).cron == [entry]
        php.add_nodes({"backend": 2})
        assert [php.fake(number).cron for number in range(3)] == [[], [entry], []]
        victim = php.nodes[1]
        php.request("remove_nodes", service_id=php.service_id, nodeIds=[victim.id])
        assert [php.fake(number).cron for number in range(2)] == [[], [entry]]
        php.kill_node(php.nodes[1])
        php.pass_time(40)
        assert [php.fake(number).cron for number in range(2)].count([entry]) == 1
        php.do("set_cron", entries=[])
        assert [php.fake(number).cron for number in range(2)] == [[], []]

    @pytest.mark.parametrize(
        "entry",
        [
            {"schedule": "* * * *", "command": "x"},
            {"schedule": "61 * * * *", "command": "x"},
            {"schedule": "* * * * *", "command": "a\nb"},
            {"command": "x"},
        ],
    )
    def test_bad_ones(self, php: WebHarness, entry: dict[str, str]) -> None:
        with pytest.raises(errors.RemoteError):
            php.call("set_cron", entries=[entry])


Made = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]
NOW = datetime.datetime.now(datetime.UTC)


def certificate(*names: str, signer: Made | None = None, days: int = 30, age: int = 1, authority: bool = False) -> Made:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0] if names else "nobody")])
    issuer, signing = (signer[0].subject, signer[1]) if signer else (subject, key)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - datetime.timedelta(days=age))
        .not_valid_after(NOW + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if names and not authority:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
    return builder.sign(signing, hashes.SHA256()), key


def pem(*made: Made) -> str:
    return "".join(one[0].public_bytes(serialization.Encoding.PEM).decode() for one in made)


def key_pem(made: Made) -> str:
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return made[1].private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


class TestDomains:
    @pytest.fixture
    def put(self, tmp_path: pathlib.Path) -> Any:
        def put(made: harness.Harness, domain: str, chain: str, key: str) -> Any:
            for name, text in (("chain.pem", chain), ("key.pem", key)):
                (tmp_path / name).write_text(text)
            return made.do("set_domain", domain=domain, certificate=tmp_path / "chain.pem", key=tmp_path / "key.pem")  # type: ignore[attr-defined]

        return put

    def test_a_domain_with_its_certificate(self, big: WebHarness, put: Any) -> None:
        root = certificate("root", authority=True)
        leaf = certificate("www.example.org", "example.org", signer=root)
        put(big, "WWW.Example.org", pem(leaf, root), key_pem(leaf))
        (domain,) = big.serving().domains
        assert domain.name == "www.example.org"
        assert domain.key.startswith("-----BEGIN PRIVATE KEY-----")
        (told,) = big.call("list_domains")["domains"]
        assert (told["domain"], told["tls"], told["certificate"]["names"]) == ("www.example.org", True, ["www.example.org", "example.org"])
        assert "PRIVATE" not in str(told)
        assert big.director.domains == {"www.example.org": big.service_id}
        assert big.call("get_node_info", serviceNodeId=big.nodes[0].id)["serviceNode"]["tlsPort"] == 443
        assert "createPHP" not in [name for name, _ in big.world.calls[-20:] if name == "createTomcat"]
        big.do("remove_domain", domain="www.example.org")
        assert big.serving().domains == ()
        assert big.director.domains == {}

    def test_a_certificate_can_be_replaced(self, big: WebHarness, put: Any) -> None:
        for _ in range(2):
            leaf = certificate("*.example.org")
            put(big, "www.example.org", pem(leaf), key_pem(leaf))
            assert big.serving().domains[0].certificate == pem(leaf)

    def test_a_domain_of_somebody_else(self, big: WebHarness) -> None:
        big.director.foreign_domains.add("www.example.org")
        with pytest.raises(errors.RemoteError, match=r"The domain 'www\.example\.org' is in use by another application"):
            big.call("set_domain", domain="www.example.org")
        assert big.state == "RUNNING"
        assert big.call("list_domains") == {"domains": []}
        assert big.director.domains == {}

    def test_a_change_that_fails_gives_the_domain_up_again(self, big: WebHarness) -> None:
        big.world.refuse["updateHttpProxy", "*"] = 1
        with pytest.raises(errors.OperationFailed):
            big.do("set_domain", domain="www.example.org")
        assert big.director.domains == {}

    def test_a_director_that_is_away_is_told_later(self, big: WebHarness) -> None:
        big.do("set_domain", domain="www.example.org")
        big.director.fail("release_domain", times=3)
        big.do("remove_domain", domain="www.example.org")
        assert big.director.domains != {}
        big.rest()
        assert big.director.domains == {}

    def test_a_service_that_is_removed_gives_its_domains_up(self, php: WebHarness) -> None:
        php.call("set_domain", domain="www.example.org")
        php.remove()
        assert php.director.domains == {}

    def test_bad_certificates(self, big: WebHarness, put: Any) -> None:
        root, stranger = certificate("root", authority=True), certificate("stranger", authority=True)
        leaf, other = certificate("www.example.org", signer=root), certificate("www.example.org")
        for chain, key, text in (
            (pem(leaf), key_pem(other), "the key does not belong to the certificate"),
            (pem(certificate("*.example.net")), key_pem(leaf), "the key does not belong"),
            (pem(old := certificate("www.example.org", days=-1, age=9)), key_pem(old), "the certificate has expired on"),
            (pem(new := certificate("www.example.org", age=-5)), key_pem(new), "the certificate is not valid before"),
            (
                pem(wrong := certificate("*.org", "www.example.net")),
                key_pem(wrong),
                "is for *.org, www.example.net, not for www.example.org",
            ),
            (pem(leaf, stranger), key_pem(leaf), "the chain is not in order: CN=www.example.org is not signed by CN=stranger"),
            (pem(root, leaf), key_pem(leaf), "the key does not belong"),
            ("nonsense", key_pem(leaf), "the certificate is not in PEM form"),
            (pem(leaf), "nonsense", "the key is not a private key in PEM form"),
            (pem(leaf) + key_pem(leaf), key_pem(leaf), "the certificate file holds a private key"),
        ):
            with pytest.raises(errors.RemoteError) as caught:
                put(big, "www.example.org", chain, key)
            assert text in str(caught.value)
        assert big.director.domains == {}

    @pytest.mark.parametrize("name", ["", "localhost", "a b.org", "*.example.org", "x" * 300, "www.example.org/x"])
    def test_bad_names(self, php: WebHarness, name: str) -> None:
        with pytest.raises(errors.RemoteError):
            php.call("set_domain", domain=name)


class TestOldCalls:
    def test_what_is_no_more_answers_clearly(self, php: WebHarness) -> None:  # D17, D28
        assert php.call("cdn_enable", enable=False, address="10.0.0.1") == {"cdn": False}
        with pytest.raises(errors.RemoteError, match="ConPaaS has none any more"):
            php.call("cdn_enable", enable=True, address="10.0.0.1")
        for spelling in ("reponse_time", "response_time"):
            with pytest.raises(errors.RemoteError, match="cannot scale itself"):
                php.call("on_autoscaling", cool_down=10, strategy="low", **{spelling: 700})
        assert php.call("off_autoscaling") == {"autoscaling": False}
        assert php.call("get_configuration")["cdn"] is False


class TestManifests:
    def test_what_is_told_makes_a_service_like_it(self) -> None:
        with WebHarness() as one, WebHarness() as other:
            version = one.upload()
            one.call("update_php_configuration", codeVersionId=version, phpconf={"memory_limit": "64M"})
            one.call("set_environment", environment={"A": "1"}, secrets={"B": "2"})
            one.call("update_web_settings", settings={"documentRoot": "public"})
            one.call("set_cron", entries=[{"schedule": "0 4 * * *", "command": "true"}])
            fields = one.call("export_manifest", limit=10**6)["fields"]
            assert set(fields) == {"Archive", "PhpConf", "Environment", "WebSettings", "Cron"}
            fields["Archive"] = {"codeVersionId": other.upload()}
            for _ in range(2):
                assert other.call("apply_manifest", fields=fields) == {}
            assert other.call("get_configuration")["phpconf"]["memory_limit"] == "64M"
            assert other.call("get_environment") == {"environment": {"A": "1"}, "secrets": [], "given": {}}
            assert other.call("get_configuration")["codeVersionId"] == fields["Archive"]["codeVersionId"]

    def test_a_running_service_changes_by_an_operation(self, big: WebHarness) -> None:
        reply = big.do("apply_manifest", fields={"Archive": {"codeVersionId": big.upload()}})
        assert reply["operation"]
        with pytest.raises(errors.RemoteError, match="have no field Nope"):
            big.call("apply_manifest", fields={"Nope": 1})
