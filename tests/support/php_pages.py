"""What the pages of ConPaaS 2's web front-end fetch and read: each view's calls in their order, and every field with its type and values.

A reply that would give a blank page, a wrong message or a list that misses a row is an AssertionError here, except for what the front-end
itself shows as an error (`php_frontend.Shown`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from xml.etree import ElementTree

from tests.support import php_frontend

SERVICE_STATES: Final = {"INIT", "PROLOGUE", "RUNNING", "ADAPTING", "EPILOGUE", "STOPPED", "ERROR"}
TRANSIENT: Final = {"PROLOGUE", "EPILOGUE", "ADAPTING"}
KNOWN_TYPES: Final = {"php", "java", "mysql", "taskfarm", "scalaris", "hadoop", "xtreemfs", "selenium", "cds", "htc", "flink", "generic"}
HIDDEN_TYPE: Final = "helloworld"
ROLES: Final = {
    "php": ("proxy", "web", "backend"),
    "java": ("proxy", "web", "backend"),
    "mysql": ("mysql", "glb"),
    "generic": ("master", "node"),
}
WITH_CODE: Final = ("php", "java", "generic")
PHP_SETTINGS: Final = ("max_execution_time", "memory_limit", "upload_max_filesize", "post_max_size", "disable_functions", "display_errors")
SCRIPTS: Final = ("init.sh", "notify.sh", "run.sh", "interrupt.sh", "cleanup.sh")
GANGLIA: Final = ("cpu_idle", "mem_free", "mem_total", "disk_free", "disk_total", "pkts_in", "pkts_out", "bytes_in", "bytes_out")
ARCHIVES: Final = ("zip", "war", "tar", "tar.gz", "tgz", "tar.bz2", "tbz", "tbz2", "tb2")

_NODE_ID = re.compile(r"[A-Za-z][A-Za-z0-9_-]*", re.ASCII)
_CREATED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)?", re.ASCII)
_SCRIPT_STATUS = re.compile(r"NEVER STARTED|RUNNING|STOPPED \(return code -?\d+\)")
_MANAGER = re.compile(r"[0-9A-Za-z.-]+(:\d+)?", re.ASCII)


def integer(value: Any) -> int:
    """A JSON integer: the front-end compares with `!==`, to which 1.0 and "1" are others."""
    assert type(value) is int, repr(value)
    return value


def text(value: Any) -> str:
    assert isinstance(value, str), repr(value)
    return value


def number(value: Any) -> float:
    assert isinstance(value, int | float) and not isinstance(value, bool), repr(value)
    return float(value)


# --- replies of the Director -------------------------------------------------------------------------------------------------------------


def user(reply: Any, password: str) -> dict[str, Any]:
    """The account of a right password; `password` is the MD5 of it."""
    assert isinstance(reply, dict) and "error" not in reply, reply
    integer(reply["uid"])
    integer(reply["credit"])
    for name in ("username", "fname", "lname", "email", "affiliation"):
        text(reply[name])
    assert {"openid", "uuid"} <= reply.keys()
    assert reply["password"] == hashlib.md5(password.encode(), usedforsecurity=False).hexdigest()
    return reply


def application(reply: Any) -> dict[str, Any]:
    integer(reply["aid"])
    integer(reply["uid"])
    text(reply["name"])
    assert reply["status"] in SERVICE_STATES
    assert {"vmid", "cloud"} <= reply.keys()
    assert not reply["manager"] or _MANAGER.fullmatch(reply["manager"]), "what follows https://"
    if reply["status"] in ("RUNNING", "ADAPTING"):
        assert reply["manager"] and reply["vmid"] and reply["cloud"], "the box of the manager"
    elif reply["status"] == "ERROR":
        assert reply["manager"] is not None, "the page's script throws before it offers to stop the application"
    return dict(reply)


def applications(reply: Any) -> dict[int, dict[str, Any]]:
    assert isinstance(reply, list)
    return {one["aid"]: application(one) for one in reply}


def services(reply: Any) -> dict[int, dict[str, Any]]:
    """Services by id; those of type helloworld are dropped, and one of an unknown type ends the whole listing."""
    assert isinstance(reply, list)
    found = {}
    for entry in reply:
        owner, service = application(entry["application"]), entry["service"]
        integer(service["sid"])
        text(service["name"])
        text(service["type"])
        assert service["state"] in SERVICE_STATES
        assert _CREATED.fullmatch(service["created"])
        assert "cloud" in service
        if service["type"] == HIDDEN_TYPE:
            continue
        if service["type"] not in KNOWN_TYPES:
            raise php_frontend.Shown(f"Unknown service type {service['type']}")
        found[service["sid"]] = {**service, "application": owner}
    return found


def resources(reply: Any) -> list[dict[str, Any]]:
    assert isinstance(reply, list)
    for one in reply:
        integer(one["app_id"])
        for name in ("app_name", "role", "cloud"):
            text(one[name])
        assert one["vmid"] and "ip" in one and one["cloud"] != "iaas"
    return reply


def clouds(reply: bytes) -> list[str]:
    found = json.loads(reply)
    assert isinstance(found, list) and found[0] == "default"
    return found


# --- replies of managers -----------------------------------------------------------------------------------------------------------------


def nodes(kind: str, reply: Any) -> dict[str, list[str]]:
    """The ids of the nodes of a service that is RUNNING, with what each kind's page needs."""
    assert isinstance(reply, dict)
    assert set(reply) == set(ROLES[kind]), "roles without a colour and a name"
    for ids in reply.values():
        assert isinstance(ids, list)
        assert all(_NODE_ID.fullmatch(one) for one in ids), "ids become selectors"
    assert reply[ROLES[kind][0]], "pages ask for the first proxy or member"
    return reply


