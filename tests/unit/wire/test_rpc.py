"""Exposing methods and routing calls to them, without any network."""

from __future__ import annotations

import errno
import json
import logging
import pathlib
from typing import Any

import pytest

from conpaas.core import errors, expose, params, rpc
from conpaas.core.https import identity

CALLER = identity.PeerIdentity("user", uid=7)


class Base:
    @expose.expose("GET")
    def inherited(self) -> str:
        return "base"

    @expose.expose("GET")
    def hidden(self) -> str:
        return "base"

    @expose.expose("GET")
    def moved(self) -> str:
        return "base"


class Service(Base):
    """A service with one method of every kind."""

    def hidden(self) -> str:
        return "not exposed any more"

    @expose.expose("POST")
    def moved(self) -> str:
        return "moved"

    @expose.expose("GET", params.Param("codeVersionId", params.Text(), "none"))
    def echo(self, code_version_id: str, caller: identity.PeerIdentity) -> dict[str, Any]:
        """Say what was asked,
        and by whom.

        More that help does not show.
        """
        return {"version": code_version_id, "uid": caller.uid}

    @expose.expose("POST")
    def nothing(self) -> None:
        pass

    @expose.expose("POST")
    def refuses(self) -> None:
        raise errors.WrongState("not now", hint="try later")

    @expose.expose("POST")
    def breaks(self) -> None:
        raise ZeroDivisionError("secret detail")

    @expose.expose("POST", params.Param("code", params.Integer()))
    def fails(self, code: int) -> None:
        raise OSError(code, "secret detail")

    @expose.expose("POST")
    def exits(self) -> None:
        raise SystemExit(1)

    @expose.expose("POST")
    def not_json(self) -> object:
        return {1, 2}

    @expose.expose("POST")
    def not_a_number(self) -> float:
        return float("nan")

    @expose.expose("GET")
    def file(self) -> rpc.FileDownload:
        return rpc.FileDownload("a.txt", pathlib.Path("/a"))


@pytest.fixture
def app() -> rpc.RpcApplication:
    made = rpc.RpcApplication()
    made.register(3, Service())
    return made


def call(app: rpc.RpcApplication, method: Any = "echo", verb: str = "GET", **fields: Any) -> rpc.RpcReply:
    values = {"service_id": 3, "id": "1", "params": {}, **fields}
    return app.dispatch(rpc.RpcCall(verb, values["service_id"], method, values["id"], values["params"], CALLER))


def envelope(reply: rpc.RpcReply) -> Any:
    assert reply.body is not None
    return json.loads(reply.body)


def test_success_has_result_null_error_and_the_id(app: rpc.RpcApplication) -> None:
    reply = call(app, params={"codeVersionId": "c1"})
    assert reply.status == 200
    assert envelope(reply) == {"result": {"version": "c1", "uid": 7}, "error": None, "id": "1"}


@pytest.mark.parametrize("call_id", [1, "1", "", None, 0, 1.5, ["x"], {"a": 1}])
def test_any_id_is_echoed(app: rpc.RpcApplication, call_id: object) -> None:
    assert envelope(call(app, id=call_id))["id"] == call_id


def test_nothing_to_say_is_an_empty_object(app: rpc.RpcApplication) -> None:
    assert envelope(call(app, "nothing", "POST"))["result"] == {}


def test_an_error_has_no_result(app: rpc.RpcApplication) -> None:
    assert envelope(call(app, "refuses", "POST")) == {"error": "not now", "hint": "try later", "id": "1"}


def test_wrong_arguments_are_an_error(app: rpc.RpcApplication) -> None:
    reply = call(app, params={"x": 1})
    assert (reply.status, envelope(reply)) == (200, {"error": "Unexpected parameters: {'x': 1}.", "id": "1"})


