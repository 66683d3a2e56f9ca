"""A user's way from the first contact to a running service, over real TLS."""

from __future__ import annotations

import json
import stat
from typing import Any

from conpaas.client import certificates


def test_first_contact_needs_acceptance_and_shows_the_fingerprint(platform: Any) -> None:
    refused = platform.run("cps-tools", "login", platform.url, "--username", "bob", "--password-stdin", given="secret word\n")
    fingerprint = certificates.fingerprint(platform.authority.pem.encode())
    assert refused.returncode == 4
    assert fingerprint in refused.stderr
    assert platform.record.named("getcerts") == [], "the password must not be sent before the CA is trusted"

    wrong = platform.run("cps-tools", "login", platform.url, "--username", "bob", "--password-stdin", "--fingerprint", "00:11", given="x\n")
    assert wrong.returncode == 4
    assert platform.record.named("getcerts") == []

    platform.ok(
        "cps-tools", "login", platform.url, "--username", "bob", "--password-stdin", "--fingerprint", fingerprint, given="secret word\n"
    )
    directory = platform.home / ".conpaas"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for name in ("cert.pem", "key.pem", "ca_cert.pem", "cps-tools.conf"):
        assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600
    assert "secret" not in (directory / "cps-tools.conf").read_text()
    assert "username: bob" in platform.ok("cps-tools", "whoami")


def test_a_wrong_password_is_an_authentication_failure(platform: Any) -> None:
    done = platform.run("cps-user", "get_certificate", "-y", "--username", "bob", "--director_url", platform.url, CPS_PASSWORD="wrong")
    assert (done.returncode, done.stdout) == (4, "")
    assert "ERROR: User authentication failed" in done.stderr.splitlines()
    assert not (platform.home / ".conpaas" / "cert.pem").exists()


def test_logout_removes_the_key(platform: Any) -> None:
    platform.login()
    platform.ok("cps-tools", "logout")
    done = platform.run("cps-application", "list")
    assert done.returncode == 4
    assert "user certificates are not present" in done.stderr


def test_the_documented_session(platform: Any) -> None:
    platform.login()
    assert platform.ok("cps-tools", "application", "list") == "No existing applications.\n"
    assert platform.ok("cps-tools", "application", "create", "First app") == "Application 'First app' created with id 1.\n"
    assert platform.ok("cps-tools", "application", "start", "1") == "Application 'First app' with id 1 is starting...  done.\n"
    added = "Service helloworld successfully added to application 1 with id 1.\n"
    assert platform.ok("cps-tools", "service", "add", "helloworld", "1") == added
    assert platform.ok("cps-tools", "service", "start", "1", "1") == "Service 1 of application 1 is starting...  done.\n"
    assert platform.ok("cps-helloworld", "get_helloworld", "First app", "1") == "Received hello from iaasvm-1\n"
    added = "Starting 1 new nodes for service 1 of application 1...  done.\n"
    assert platform.ok("cps-helloworld", "add_nodes", "1", "1") == added
    assert platform.ok("cps-service", "list_nodes", "1", "1") == (
        "aid sid role ip         agent_id cloud\n"
        "----------------------------------------\n"
        "  1   1 node 127.17.4.1 iaasvm-1 default\n"
        "  1   1 node 127.17.4.2 iaasvm-2 default\n"
    )  # fmt: skip
    assert platform.ok("cps-service", "stop", "1", "1") == "Service 1 of application 1 is stopping...  done.\n"


def test_a_failed_operation_says_why_and_exits_1(platform: Any) -> None:
    platform.login()
    platform.running_services()
    done = platform.run("cps-service", "remove_nodes", "shop", "my helloworld", "--count", "2")
    assert (done.returncode, done.stdout) == (1, "Removing 2 nodes for service 1 of application 1...  FAILED!\n")
    assert done.stderr.startswith("ERROR: node iaasvm-1 would not go\n")
    as_json = platform.run("cps-service", "remove_nodes", "1", "1", "-o", "json")
    assert as_json.returncode == 1
    assert json.loads(as_json.stdout)["reason"] == "node iaasvm-1 would not go"


def test_status_shows_everything(platform: Any) -> None:
    platform.login()
    platform.running_services()
    shown = json.loads(platform.ok("cps-tools", "status", "--output", "json"))
    assert shown["credit"] == 50
    assert [s["addresses"] for s in shown["applications"][0]["services"]] == [["127.17.4.1"], ["127.17.4.1"]]
    assert "my generic" in platform.ok("cps-tools", "status")


def test_code_goes_up_and_comes_down_under_a_safe_name(platform: Any) -> None:
    platform.login()
    platform.running_services()
    (platform.home / "app.zip").write_bytes(b"\0zip\r\n" * 100_000)
    assert platform.ok("cps-generic", "upload_code", "1", "2", "app.zip") == "Code version 'code-abc123' uploaded.\n"
    assert platform.ok("cps-generic", "enable_code", "1", "2", "code-abc123") == "Enabling code version 'code-abc123'...  done.\n"
    listing = platform.ok("cps-generic", "list_codes", "1", "2")
    assert "      * code-abc123" in listing
    platform.record.codes["code-abc123"] = ("../../evil.zip", platform.record.codes["code-abc123"][1])
    assert platform.ok("cps-generic", "download_code", "1", "2") == "File 'evil.zip' written.\n"
    assert (platform.home / "evil.zip").read_bytes() == (platform.home / "app.zip").read_bytes()
    assert sorted(path.name for path in platform.home.iterdir()) == [".conpaas", "app.zip", "evil.zip"]