def node(reply: Any, node_id: str) -> dict[str, Any]:
    found = reply["serviceNode"]
    assert found["id"] == node_id
    assert text(found["ip"]) and text(found["cloud"])
    assert isinstance(found["logs"], list)
    assert all(text(entry["filename"]) and text(entry["description"]) for entry in found["logs"])
    return dict(found)


def history(reply: Any) -> list[str]:
    """The states of a service, oldest first."""
    assert all(entry["state"] in SERVICE_STATES and number(entry["time"]) > 1e9 for entry in reply["state_log"])
    return [entry["state"] for entry in reply["state_log"]]


def versions(reply: Any) -> dict[str, dict[str, Any]]:
    found = reply["codeVersions"]
    assert isinstance(found, list)
    for one in found:
        number(one["time"])
        assert one["codeVersionId"].startswith("git-") or one["filename"].endswith(tuple(f".{kind}" for kind in ARCHIVES)), one
    assert sum("current" in one for one in found) <= 1
    assert [one["time"] for one in found] == sorted((one["time"] for one in found), reverse=True), "shown as they come"
    return {text(one["codeVersionId"]): one for one in found}


def configuration(reply: Any) -> dict[str, str]:
    """The settings of a php service; anything true in `cdn` is the end of the page."""
    assert not reply["cdn"] and not reply["autoscaling"]
    return {name: text(reply["phpconf"][name]) for name in PHP_SETTINGS}


def script_status(reply: Any, ids: Iterable[str]) -> dict[str, dict[str, str]]:
    assert set(reply["agents"]) == set(ids)
    for scripts in reply["agents"].values():
        assert all(_SCRIPT_STATUS.fullmatch(scripts[name]) for name in SCRIPTS), scripts
    return dict(reply["agents"])


def volumes(reply: Any) -> dict[str, dict[str, Any]]:
    assert isinstance(reply["volumes"], list)
    for one in reply["volumes"]:
        integer(one["vol_size"])
        text(one["vm_id"])
    return {text(one["vol_name"]): one for one in reply["volumes"]}


def load(reply: Any) -> list[float]:
    """What the charts draw: the mean load, and counters that only grow."""
    return [number(reply[name]) for name in ("meanLoad", "meanSelect", "meanUpdate", "meanInsert", "meanDelete")]


def ganglia(reply: Any) -> dict[str, dict[str, float]]:
    """The table of machines: figures by the address of the host."""
    tree = ElementTree.fromstring(text(reply["Ganglia"][1]))
    found = {}
    for host in tree.findall("./GRID/CLUSTER/HOST"):
        figures = {metric.attrib["NAME"]: float(metric.attrib["VAL"]) for metric in host.findall("METRIC")}
        assert host.attrib["NAME"] and figures.keys() >= set(GANGLIA)
        found[host.attrib["IP"]] = figures
    return found


# --- pages -------------------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Service:
    """A service object as the front-end builds it on every request."""

    sid: int
    type: str
    state: str
    reachable: bool
    manager: str
    nodes: dict[str, list[str]]
    settings: Mapping[str, str]

    @property
    def polling(self) -> bool:
        return not self.reachable or self.state in TRANSIENT

    @property
    def node_ids(self) -> list[str]:
        return list(dict.fromkeys(one for ids in self.nodes.values() for one in ids))


