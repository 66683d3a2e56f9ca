"""The endpoints as clients and managers call them: shapes, texts, and who may touch what."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import pytest

from conpaas.core.https import identity
from conpaas.director import app, code_tarball, config, credits, models
from conpaas.director.lifecycle import component

NODES = json.dumps([{"role": "web", "cloud": "default"}])


class Api:
    """Calls the application without a socket, as somebody."""

    def __init__(self, world: Any, directory: pathlib.Path) -> None:
        configuration = config.load(None, directory)
        director = app.make_director(
            dataclasses.replace(configuration, database_uri=f"sqlite:///{directory / 'director.db'}"), components=False
        )
        director.components[component.NAME] = world.life
        world.life.archives = code_tarball.Archives(directory / "code")
        self.world = world
        self.director = director
        self.application = app.create_app(director.config, director)
        self.ann = identity.PeerIdentity("user", uid=world.uid, aid=0, serial="a1")
        self.manager = identity.PeerIdentity("manager", uid=world.uid, aid=world.aid, serial="a2")
        self.agent = identity.PeerIdentity("agent", uid=world.uid, aid=world.aid, serial="a3")
        self.bob = identity.PeerIdentity("user", uid=self._second_user(), aid=0, serial="a4")

    def _second_user(self) -> int:
        with self.world.database.session() as session:
            user = models.User(username="bob", username_key="bob", email="b@x", email_key="b@x", password="")
            session.add(user)
            session.flush()
            credits.grant(session, user.uid, 50, models.utcnow())
            return user.uid

    def raw(self, peer: Any, verb: str, path: str, **fields: Any) -> Any:
        client = self.application.test_client()
        options = {"query_string": fields} if verb == "GET" else {"data": fields}
        return client.open(path, method=verb, environ_overrides={"conpaas.peer": peer, "REMOTE_ADDR": "192.0.2.1"}, **options)

    def post(self, peer: Any, path: str, **fields: Any) -> Any:
        reply = self.raw(peer, "POST", path, **fields)
        assert reply.status_code == 200, reply.text
        return reply.json

    def get(self, peer: Any, path: str, **fields: Any) -> Any:
        return self.raw(peer, "GET", path, **fields).json


@pytest.fixture
def api(world: Any, tmp_path: pathlib.Path) -> Any:
    made = Api(world, tmp_path)
    yield made
    made.director.stop()


@pytest.fixture
def started(api: Any) -> Any:
    assert api.post(api.ann, f"/startapp/{api.world.aid}") == {}
    return api


# Applications


def test_an_application_in_its_classic_shape(api: Any) -> None:
    reply = api.post(api.ann, "/createapp", name="blog")
    assert "error" not in reply
    assert {key: reply[key] for key in ("name", "uid", "status", "manager", "vmid", "cloud")} == {
        "name": "blog",
        "uid": api.world.uid,
        "status": "INIT",
        "manager": None,
        "vmid": None,
        "cloud": None,
    }


def test_the_texts_of_names(api: Any) -> None:
    assert api.post(api.ann, "/createapp") == {"error": '"name" is a required argument'}
    assert api.post(api.ann, "/createapp", name="shop") == {"error": 'Application name "shop" is already taken'}
    assert "aid" in api.post(api.bob, "/createapp", name="shop")
    other = api.post(api.ann, "/createapp", name="blog")["aid"]
    assert api.post(api.ann, f"/renameapp/{other}", name="shop") == {"error": 'Application name "shop" is already taken'}
    assert api.post(api.ann, f"/renameapp/{other}", name="wiki") == {}
    assert [one["name"] for one in api.get(api.ann, "/listapp")] == ["shop", "wiki"]
    assert [one["name"] for one in api.post(api.ann, "/listapp")] == ["shop", "wiki"]


@pytest.mark.parametrize("path", ["renameapp/{}", "startapp/{}", "startapp/{}/default", "stopapp/{}", "deleteapp/{}", "app_history/{}"])
def test_an_application_of_somebody_else_does_not_exist(api: Any, path: str) -> None:
    fields = {"name": "mine"} if path.startswith("rename") else {}
    assert api.post(api.bob, "/" + path.format(api.world.aid), **fields) == {"error": "Application not found"}
    assert api.get(api.bob, "/listapp") == []


@pytest.mark.parametrize("number", [2**63, 10**40])
def test_a_number_that_no_database_holds_is_refused(api: Any, number: int) -> None:
    assert api.post(api.ann, f"/startapp/{number}")["error"].startswith("Parameter 'aid': the number is not between ")
    assert "error" in api.post(api.ann, "/rename", app_id=number, service_id=1, name="x")


def test_starting_and_stopping(started: Any) -> None:
    (shown,) = started.get(started.ann, "/listapp")
    assert (shown["status"], shown["cloud"], shown["manager_port"]) == ("RUNNING", "iaas", 443)
    assert shown["manager"] and shown["vmid"]
    assert started.post(started.ann, f"/startapp/{shown['aid']}/default") == {"error": "Application already started"}
    assert started.post(started.ann, f"/stopapp/{shown['aid']}") == {}
    assert started.post(started.ann, f"/deleteapp/{shown['aid']}") == {}
    assert started.get(started.ann, "/listapp") == []
    assert started.world.vms() == set()


def test_a_start_without_credits(api: Any) -> None:
    api.world.set_balance(0)
    assert api.post(api.ann, f"/startapp/{api.world.aid}") == {"error": "Insufficient credits"}


def test_a_failed_start_shows_its_reason(api: Any) -> None:
    api.world.clouds["iaas"].fail_create = {0}
    api.post(api.ann, f"/startapp/{api.world.aid}")
    (shown,) = api.get(api.ann, "/listapp")
    assert shown["status"] == "ERROR"
    assert "no room left" in shown["reason"]
    (record,) = api.get(api.ann, f"/app_history/{api.world.aid}")
    assert record["aid"] == api.world.aid
    assert "no room left" in record["reason"]


def test_an_application_in_error_has_an_address_that_the_classic_front_end_can_show(api: Any) -> None:
    assert [one["manager"] for one in api.post(api.ann, "/listapp")] == [None]
    api.world.clouds["iaas"].fail_create = {0}
    api.post(api.ann, f"/startapp/{api.world.aid}")
    assert [one["manager"] for one in api.get(api.ann, "/listapp")] == [None], "the command lines know a missing manager by that"
    assert [one["manager"] for one in api.post(api.ann, "/listapp")] == [""]
    api.post(api.ann, f"/stopapp/{api.world.aid}")
    assert [one["manager"] for one in api.post(api.ann, "/listapp")] == [None]


def test_the_console_is_for_the_owner_of_the_machine(started: Any) -> None:
    vmid = started.world.application().manager_vmid
    assert "booting" in started.get(started.ann, "/console_log", vmid=vmid)["log"]
    assert started.get(started.bob, "/console_log", vmid=vmid) == {"error": f"There is no VM {vmid} on cloud default."}


def test_the_code_comes_with_its_digest_and_is_not_sent_twice(api: Any) -> None:
    first = api.raw(None, "GET", "/download/ConPaaS.tar.gz")
    tag = first.headers["ETag"]
    assert first.data[:2] == b"\x1f\x8b"
    assert len(tag.strip('"')) == 64
    client = api.application.test_client()
    assert client.get("/download/ConPaaS.tar.gz", headers={"If-None-Match": tag}).status_code == 304


def test_the_sweeper_is_for_operators(api: Any) -> None:
    assert api.raw(api.ann, "GET", "/sweeper").status_code == 403
    with api.world.database.session() as session:
        session.get(models.User, api.world.uid).role = "operator"
    assert api.get(api.ann, "/sweeper")["machines"]["running"] == 0
    assert api.post(api.ann, "/sweeper/run") == []


# Services


@pytest.fixture
def known_type(monkeypatch: pytest.MonkeyPatch) -> None:
    from conpaas.core import services

    plain = services.ServiceType(name="plain", manager="m:M", agent="a:A")
    monkeypatch.setattr(services, "registry", services.Registry.of([plain]))


def test_services_come_and_go(started: Any, known_type: None) -> None:
    added = started.post(started.ann, "/add/plain")
    service, aid = added["service"], started.world.aid
    assert (service["type"], service["name"], service["state"], service["cloud"]) == ("plain", "New plain service", "INIT", None)
    assert added["application"]["aid"] == aid
    assert started.post(started.ann, "/rename", app_id=aid, service_id=service["sid"], name="front") is True
    for path in ("/list", f"/list/{aid}"):
        assert [one["service"]["name"] for one in started.get(started.ann, path)] == ["front"]
        assert started.get(started.bob, path) == []
    assert started.post(started.ann, "/remove", app_id=aid, service_id=service["sid"]) == {}
    assert started.get(started.ann, "/list") == []


def test_the_texts_of_services(api: Any, known_type: None) -> None:
    aid = api.world.aid
    assert api.post(api.bob, "/add/plain") == {"error": "No existing applications"}
    assert api.post(api.ann, "/add/fancy") == {"error": "Unknown service type 'fancy'"}
    assert api.post(api.bob, "/add/plain", appid=aid) == {"error": f"Application {aid} not found."}
    assert api.post(api.ann, "/add/plain") == {"error": f"Application {aid} has not started. Try to start it first."}
    assert api.post(api.ann, "/rename", app_id="x", service_id=1, name="n") == {"error": "Bad specification of application or service IDs"}
    assert api.post(api.ann, "/rename", app_id=aid, service_id=1) == {"error": '"name" is a required argument'}
    assert api.post(api.ann, "/rename", app_id=aid, service_id=1, name="n") == {"error": "Invalid service_id"}
    assert api.post(api.ann, "/remove") == {"error": "Bad specification of application or service IDs"}


def test_a_silent_manager_is_an_error_and_not_a_record(started: Any, known_type: None) -> None:
    started.world.managers.silent = True
    assert "error" in started.post(started.ann, "/add/plain")
    assert started.get(started.ann, "/list") == []


# Managers


def create(api: Any, **changes: Any) -> Any:
    fields = {
        "nodes_info": NODES,
        "context": "{}",
        "app_id": api.world.aid,
        "service_id": 1,
        "service_type": "plain",
        "manager_ip": "10.0.0.1",
    }
    return api.post(api.manager, "/create_nodes", **{**fields, "request": "k1", "wait": 5, **changes})


def test_nodes_in_json_and_in_the_dialect_of_old_managers(started: Any) -> None:
    (first,) = create(started)
    (second,) = create(started, nodes_info="[{u'cloud': None, u'role': u'web'}]", context="{'a': u'it\\'s'}", request="k2")
    assert {first["cloud_name"], second["cloud_name"]} == {"iaas"}
    assert create(started) == [first]
    listed = started.post(started.manager, "/list_nodes")
    assert [(one["id"], one["state"], one["service_id"]) for one in listed] == [(one["id"], "running", 1) for one in (first, second)]
    assert started.post(started.manager, "/remove_nodes", nodes=json.dumps([first, second]), request="r1") == {}
    assert started.post(started.manager, "/list_nodes") == []


def test_a_manager_without_request_keys_is_held_until_the_end(started: Any) -> None:
    (one,) = create(started, request="")
    (other,) = create(started, request="")
    assert one["id"] != other["id"]


def test_what_takes_longer_is_pending(started: Any) -> None:
    started.world.life.engine._pool.submit = lambda function, name: None  # nobody works on it
    assert create(started, wait=0) == {"pending": True}
    assert create(started, wait=0) == {"pending": True}
    assert len(started.world.life.store.under_way()) == 1


def test_so_many_callers_are_held_that_others_find_a_thread(started: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    life = started.world.life
    life.engine._pool.submit = lambda function, name: None
    monkeypatch.setattr(component, "SHORT_HOLD", 0.0)
    while life._holds.acquire(blocking=False):
        pass
    assert create(started, wait=60) == {"pending": True}


def test_managers_act_for_their_own_application_only(started: Any) -> None:
    before = started.world.vms()
    assert "own application only" in create(started, app_id=999)["error"]
    for peer in (started.ann, started.agent, None):
        reply = started.raw(peer, "POST", "/create_nodes", nodes_info=NODES, service_id=1, service_type="plain")
        assert reply.status_code in (401, 403)
    assert started.world.vms() == before


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"nodes_info": "__import__('os')"}, "neither JSON nor a Python literal"),
        ({"nodes_info": "[]"}, "at least one node"),
        ({"nodes_info": json.dumps([{"role": "a b"}])}, "invalid role"),
        ({"nodes_info": json.dumps([{"role": "web", "volumes": [{"vol_name": "x%(nope)s", "vol_size": 1}]}])}, "can't be expanded"),
        ({"nodes_info": json.dumps([{"role": "web", "volumes": [{"vol_name": "%(vm_id)99999s", "vol_size": 1}]}])}, "can't be expanded"),
        ({"nodes_info": json.dumps([{"role": "web", "volumes": [{"vol_name": "%(vol_size)0999d", "vol_size": 1}]}])}, "can't be expanded"),
        ({"nodes_info": json.dumps([{"role": "web", "volumes": [{"vol_name": "x", "vol_size": 0}]}])}, "not a volume size"),
        ({"nodes_info": json.dumps([{"cloud": "mars"}])}, "Unknown cloud: mars"),
        ({"context": '{"A": "x\\ny"}'}, "line breaks"),
        ({"context": '{"USER_ID": "7"}'}, "set by the Director"),
        ({"service_type": "../../etc"}, "not the name of a service type"),
        ({"request": "a b"}, "Parameter 'request'"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_is_made(started: Any, changes: dict[str, Any], text: str) -> None:
    before = started.world.vms()
    assert text in create(started, **changes)["error"]
    assert started.world.vms() == before


def test_volumes_of_a_manager(started: Any) -> None:
    (node,) = create(started)
    manager = started.manager
    made = started.post(manager, "/create_volume", size=100, name="data", vm_id=node["vmid"], cloud="iaas", request="v1")
    vol_id = made["volume_id"]
    assert started.post(manager, "/attach_volume", vm_id=node["vmid"], volume_id=vol_id, device_name="sdb", cloud="None") == {}
    assert "detach it first" in started.post(manager, "/destroy_volume", volume_id=vol_id)["error"]
    for _ in range(2):
        assert started.post(manager, "/detach_volume", volume_id=vol_id, cloud="iaas") == {}
    for _ in range(2):
        assert started.post(manager, "/destroy_volume", volume_id=vol_id, cloud="iaas") == {}


def test_a_kept_volume_of_a_manager(started: Any) -> None:
    (node,) = create(started)
    manager, wanted = started.manager, {"size": 100, "name": "disk-1", "vm_id": node["vmid"], "cloud": "iaas", "keep": "true"}
    made = started.post(manager, "/create_volume", request="v1", **wanted)
    vol_id = made["volume_id"]
    assert started.post(manager, "/attach_volume", vm_id=node["vmid"], volume_id=vol_id, device_name="sdb", cloud="iaas") == {}
    assert started.post(manager, "/remove_nodes", nodes=json.dumps([node]), request="r1") == {}
    assert [(disk.vol_id, disk.state) for disk in started.world.disks()] == [(vol_id, "available")]
    assert started.post(manager, "/create_volume", request="v1", **wanted) == made, "the same key, though the machine is gone"
    assert "does not belong" in started.post(manager, "/create_volume", request="v2", **wanted)["error"]
    assert started.post(manager, "/destroy_volume", volume_id=vol_id) == {}
    assert started.world.clouds["iaas"].disks == {}


def test_machines_are_removed_with_their_kept_volumes_on_demand(started: Any) -> None:
    (node,) = create(started)
    made = started.post(started.manager, "/create_volume", size=100, name="disk-1", keep=True, request="v1")
    started.post(started.manager, "/attach_volume", vm_id=node["vmid"], volume_id=made["volume_id"], device_name="sdb")
    assert started.post(started.manager, "/remove_nodes", nodes=json.dumps([node]), disks="true", request="r1") == {}
    assert started.world.disks() == []


def test_volumes_of_others_do_not_exist(started: Any) -> None:
    made = started.post(started.manager, "/create_volume", size=100, name="data", cloud="iaas", request="v1")
    other = started.post(started.bob, "/createapp", name="theirs")["aid"]
    started.post(started.bob, f"/startapp/{other}")
    theirs = identity.PeerIdentity("manager", uid=started.bob.uid, aid=other, serial="a9")
    for path in ("/detach_volume", "/destroy_volume"):
        assert "does not belong" in started.post(theirs, path, volume_id=made["volume_id"], cloud="iaas")["error"]
    vmid = started.world.application().manager_vmid
    reply = started.post(theirs, "/attach_volume", volume_id=made["volume_id"], vm_id=vmid, device_name="sdb", cloud="iaas")
    assert "does not belong" in reply["error"]