def test_run_waits_for_the_script_and_exits_with_its_code(platform: Any) -> None:
    platform.login()
    platform.running_services()
    started = platform.run("cps-generic", "run", "1", "2", "-p", "RUNNING")
    assert (started.returncode, started.stdout) == (0, "Service started executing 'run.sh' on all the agents.\n")
    waited = platform.run("cps-generic", "run", "1", "2", "--wait", "-p", "STOPPED (return code 9)")
    assert waited.returncode == 9
    assert platform.run("cps-generic", "run", "1", "2", "--wait", "--timeout", "1s", "-p", "RUNNING").returncode == 5


def test_logs_and_history(platform: Any) -> None:
    platform.login()
    platform.running_services()
    assert platform.ok("cps-tools", "logs", "shop", "--tail", "2") == "line 2\nline 3\n"
    assert platform.ok("cps-tools", "history", "1", "1") == "1970-01-01 00:00:00 INIT\n1970-01-01 00:01:00 RUNNING started\n"


def test_startup_script_and_volumes(platform: Any) -> None:
    platform.login()
    platform.running_services()
    assert platform.ok("cps-service", "set_script", "1", "1", "-", given="echo hi\n") == "Startup script uploaded successfully.\n"
    assert platform.record.named("upload_startup_script") == [{"sid": "1", "text": b"echo hi\n"}]
    created = "Creating volume 'data' and attaching it to node 'iaasvm-1'...  done.\n"
    assert platform.ok("cps-generic", "create_volume", "1", "data", "64", "iaasvm-1") == created
    assert "data     64       vm-1     default" in platform.ok("cps-generic", "list_volumes", "1", "2").replace("      64", "64      ")


def test_a_director_with_another_ca_is_refused(platform: Any, tmp_path: Any) -> None:
    from conpaas.core.https import x509

    platform.login()
    _, other = x509.new_ca()
    (platform.home / ".conpaas" / "ca_cert.pem").write_text(x509.certificate_pem(other))
    for path in ("cert.pem", "key.pem"):
        (platform.home / ".conpaas" / path).unlink()
    done = platform.run("cps-cloud", "list")
    assert done.returncode == 4
    assert done.stderr.startswith("ERROR: The ConPaaS director's SSL certificate failed verification.\n")
    again = platform.run("cps-user", "get_certificate", "--yes", CPS_PASSWORD="secret word")
    assert again.returncode == 4, "--yes must not replace a CA that was trusted before"


def test_a_manager_of_another_application_is_refused(platform: Any) -> None:
    platform.login()
    platform.running_services()
    platform.record.applications[0]["aid"] = 2
    done = platform.run("cps-application", "get_info", "2")
    assert done.returncode == 4
    assert done.stderr.startswith("ERROR: The ConPaaS manager's SSL certificate failed verification.\n")


def test_completion_offers_names_and_never_fails(platform: Any) -> None:
    platform.login()
    platform.running_services()
    line = {"_CPS_COMPLETE": "bash_complete", "COMP_WORDS": "cps-tools application start ", "COMP_CWORD": "3"}
    assert "plain,shop" in platform.run("cps-tools", **line).stdout
    line |= {"COMP_WORDS": "cps-generic run shop ", "COMP_CWORD": "3"}
    assert platform.run("cps-generic", **line).stdout == "plain,my generic\n"
    offline = platform.run("cps-generic", **line, CPS_DIRECTOR_URL="https://127.17.3.9:1")
    assert (offline.returncode, offline.stdout.strip(), offline.stderr) == (0, "", "")


def test_cpsclient_shares_the_certificates(platform: Any) -> None:
    platform.login()
    platform.running_services()
    assert platform.ok("cpsclient", "version") == "ConPaaS director version 3.0.0\n"
    assert platform.ok("cpsclient", "createapp", "another") == "Creating new application... \ndone.\n"
    taken = platform.run("cpsclient", "createapp", "another")
    assert (taken.returncode, taken.stdout) == (
        1, 'Creating new application... \nfailed.\nE: Application name "another" is already taken\n'
    )  # fmt: skip
    assert platform.ok("cpsclient", "start", "1", "1") == "Your service is starting up.\n"
    assert platform.ok("cpsclient", "list_nodes", "1", "1") == "node: node vm-1 from cloud default with IP address 127.17.4.1\n"
    assert platform.ok("cpsclient", "get_helloworld", "1", "1") == "Received hello from iaasvm-1\n"
    assert platform.ok("cpsclient", "add_nodes", "1", "1", "2") == "Starting 2 new nodes.\n"
    assert platform.record.named("add_nodes") == [{"service_id": 1, "nodes": {"count": 2}}]
    assert platform.run("cpsclient", "stop", "1", "9").stdout == "E: cannot find service 9 for application 1\n"


def test_cpsclient_reads_its_own_files(platform: Any) -> None:
    platform.login()
    directory = platform.home / ".conpaas"
    (directory / "cps-tools.conf").unlink()
    (directory / "target").write_text(platform.url)
    (directory / "username").write_text("bob\n")
    assert platform.ok("cpsclient", "listapp") == "No existing applications\n"