class Pages:
    """The pages of one session."""

    def __init__(self, front: php_frontend.FrontEnd) -> None:
        self.front = front

    def login_page(self) -> str:
        """Before anybody is signed in; the Director's version."""
        for part in ("js", "ajax", "php", "python"):
            assert re.fullmatch(rb"\d+", self.front.fetch(f"/debug_level/{part}")), "a number in a script"
        for question in ("/support_external_idp", "/support_openid"):
            assert self.front.fetch(question).lower() == b"false"
        return self.footer()

    def footer(self) -> str:
        version = self.front.fetch("/version").decode()
        assert re.fullmatch(r"[0-9][0-9A-Za-z.+-]*", version), "printed as it is"
        return version

    def header(self) -> dict[str, Any]:
        """Every page signs in once more, for the name and the credits."""
        found = user(self.front.login(self.front.username, self.front.password), self.front.password)
        assert found["uid"] == self.front.uid
        return found

    def dashboard(self) -> dict[int, dict[str, Any]]:
        self.header()
        self.footer()
        return self.applications()

    def applications(self) -> dict[int, dict[str, Any]]:
        found = applications(self.front.send("/listapp"))
        assert all(one["uid"] == self.front.uid for one in found.values())
        return found

    def resources_page(self) -> list[dict[str, Any]]:
        self.header()
        self.footer()
        return resources(json.loads(self.front.fetch("/list_resources", self.front.as_user)))

    def application_page(self, aid: int) -> dict[str, Any]:
        self.header()
        services(self.front.send(f"/list/{aid}"))
        found = self.applications()[aid]
        clouds(self.front.fetch("/available_clouds"))
        self.footer()
        return found

    def check_services(self, aid: int) -> dict[int, Service]:
        """The application page's list, once and at each poll."""
        listed = services(self.front.send(f"/list/{aid}"))
        self.applications()
        rows = {sid: self._build(service) for sid, service in listed.items()}
        for row in rows.values():
            if row.type in ("php", "java") and row.reachable:
                self.front.get(row.manager, row.sid, "get_service_performance")
        return rows

    def get_service(self, aid: int, sid: int) -> Service:
        """One poll of a service."""
        return self._build(self._own(aid)[sid])

    def _own(self, aid: int) -> dict[int, dict[str, Any]]:
        found = services(self.front.send(f"/list/{aid}"))
        assert all(one["application"]["uid"] == self.front.uid for one in found.values()), "Not allowed"
        return found

    def _build(self, service: Mapping[str, Any]) -> Service:
        """A service's object: its state by a short attempt, its nodes while it runs, the settings of php."""
        manager = service["application"]["manager"]
        built = Service(service["sid"], service["type"], service["state"], False, manager, {}, {})
        try:
            info = self.front.get(manager, built.sid, "get_service_info", ping=True)
        except php_frontend.CurlError:
            return built
        except php_frontend.Shown:
            built.state, built.reachable = "ERROR", True
            return built
        assert info["state"] in SERVICE_STATES
        built.state, built.reachable = info["state"], True
        if built.type == "php":
            built.settings = configuration(self.front.get(manager, built.sid, "get_configuration"))
        if built.state == "RUNNING":
            built.nodes = nodes(built.type, self.front.get(manager, built.sid, "list_nodes"))
        return built

    def service_page(self, aid: int, sid: int) -> Service:
        """The whole page of a service; it fails if the manager is away, as the original does."""
        assert aid in self.applications()
        built = self._build(self._own(aid)[sid])
        self.header()
        self.footer()
        history(self.front.get(built.manager, sid, "get_service_history"))
        if built.type in WITH_CODE:
            versions(self.front.get(built.manager, sid, "list_code_versions"))
        if built.type == "php":
            configuration(self.front.get(built.manager, sid, "get_configuration"))
        if built.state in ("INIT", "STOPPED", "RUNNING"):
            clouds(self.front.fetch("/available_clouds"))
        if built.state == "RUNNING":
            self._running(built)
        return built

    def _running(self, built: Service) -> None:
        """What the page shows besides while the service runs."""
        front, manager, sid = self.front, built.manager, built.sid
        for one in built.node_ids:
            node(front.get(manager, sid, "get_node_info", {"serviceNodeId": one}), one)
        if built.type == "generic":
            volumes(front.post(manager, 0, "list_volumes", {"service_id": sid}))
            script_status(front.get(manager, sid, "get_script_status"), built.node_ids)
        else:
            self.access(built)

    def access(self, built: Service) -> str:
        """The address that the page tells people to use."""
        role = next(role for role in (*(("glb",) if built.type == "mysql" else ()), ROLES[built.type][0]) if built.nodes[role])
        first = built.nodes[role][0]
        address: str = node(self.front.get(built.manager, built.sid, "get_node_info", {"serviceNodeId": first}), first)["ip"]
        return f"http://{address}" if built.type != "mysql" else f"{address}:{8010 if role == 'glb' else 3306}"
