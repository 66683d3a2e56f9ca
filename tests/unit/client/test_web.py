"""The verbs of web hosting services: what they send, and the words they print."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from conpaas.core import errors

APPLICATION = {"aid": 1, "name": "shop", "status": "RUNNING", "manager": "127.0.0.22", "cloud": "iaas"}
SERVICES = [
    {"service": {"sid": sid, "name": name, "type": kind, "application_id": 1}, "application": APPLICATION}
    for sid, kind, name in ((1, "php", "site"), (2, "java", "app"))
]
NOW = 1_790_000_000.0
LOGS = [{"filename": name, "description": ""} for name in ("cpsagent.log", "nginx-proxy-access.log", "fpm-access.log", "php-error.log")]
FIGURES = {"request_rate": 12.5, "error_rate": 0.0, "throughput": 80.1, "response_time": 4.2, "p50": 3.9, "p95": 8.0, "p99": 11.0}
CONFIGURATION = {
    "codeVersionId": "code-2",
    "cdn": False,
    "autoscaling": False,
    "phpconf": {"memory_limit": "128M"},
}

MANAGER: dict[str, Any] = {
    "get_service_info": {"state": "RUNNING", "type": "PHP", "urls": ["http://10.0.0.1/", "https://www.example.org:8443/"]},
    "get_operation": {"operation": {"id": "op1", "status": "DONE"}},
    "get_configuration": CONFIGURATION,
    "list_code_versions": {"codeVersions": []},
    "list_nodes": {"proxy": ["iaasvm-1"], "web": ["iaasvm-1"], "backend": ["iaasvm-1", "iaasvm-2"]},
    "get_node_info": lambda given: {
        "serviceNode": {
            "id": given["serviceNodeId"],
            "ip": f"10.0.0.{given['serviceNodeId'][-1]}",
            "cloud": "iaas",
            "weightWeb": 100,
            "weightBackend": 50,
            "logs": LOGS if given["serviceNodeId"].endswith("1") else LOGS[2:],
        }
    },
    "get_agent_log": lambda given: {"log": f"{given.get('filename')} of {given['agentId']}\n"},
    "add_nodes": {"operation": "op1"},
    "rollback": {"operation": "op1", "codeVersionId": "code-1"},
    "update_php_configuration": {"operation": "op1"},
    "update_java_configuration": {"operation": "op1"},
    "set_environment": {"operation": "op1"},
    "get_environment": {"environment": {"STAGE": "live"}, "secrets": ["TOKEN"]},
    "update_web_settings": {"operation": "op1"},
    "get_web_settings": {"settings": {"documentRoot": "", "gzip": True}},
    "get_cron": {"entries": [{"schedule": "* * * * *", "command": "php a.php"}, {"schedule": "@x", "command": "b"}]},
    "set_cron": {"operation": "op1"},
    "list_domains": {
        "domains": [
            {"domain": "www.example.org", "tls": True, "certificate": {"names": ["*.example.org"], "issuer": "CN=R3", "expires": NOW}},
            {"domain": "x.example.org", "tls": False},
        ]
    },
    "set_domain": {"operation": "op1"},
    "remove_domain": {"operation": "op1"},
    "update_nodes_weight": {"operation": "op1"},
    "list_releases": {
        "releases": [
            {"number": 4, "codeVersionId": "code-2", "time": NOW, "requester": "ann", "current": True},
            {"number": 3, "codeVersionId": "code-1", "time": NOW - 60, "requester": "ann"},
        ]
    },
    "get_service_performance": FIGURES,
    "get_node_performance": FIGURES,
}
SENTENCES = [
    ("php enable_code 1 1 code-1", "Enabling code version 'code-1'...  done."),
    ("java enable_code 1 2 code-1", "Enabling code version 'code-1'...  done."),
    ("php debug 1 1 on", "Debug mode set to 'On'."),
    (
        "php get_php_config 1 site",
        "codeVersionId: code-2\ncdn: False\nautoscaling: False\nphpconf:\n\tmemory_limit: 128M",
    ),
    ("php set_php_config 1 1 memory_limit=256M", "Changing PHP settings...  done."),
    ("php rollback 1 1", "Going back to the code version before...  done."),
    ("php rollback 1 1 code-1", "Going back to code version 'code-1'...  done."),
    ("php open 1 1", "http://10.0.0.1/\nhttps://www.example.org:8443/"),
    ("php env 1 1", "name  value    secret\n---------------------\nSTAGE live     no\nTOKEN ******** yes"),
    ("php env 1 1 STAGE=test", "Changing the environment...  done."),
    ("php settings 1 1", "documentRoot: \ngzip: True"),
    ("php settings 1 1 documentRoot=public", "Changing the settings...  done."),
    ("java cron 1 2 add x y", "Adding a cron entry...  done."),
    ("java cron 1 2 remove 2", "Removing cron entry 2...  done."),
    ("php domains 1 1 add www.example.org", "Adding domain 'www.example.org'...  done."),
    ("php domains 1 1 remove www.example.org", "Removing domain 'www.example.org'...  done."),
    ("php weights 1 1 --backend iaasvm-1=50", "Changing the weights...  done."),
    ("php add_nodes 1 1", "Starting 1 new nodes for service 1 of application 1...  done."),
]


@pytest.fixture(autouse=True)
def _served(wire: Any, home: Path) -> None:
    wire.director["/list"] = SERVICES
    wire.manager.update(MANAGER)


@pytest.mark.parametrize(("line", "sentence"), SENTENCES, ids=[line for line, _ in SENTENCES])
def test_success_is_said_in_words(cps: Any, line: str, sentence: str) -> None:
    done = cps(line)
    assert (done.code, done.out, done.err) == (0, sentence + "\n", "")


@pytest.mark.parametrize(
    "line", [*(line for line, _ in SENTENCES), "php releases 1 1", "php performance 1 1", "php weights 1 1", "php cron 1 1"]
)
def test_every_verb_speaks_json(cps: Any, line: str) -> None:
    done = cps(f"{line} --output json")
    assert (done.code, done.err) == (0, "")
    json.loads(done.out)


@pytest.mark.parametrize(
    ("line", "method", "sent"),
    [
        ("php enable_code 1 1 code-1", "update_php_configuration", {"codeVersionId": "code-1"}),
        ("java enable_code 1 2 code-1", "update_java_configuration", {"codeVersionId": "code-1"}),
        ("php debug 1 1 off", "update_php_configuration", {"phpconf": {"display_errors": "Off"}}),
        ("php set_php_config 1 1 a=1 b=x=y", "update_php_configuration", {"phpconf": {"a": "1", "b": "x=y"}}),
        ("php rollback 1 1", "rollback", {}),
        ("php rollback 1 1 code-1", "rollback", {"codeVersionId": "code-1"}),
        ("php env 1 1 A= B=x C==", "set_environment", {"environment": {"A": "", "B": "x", "C": "="}}),
        ("php env 1 1 STAGE- TOKEN- N=1", "set_environment", {"environment": {"STAGE": None, "N": "1"}, "secrets": {"TOKEN": None}}),
        ("php settings 1 1 gzip=no healthPath-", "update_web_settings", {"settings": {"gzip": "no", "healthPath": None}}),
        ("php cron 1 1 remove 1", "set_cron", {"entries": [{"schedule": "@x", "command": "b"}]}),
        ("php domains 1 1 remove a.org", "remove_domain", {"domain": "a.org"}),
        (
            "php weights 1 1 --web n1=5 --backend n1=1 --backend n2=3",
            "update_nodes_weight",
            {"web": {"n1": 5}, "backend": {"n1": 1, "n2": 3}},
        ),
        ("php weights 1 1 --backend n2=3 --backend n3=4", "update_nodes_weight", {"backend": {"n2": 3, "n3": 4}}),
    ],
)
def test_what_is_sent(cps: Any, wire: Any, line: str, method: str, sent: dict[str, Any]) -> None:
    assert cps(line).code == 0
    assert [call[2:4] for call in wire.changes()] == [(method, sent)]


def test_roles_have_options_of_their_own(cps: Any, wire: Any) -> None:
    cps("java add_nodes 1 2 --web 1 --proxy 2")
    cps("php remove_nodes 1 1")
    assert [call[3]["nodes"] for call in wire.changes()] == [{"backend": 0, "proxy": 2, "web": 1}, {"backend": 1, "proxy": 0, "web": 0}]


def test_a_cron_entry_is_added_to_the_others(cps: Any, wire: Any) -> None:
    cps(["php", "cron", "1", "1", "add", "*/10 * * * *", "php cron.php --all"])
    ((_, _, _, sent),) = wire.changes()
    assert [entry["command"] for entry in sent["entries"]] == ["php a.php", "b", "php cron.php --all"]
    assert cps("php cron 1 1").out.splitlines()[2].split() == ["1", "*", "*", "*", "*", "*", "php", "a.php"]


def test_a_domain_with_its_certificate(cps: Any, wire: Any, home: Path) -> None:
    (home / "c.pem").write_text("CERT")
    (home / "k.pem").write_text("KEY")
    assert cps("php domains 1 1 add www.example.org --certificate c.pem --key k.pem").code == 0
    assert wire.changes() == [("upload", 1, "set_domain", {"domain": "www.example.org"}, {"certificate": b"CERT", "key": b"KEY"})]
    lines = cps("php domains 1 1").out.splitlines()
    assert lines[0].split() == ["name", "https", "expires", "issuer"]
    assert lines[2].split()[:2] == ["www.example.org", "yes"]
    assert lines[2].split()[2].startswith("2026-")
    assert lines[3].split() == ["x.example.org", "no"]


def test_a_secret_comes_from_standard_input_and_is_never_on_the_line(cps: Any, wire: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("s3cret\nsecond\n"))
    done = cps("php env 1 1 STAGE=test --secret TOKEN --secret KEY")
    assert "s3cret" not in done.out + done.err
    assert wire.changes()[0][3] == {"environment": {"STAGE": "test"}, "secrets": {"TOKEN": "s3cret", "KEY": "second"}}
    assert cps("php env 1 1 --secret MORE").err == "ERROR: Standard input has no line to answer 'MORE:'.\n"


def test_releases_and_figures_are_tables(cps: Any, wire: Any) -> None:
    lines = cps("php releases 1 1").out.splitlines()
    assert [line.split()[:3] for line in lines[2:]] == [["*", "4", "code-2"], ["3", "code-1", lines[3].split()[2]]]
    lines = cps("php performance 1 1").out.splitlines()
    assert [line.split()[:3] for line in lines[2:]] == [["all", "proxy", "12.5"], ["iaasvm-1", "proxy", "12.5"]]
    wire.manager["get_node_performance"] = errors.RemoteError("the agent does not answer")
    done = cps("php performance 1 1")
    assert done.out.splitlines()[-1].split() == ["iaasvm-1", "proxy", *["N/A"] * 7]
    assert done.err == "WARNING: iaasvm-1 told nothing: the agent does not answer\n"
    lines = cps("php weights 1 1").out.splitlines()
    assert [line.split() for line in lines[2:]] == [
        ["web", "iaasvm-1", "10.0.0.1", "100"],
        ["backend", "iaasvm-1", "10.0.0.1", "50"],
        ["backend", "iaasvm-2", "10.0.0.2", "50"],
    ]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("php env 1 1 STAGE", "Cannot read 'STAGE'."),
        ("php env 1 1 =x", "There is no name in '=x'."),
        ("php env 1 1 NOPE-", "There is no environment variable 'NOPE'."),
        ("php env 1 1 A=x --secret A", "'A' cannot be a variable and a secret at once."),
        ("php set_php_config 1 1 memory_limit-", "Cannot read 'memory_limit-'."),
        ("php domains 1 1 add", "Say which domain to add."),
        ("php domains 1 1 add a.org --key k.pem", "--certificate and --key are needed both, or none of them."),
        ("php domains 1 1 add a.org --key nope --certificate nope", "Cannot read 'nope': No such file or directory"),
        ("php cron 1 1 add x", "Say when and what to run."),
        ("php cron 1 1 remove 3", "There is no cron entry '3'; there are 2."),
        ("php weights 1 1 --web n1=x", "The weight of n1 must be a number, not 'x'."),
    ],
)
def test_errors_name_the_thing_and_nothing_is_sent(cps: Any, wire: Any, home: Path, line: str, text: str) -> None:
    (home / "k.pem").write_text("KEY")
    done = cps(line)
    assert (done.code, done.err.splitlines()[0]) == (1, f"ERROR: {text}")
    assert wire.changes() == []


def test_a_change_that_was_undone_says_why(cps: Any, wire: Any) -> None:
    why = "GET / on iaasvm-1 answered 500: PHP Parse error; code version code-3 will not be used"
    wire.manager["get_operation"] = {"operation": {"id": "op1", "status": "UNDONE", "error": why}}
    done = cps("php enable_code 1 1 code-3")
    assert (done.code, done.out) == (1, "Enabling code version 'code-3'...  FAILED!\n")
    assert done.err.splitlines()[0] == f"ERROR: {why}"
    done = cps("php debug 1 1 on")
    assert (done.code, done.out) == (1, "Setting debug mode to 'On'...  FAILED!\n")


def test_a_service_that_does_not_run_only_stores_what_it_is_told(cps: Any, wire: Any) -> None:
    wire.manager |= {"set_environment": {}, "get_service_info": {"state": "STOPPED", "type": "PHP", "urls": []}}
    assert cps("php env 1 1 A=b").out == "Changing the environment...  done.\n"
    done = cps("php open 1 1")
    assert (done.code, done.err) == (1, "ERROR: The site has no address: the service does not run.\nHINT: cps-php start 1 1\n")


def test_a_browser_is_opened_on_request(cps: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or len(opened) == 1)
    assert cps("php open 1 1").out.startswith("http://10.0.0.1/\n")
    assert opened == []
    assert cps("php open 1 1 --browser").err == ""
    assert opened == ["http://10.0.0.1/"]
    assert cps("php open 1 1 --browser").err == "There is no browser on this machine.\n"


def test_logs_by_node_and_by_part_of_their_names(cps: Any) -> None:
    assert cps("logs 1 1 --agent iaasvm-2 --file fpm-access.log").out == "fpm-access.log of iaasvm-2\n"
    assert cps("logs 1 1 --file access").out == (
        "iaasvm-1 nginx-proxy-access.log: nginx-proxy-access.log of iaasvm-1\n"
        "iaasvm-1 fpm-access.log: fpm-access.log of iaasvm-1\n"
        "iaasvm-2 fpm-access.log: fpm-access.log of iaasvm-2\n"
    )
    assert cps("logs 1 1 --agent iaasvm-2 --file error -n 1").out == "php-error.log of iaasvm-2\n"
    assert [one["agent"] for one in json.loads(cps("logs 1 1 --file fpm -o json").out)["logs"]] == ["iaasvm-1", "iaasvm-2"]


def test_variables_of_other_services_are_named(cps: Any, wire: Any) -> None:
    given = {"service 2": ["MYSQL_HOST", "MYSQL_PASSWORD"]}
    wire.manager["get_environment"] = {"environment": {"STAGE": "live"}, "secrets": [], "given": given}
    lines = [line.split(maxsplit=3) for line in cps("php env 1 1").out.splitlines()]
    assert lines[0] == ["name", "value", "secret", "from"]
    assert lines[2:] == [
        ["STAGE", "live", "no"],
        ["MYSQL_HOST", "********", "yes", "service 2"],
        ["MYSQL_PASSWORD", "********", "yes", "service 2"],
    ]
