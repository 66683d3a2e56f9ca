"""Deploying manifests: with a Director that dies anywhere, with managers that fail, and with users who change their mind."""

from __future__ import annotations

import collections
import itertools
import json
import pathlib
import threading
from typing import Any

import pytest

from conpaas.core import data_urls, errors, faults
from conpaas.core.https import identity
from conpaas.director import app, config, models
from conpaas.director.lifecycle import component
from conpaas.director.manifest import deploy, export, fetch, schema

CODE = b"the code"
SCRIPT = b"#!/bin/bash\n"
MANIFEST = {
    "Application": "made",
    "Services": [
        {"Type": "helloworld", "ServiceName": "greeter", "Start": 1, "StartupInstances": {"node": 3}, "String": "moin"},
        {
            "Type": "generic",
            "Start": 1,
            "StartupScript": data_urls.encode("setup.sh", SCRIPT),
            "Archive": data_urls.encode("code.tar", CODE),
        },
        {"Type": "helloworld", "StartupInstances": {"node": 5}},
        {"Type": "mysql", "ServiceName": "spare", "Password": "a password", "Variables": {"max_connections": "70"}},
    ],
}
COUNTS = {1: {"node": 3}, 2: {"master": 1}}


class Managers:
    """Managers with memory: what they begin is done at once, with nodes that they ask the Director for."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.services: dict[int, dict[str, Any]] = {}
        self.operations: dict[str, dict[str, Any]] = {}
        self.refuse_start = ""
        self.refuse_stop = ""
        self.hang = False
        self.lose_answers = 0
        self._ids = itertools.count(1)

    def get(self, aid: int, method: str, service_id: int = 0, params: Any = None, timeout: float | None = None) -> Any:
        if method == "get_operation":
            return {"operation": self.operations[params["operationId"]]}
        if method == "get_startup_script":
            script = self.services[params["sid"]].get("script")
            if script is None:
                raise errors.RemoteError("No startup script")
            return script.decode()
        service = self.services[service_id]
        answers = {
            "get_service_info": {"state": service["state"], "type": service["type"]},
            "get_service_history": {"state_log": [{"reason": "because"}]},
            "export_manifest": {"fields": service.get("fields", {})},
        }
        return answers[method]

    def post(self, aid: int, method: str, service_id: int = 0, params: Any = None, timeout: float | None = None) -> Any:
        self.world.aid = aid
        reply = getattr(self, method)(aid, service_id, params)
        if self.lose_answers:
            self.lose_answers -= 1
            raise errors.Unreachable("the answer was lost")
        return reply

    def upload(self, aid: int, method: str, service_id: int, fields: Any, files: Any) -> Any:
        ((part, (name, file)),) = files.items()
        if method == "upload_startup_script":
            self.services[fields["sid"]]["script"] = file.read()
            return {"filename": name}
        assert (method, part, name) == ("upload_code_version", "code", "code.tar")
        versions = self.services[service_id].setdefault("versions", {})
        versions[fields["request"]] = file.read()
        return {"codeVersionId": fields["request"]}

    def add_service(self, aid: int, sid: int, params: Any) -> Any:
        for known, service in self.services.items():
            if service["request"] == params["request"]:
                return {"service_id": known}
        made = next(self._ids)
        self.services[made] = {"type": params["service_type"], "state": "INIT", "request": params["request"], "applied": {}}
        return {"service_id": made}

    def apply_manifest(self, aid: int, sid: int, params: Any) -> Any:
        service = self.services[sid]
        service["applied"].update(
            {key: (value, service["state"]) if key == "Password" else value for key, value in params["fields"].items()}
        )
        return {}

    def start_service(self, aid: int, sid: int, params: Any) -> Any:
        service = self.services[params["service_id"]]
        assert service["state"] == "INIT", "it was started already"
        if self.hang:
            service["state"] = "PROLOGUE"
        elif not self.refuse_start:
            service["state"] = "RUNNING"
            service["nodes"] = self._nodes(params["service_id"], [{"generic": "master", "mysql": "mysql"}.get(service["type"], "node")])
        return self._done(self.refuse_start)

    def stop_service(self, aid: int, sid: int, params: Any) -> Any:
        service = self.services[params["service_id"]]
        assert service["state"] == "RUNNING", "it is not running"
        if not self.refuse_stop:
            self.world.remove(service["nodes"], key=f"removal-{next(self._ids)}")
            service["state"] = "STOPPED"
        return self._done(self.refuse_stop)

    def add_nodes(self, aid: int, sid: int, params: Any) -> Any:
        assert self.services[params["service_id"]]["state"] == "RUNNING"
        self._nodes(params["service_id"], [role for role, count in params["nodes"].items() for _ in range(count)])
        return self._done("")

    def _nodes(self, sid: int, roles: list[str]) -> Any:
        infos = [{"role": role, "cloud": "default"} for role in roles]
        return self.world.ask(infos, key=f"request-{next(self._ids)}", service_id=sid)

    def _done(self, error: str) -> dict[str, Any]:
        key = f"op{next(self._ids)}"
        self.operations[key] = {"kind": "x", "status": "UNDONE" if error else "DONE", "error": error or None}
        return {"state": "PROLOGUE", "operation": key}


class Stage:
    """A world whose application is about to be deployed."""

    def __init__(self, world: Any, directory: pathlib.Path) -> None:
        self.world = world
        self.files = directory / "manifests"
        self.managers = world.managers = Managers(world)
        self.boot()

    def boot(self, **options: Any) -> None:
        self.world.life = self.world.boot(files=fetch.Files(self.files, fetch.Fetcher()), **options)

    def deploy(self) -> None:
        self.world.life.deploy(self.world.aid, "iaas", schema.parse(json.dumps(MANIFEST)).services, "ann")

    def revive(self) -> None:
        self.boot()
        self.world.life.resume()

    def services(self) -> list[models.Service]:
        with self.world.database.reader() as session:
            return list(session.query(models.Service).order_by(models.Service.sid))

    def counts(self) -> dict[int, dict[str, int]]:
        found: dict[int, collections.Counter[str]] = {}
        for machine in self.world.machines():
            if machine.service_id:
                found.setdefault(machine.service_id, collections.Counter())[machine.node_role] += 1
        return {sid: dict(counter) for sid, counter in found.items()}

    def assert_complete(self) -> None:
        assert self.world.application().status == "RUNNING", self.world.application().reason
        assert [(row.sid, row.type, row.name) for row in self.services()] == [
            (1, "helloworld", "greeter"), (2, "generic", "New generic service"), (3, "helloworld", "New helloworld service"),
            (4, "mysql", "spare"),
        ]  # fmt: skip
        assert self.counts() == COUNTS
        assert self.world.vms() == self.world.recorded()
        known = self.managers.services
        assert [known[sid]["state"] for sid in sorted(known)] == ["RUNNING", "RUNNING", "INIT", "STOPPED"]
        assert known[4]["applied"] == {"Variables": {"max_connections": "70"}, "Password": ("a password", "RUNNING")}
        assert known[1]["applied"] == {"String": "moin"}
        assert list(known[2]["versions"].values()) == [CODE]
        assert known[2]["applied"]["Archive"]["codeVersionId"] in known[2]["versions"]
        assert known[2]["script"] == SCRIPT
        self.assert_tidy()

    def assert_tidy(self) -> None:
        assert not self.files.exists() or list(self.files.iterdir()) == []
        (op,) = [op for op in self.world.life.history(self.world.aid, 50) if op.kind == "deploy_manifest"]
        assert "services" not in op.args

    def assert_undone(self, reason: str) -> None:
        found = self.world.application()
        assert (found.status, found.reason) == ("ERROR", reason)
        assert self.world.vms() == set()
        assert self.world.machines() == []
        assert self.services() == []
        self.assert_tidy()


@pytest.fixture
def stage(world: Any, tmp_path: pathlib.Path) -> Stage:
    return Stage(world, tmp_path)


def test_an_application_is_made_as_its_manifest_says(stage: Stage) -> None:
    stage.deploy()
    stage.assert_complete()


@pytest.mark.parametrize("when", [faults.BEFORE, faults.AFTER, faults.RECORDED])
@pytest.mark.parametrize("step", [step.name for step in deploy.DEPLOY.steps])
def test_a_director_that_dies_goes_on(stage: Stage, killing: Any, killed: Any, step: str, when: str) -> None:
    with killing(step, when, "deploy_manifest"), pytest.raises(killed):
        stage.deploy()
    stage.revive()
    stage.assert_complete()


FAILURE = "Service 1, 'greeter' (helloworld): no luck"


def test_a_service_that_fails_undoes_the_whole(stage: Stage) -> None:
    stage.managers.refuse_start = "no luck"
    stage.deploy()
    stage.assert_undone(FAILURE)


def test_a_service_that_does_not_stop_again_undoes_the_whole(stage: Stage) -> None:
    stage.managers.refuse_stop = "it hangs"
    stage.deploy()
    stage.assert_undone("Service 4, 'spare' (mysql): it hangs")


@pytest.mark.parametrize("when", [faults.UNDO, faults.UNDO_AFTER, faults.UNDO_RECORDED])
@pytest.mark.parametrize("step", [step.name for step in deploy.DEPLOY.steps if step.name != "tidy"])
def test_a_director_that_dies_goes_on_undoing(stage: Stage, killing: Any, killed: Any, step: str, when: str) -> None:
    stage.managers.refuse_start = "no luck"
    with killing(step, when, "deploy_manifest"), pytest.raises(killed):
        stage.deploy()
    stage.revive()
    stage.assert_undone(FAILURE)


@pytest.mark.parametrize("lost", [1, 2, 5, 8, 12, 16])
def test_answers_that_are_lost_change_nothing(stage: Stage, lost: int) -> None:
    stage.managers.lose_answers = lost
    stage.deploy()
    stage.assert_complete()


def test_stopping_ends_a_deployment(stage: Stage) -> None:
    reached = threading.Event()
    stage.managers.hang = True
    begin = stage.managers.start_service
    stage.managers.start_service = lambda *args: (begin(*args), reached.set())[0]  # type: ignore[method-assign]
    stage.boot(pool=None)
    stage.deploy()
    assert reached.wait(30)
    life = stage.world.life
    life.result(life.stop(stage.world.aid, "ann"), 30.0)
    assert stage.world.application().status == "STOPPED"
    assert stage.world.vms() == set()
    life.close()


def test_a_manifest_is_written_and_nothing_changes(stage: Stage) -> None:
    stage.deploy()
    stage.managers.services[1]["fields"] = {"String": "moin"}
    made = export.export(stage.world.database, stage.managers, stage.world.aid)  # type: ignore[arg-type]
    first, second, third, fourth = made["Services"]
    shown = {"ServiceName": "greeter", "Start": 1, "Cloud": "default", "StartupInstances": {"node": 3}, "String": "moin"}
    assert first == {"Type": "helloworld", **shown}
    assert data_urls.decode(second["StartupScript"]) == ("startup-script.sh", SCRIPT)
    assert third == {"Type": "helloworld", "ServiceName": "New helloworld service", "Start": 0}
    assert fourth == {"Type": "mysql", "ServiceName": "spare", "Start": 0}
    schema.parse(json.dumps(made))
    stage.assert_complete()


# The endpoints


class Api:
    """Calls the endpoints without a socket."""

    def __init__(self, stage: Stage, directory: pathlib.Path) -> None:
        director = app.make_director(config.load(None, directory), components=False)
        director.database.close()
        director.database = stage.world.database
        director.components[component.NAME] = stage.world.life
        self.stage = stage
        self.application = app.create_app(director.config, director)
        self.ann = identity.PeerIdentity("user", uid=stage.world.uid, aid=0, serial="a1")

    def post(self, path: str, uid: int | None = None, **fields: str) -> Any:
        peer = self.ann if uid is None else identity.PeerIdentity("user", uid=uid, aid=0, serial="b1")
        overrides = {"conpaas.peer": peer, "REMOTE_ADDR": "192.0.2.1"}
        reply = self.application.test_client().post(path, data=fields, environ_overrides=overrides)
        assert reply.status_code == 200, reply.text
        return reply.json

    def names(self) -> list[str]:
        return [one["name"] for one in self.post("/listapp")]


@pytest.fixture
def api(stage: Stage, tmp_path: pathlib.Path) -> Api:
    return Api(stage, tmp_path)


def test_uploading_makes_an_application_of_another_name_each_time(api: Api) -> None:
    text = json.dumps({"Application": "shop", "Services": []})
    first, second = (api.post("/upload_manifest", manifest=text)["aid"] for _ in range(2))
    assert first != second
    assert api.names() == ["shop", "shop (2)", "shop (3)"]
    assert {one["status"] for one in api.post("/listapp")} == {"INIT"}


@pytest.mark.parametrize("thread", ["", "True"])
def test_uploading_deploys(api: Api, thread: str) -> None:
    aid = api.post("/upload_manifest", manifest=json.dumps(MANIFEST), cloud="None", thread=thread)["aid"]
    found = next(one for one in api.post("/listapp") if one["aid"] == aid)
    assert (found["name"], found["status"]) == ("made", "RUNNING")


def test_without_thread_the_failure_is_the_answer(api: Api) -> None:
    api.stage.managers.refuse_start = "no luck"
    assert api.post("/upload_manifest", manifest=json.dumps(MANIFEST))["error"] == FAILURE


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, '"manifest" is a required argument'),
        ({"manifest": ""}, '"manifest" is a required argument'),
        ({"manifest": "{"}, f"{schema.INVALID}: line 1, column 2: Expecting property name enclosed in double quotes."),
        ({"manifest": '{"Services": []}'}, "Application is not defined"),
        ({"manifest": '{"Application": "x", "Services": [{"Type": "zope"}]}'}, "Service zope does not exists"),
        ({"manifest": json.dumps(MANIFEST), "cloud": "moon"}, "moon"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_made(api: Api, fields: dict[str, str], text: str) -> None:
    assert text in api.post("/upload_manifest", **fields)["error"]
    assert api.names() == ["shop"]


def test_who_cannot_pay_gets_nothing(api: Api) -> None:
    api.stage.world.set_balance(0)
    assert api.post("/upload_manifest", manifest=json.dumps(MANIFEST))["error"] == "Insufficient credits"
    assert api.names() == ["shop"]


def test_somebody_elses_application_does_not_exist(api: Api) -> None:
    with api.stage.world.database.session() as session:
        bob = models.User(username="bob", username_key="bob", email="b@x", email_key="b@x", password="")
        session.add(bob)
        session.flush()
        uid = bob.uid
    aid = api.stage.world.aid
    assert api.post(f"/download_manifest/{aid}") == {"Application": "shop", "Services": []}
    for path, who in ((f"/download_manifest/{aid}", uid), ("/download_manifest/99", None), ("/download_manifest/x", None)):
        assert api.post(path, who) == {"error": f"The appid {path.rpartition('/')[2]} does not exist"}