@pytest.mark.parametrize("method", ["breaks", "exits", "not_json", "not_a_number"])
def test_failures_of_our_own_name_an_incident_and_nothing_else(
    app: rpc.RpcApplication, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        reply = call(app, method, "POST")
    text = envelope(reply)["error"]
    incident = text.removeprefix("internal error, incident ")
    assert reply.status == 200
    assert len(incident) == 12
    assert incident in caplog.text
    assert "Traceback" in caplog.text
    assert "secret" not in text


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_as_such_wherever_it_shows(app: rpc.RpcApplication, code: int) -> None:
    assert envelope(call(app, "fails", "POST", params={"code": code}))["error"] == "There is no room left on the disk."


def test_other_failures_of_the_system_are_failures_of_our_own(app: rpc.RpcApplication) -> None:
    assert envelope(call(app, "fails", "POST", params={"code": errno.EIO}))["error"].startswith("internal error, incident ")


@pytest.mark.parametrize(
    ("fields", "status", "body"),
    [
        ({"service_id": rpc.MISSING}, 400, b"Did not specify service"),
        ({"service_id": None}, 400, b"Did not specify service"),
        ({"service_id": 9}, 404, b"Service not found"),
        ({"service_id": -3}, 404, b"Service not found"),
        ({"verb": "UPLOAD"}, 404, b"Service not found"),
        ({"method": rpc.MISSING}, 400, b"Did not specify method"),
        ({"method": None}, 400, b"Did not specify method"),
        ({"method": "absent"}, 404, b"Method not found"),
        ({"method": ""}, 404, b"Method not found"),
        ({"method": "hidden"}, 404, b"Method not found"),
        ({"method": "moved"}, 404, b"Method not found"),
        ({"method": "__init__"}, 404, b"Method not found"),
        ({"service_id": rpc.MISSING, "method": rpc.MISSING, "id": rpc.MISSING}, 400, b"Did not specify service"),
        ({"method": "absent", "id": rpc.MISSING}, 404, b"Method not found"),
    ],
)
def test_routing_failures_are_plain_text(app: rpc.RpcApplication, fields: dict[str, Any], status: int, body: bytes) -> None:
    reply = call(app, **fields)
    assert (reply.status, reply.body) == (status, body)
    assert reply.content_type.startswith("text/plain")


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"service_id": "x"}, "service_id"),
        ({"service_id": True}, "service_id"),
        ({"service_id": 3.0}, "service_id"),
        ({"service_id": [3]}, "service_id"),
        ({"service_id": "3" * 40}, "service_id"),
        ({"method": 5}, "method"),
        ({"method": ["echo"]}, "method"),
        ({"id": rpc.MISSING}, "id"),
        ({"params": "x"}, "params"),
        ({"params": [1]}, "params"),
        ({"params": None}, "params"),
    ],
)
def test_wrong_fields_are_refused_by_name(app: rpc.RpcApplication, fields: dict[str, Any], names: str) -> None:
    reply = call(app, **fields)
    assert reply.status == 400
    assert f"'{names}'" in envelope(reply)["error"]
    assert "result" not in envelope(reply)


@pytest.mark.parametrize("fields", [{"service_id": "3"}, {"params": []}])
def test_tolerated_dialects(app: rpc.RpcApplication, fields: dict[str, Any]) -> None:
    assert call(app, **fields).status == 200


def test_verbs_are_separate_namespaces(app: rpc.RpcApplication) -> None:
    assert envelope(call(app, "moved", "POST"))["result"] == "moved"
    assert envelope(call(app, "inherited"))["result"] == "base"


def test_downloads_are_handed_through(app: rpc.RpcApplication) -> None:
    assert call(app, "file").download == rpc.FileDownload("a.txt", pathlib.Path("/a"))


def test_unregistering_is_complete_and_repeatable(app: rpc.RpcApplication) -> None:
    app.unregister(3)
    app.unregister(3)
    assert call(app).status == 404
    assert app.service_ids() == []


def test_observer_is_told_of_calls_that_reached_a_method() -> None:
    seen: list[tuple[str, str]] = []
    app = rpc.RpcApplication(lambda method, _seconds, outcome: seen.append((method, outcome)))
    app.register(3, Service())
    call(app)
    call(app, "refuses", "POST")
    call(app, "breaks", "POST")
    call(app, "absent")
    assert seen == [("echo", "ok"), ("refuses", "error"), ("breaks", "internal")]


def test_the_declaration_can_be_read_from_instance_and_class() -> None:
    for source in (Service, Service()):
        methods = expose.exposed_methods(source)
        echo = methods["GET", "echo"]
        assert echo.help == "Say what was asked, and by whom."
        assert [param.name for param in echo.params] == ["codeVersionId"]
        assert ("GET", "hidden") not in methods


def _declare(verb: Any, *declared: params.Param) -> None:
    @expose.expose(verb, *declared)
    def method(self: object, code: str) -> None:
        pass


@pytest.mark.parametrize(
    ("verb", "declared"),
    [
        ("PUT", ()),
        ("GET", ()),
        ("GET", (params.Param("other", params.Text()),)),
        ("GET", (params.Param("code", params.Text()), params.Param("code", params.Text()))),
        ("GET", (params.Param("code", params.Upload()),)),
    ],
)
def test_a_declaration_that_does_not_fit_fails_at_import(verb: str, declared: tuple[params.Param, ...]) -> None:
    with pytest.raises(TypeError):
        _declare(verb, *declared)
