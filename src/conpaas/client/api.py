"""The client library: every call to the Director and to managers, typed, without a word printed.

The command line is one user of it; anything else that acts for a user (a web front-end, a script, a test) can be another:

    director = api.Director("https://director.example.org:5555", api.Identity.open(Path.home() / ".conpaas"))
    application = director.create_application("shop")
    director.start_application(application.aid)

Every call raises `conpaas.core.errors.ConPaaSError` (or a subclass) and nothing else.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from conpaas.client import certificates, failures, replies
from conpaas.core import errors

if TYPE_CHECKING:
    from conpaas.core.https import client as https_client
    from conpaas.core.https import identity as https_identity

log = logging.getLogger(__name__)
APPLICATION_MANAGER = 0
_SECRET_WORDS = ("password", "passphrase", "secret", "token")
_NO_CERTIFICATES = "Cannot call the ConPaaS director: user certificates are not present.\nTry to run 'cps-user get_certificate' first."


@dataclasses.dataclass(frozen=True)
class Identity:
    """Who calls: the user's certificate directory, or only the CA to trust when there is no certificate yet."""

    ca: Path | None
    credentials: https_identity.Credentials | None

    @classmethod
    def open(cls, directory: Path) -> Identity:
        """Read what is in `directory` (cert.pem, key.pem, ca_cert.pem); an incomplete set is an error naming the missing file."""
        store = certificates.Store(directory)
        ca = store.ca if store.ca.is_file() else None
        if not store.has_certificate():
            return cls(ca, None)
        from conpaas.core.https import identity

        return cls(ca, identity.Credentials.from_dir(directory))


class Director:
    """The Director at `url`, called as `identity`. Keeps one connection; close it, or use it in a with statement."""

    def __init__(self, url: str, identity: Identity) -> None:
        self.url = url
        self.identity = identity
        self._client: https_client.DirectorClient | None = None

    def __enter__(self) -> Director:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; a later call opens it again."""
        client, self._client = self._client, None
        close = getattr(client, "close", None)
        if close is not None:
            close()

    # -- nobody in particular

    def version(self) -> str:
        """The Director's version."""
        return self._raw("/version").decode("utf-8", "replace").strip()

    def clouds(self) -> list[str]:
        """The names of the clouds, `default` first."""
        return replies.each(self._get("/available_clouds", anybody=True), str, "a list of clouds")

    def service_types(self) -> list[str]:
        """The service types this Director can run."""
        return replies.each(self._get("/available_services", anybody=True), str, "a list of service types")

    def new_user(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """Register a user; fields username, email, password, credit, fname, lname, affiliation."""
        return replies.mapping(self._post("/new_user", fields, anybody=True), "a user")

    def confirm_email(self, token: str) -> str:
        """Confirm an e-mail address; the name of the user that it belongs to."""
        reply = replies.mapping(self._post("/confirm_email", {"token": token}, anybody=True), "a user")
        return replies.text(reply.get("username"))

    def certificates(self, username: str, password: str, address: str = "") -> bytes:
        """Get a new certificate for the user: a zip archive with cert.pem, key.pem and ca_cert.pem. `address` as for `post`."""
        if self.identity.ca is None:
            raise errors.Unauthenticated(f"The CA of the director at URL '{self.url}' is not known.", hint="use 'cps-tools login'")
        try:
            fields = {"username": username, "password": password}
            body = certificates.request_archive(self.url, self.identity.ca, fields, _on_behalf_of(address))
        except errors.Unreachable as error:
            raise failures.contact_error(error, "director", self.url) from error
        if body.lstrip().startswith(b"{"):
            _raise_error_reply(body, self.url)
        return body

    # -- the user

    def user(self) -> Mapping[str, Any]:
        """What the Director knows about the user of this certificate."""
        return replies.mapping(self._get("/user_config"), "a user")

    def credit(self) -> int:
        """The credit left."""
        return replies.integer(self._get("/user_credit"), "a credit")

    def quota(self) -> dict[str, tuple[int, int | None]]:
        """How much the user has, and may have (None: no limit), of VMs, applications and MB of volumes."""
        found = {name: replies.mapping(amount) for name, amount in replies.mapping(self._get("/quota")).items()}
        limits = {name: amount.get("limit") for name, amount in found.items()}
        return {
            name: (
                replies.integer(amount.get("used"), "a number"),
                None if limits[name] is None else replies.integer(limits[name], "a number"),
            )
            for name, amount in found.items()
        }

    def resources(self) -> list[replies.Resource]:
        """The virtual machines of the user's applications."""
        return replies.each(self._get("/list_resources"), replies.Resource.read, "a list of resources")

    # -- operators only

    def users(self) -> list[Mapping[str, Any]]:
        """All users of the Director, with their credit."""
        return replies.each(self._get("/operator/users"), replies.mapping, "a list of users")

    def add_credit(self, username: str, credit: int) -> int:
        """Give a user more credit (or less, if negative); the new balance."""
        reply = replies.mapping(self._post("/operator/add_credit", {"username": username, "credit": credit}), "a credit")
        return replies.integer(reply.get("credit"), "a credit")

    # -- applications

    def applications(self) -> list[replies.Application]:
        """The user's applications."""
        return replies.each(self._get("/listapp"), replies.Application.read, "a list of applications")

    def application(self, aid: int) -> replies.Application:
        """The application with id `aid`, as it is now."""
        for application in self.applications():
            if application.aid == aid:
                return application
        raise errors.NotFound(f"Unknown application id {aid}")

    def create_application(self, name: str) -> replies.Application:
        """Create an application; its name is unique among the user's."""
        return replies.Application.read(self._post("/createapp", {"name": name}))

    def rename_application(self, aid: int, name: str) -> None:
        """Give the application another name."""
        _accepted(self._post(f"/renameapp/{aid}", {"name": name}), "rename the application")

    def start_application(self, aid: int, cloud: str | None = None) -> Any:
        """Ask for the application's manager VM to be started; returns at once."""
        path = f"/startapp/{aid}" if cloud is None else f"/startapp/{aid}/{_segment(cloud)}"
        return _accepted(self._post(path, {}), "start the application")

    def stop_application(self, aid: int) -> None:
        """Stop all VMs of the application; its services are forgotten."""
        _accepted(self._post(f"/stopapp/{aid}", {}), "stop the application")

    def delete_application(self, aid: int) -> None:
        """Stop all VMs of the application and delete it."""
        _accepted(self._post(f"/deleteapp/{aid}", {}), "delete the application")

    def application_history(self, aid: int, limit: int = 100) -> list[replies.Operation]:
        """What was done to the application by the Director, newest first."""
        return replies.each(self._get(f"/app_history/{aid}", limit=limit), replies.Operation.read, "a list of operations")

    def console_log(self, vmid: str, cloud: str = "default") -> str:
        """What a virtual machine of the user wrote to its console."""
        reply = self._get("/console_log", vmid=vmid, cloud=cloud)
        return replies.text(reply.get("log") if isinstance(reply, dict) else reply)

    def upload_manifest(self, manifest: str, cloud: str = "default", *, background: bool = True) -> int | None:
        """Create an application from a manifest; its id, or None if the Director made it at once and did not say."""
        fields: dict[str, Any] = {"manifest": manifest, "cloud": cloud}
        if background:
            fields["thread"] = "True"
        reply = replies.mapping(self._manifest_call("/upload_manifest", fields), "an application")
        return None if reply.get("aid") is None else replies.integer(reply["aid"], "an application (aid)")

    def download_manifest(self, aid: int) -> Mapping[str, Any]:
        """The manifest that would create the application again."""
        return replies.mapping(self._manifest_call(f"/download_manifest/{aid}", {}), "a manifest")

    def _manifest_call(self, path: str, fields: Mapping[str, Any]) -> Any:
        try:
            return self._post(path, fields)
        except errors.RemoteError as error:
            if str(error).startswith("Not Found"):  # the Director's words for an address it does not have
                raise errors.RemoteError("This ConPaaS director does not support manifests.", peer=self.url, method=path) from error
            raise

    # -- services

    def services(self, aid: int | None = None) -> list[replies.Service]:
        """The services of one application, or of all."""
        path = "/list" if aid is None else f"/list/{aid}"
        return replies.each(self._get(path), replies.Service.read, "a list of services")

    def add_service(self, service_type: str, aid: int) -> replies.Service:
        """Add a service to a running application."""
        return replies.Service.read(self._post(f"/add/{_segment(service_type)}", {"appid": aid}))

    def rename_service(self, aid: int, sid: int, name: str) -> None:
        """Give the service another name."""
        _accepted(self._post("/rename", {"app_id": aid, "service_id": sid, "name": name}), "rename the service")

    def remove_service(self, aid: int, sid: int) -> None:
        """Stop the service, delete its VMs and forget it."""
        _accepted(self._post("/remove", {"app_id": aid, "service_id": sid}), "remove the service")

    def manager(self, application: replies.Application) -> Manager:
        """The manager of a started application."""
        return Manager(application, self.identity)

    # -- whatever else the Director has

    def get(self, path: str, *, anybody: bool = False, **params: Any) -> Any:
        """The reply of an endpoint that changes nothing; `anybody`: it needs no certificate."""
        return self._get(path, anybody=anybody, **params)

    def post(self, path: str, fields: Mapping[str, Any] | None = None, *, anybody: bool = False, address: str = "") -> Any:
        """The reply of an endpoint that changes something; never sent twice. Fields that are None are left out.

        `address` is that of the person for whom this is called; a Director that trusts this machine counts failed sign-ins under it.
        """
        given = {name: value for name, value in (fields or {}).items() if value is not None}
        return self._post(path, given, anybody=anybody, address=address)

    # -- wire

    def _get(self, path: str, *, anybody: bool = False, **params: Any) -> Any:
        _log_request(self.url + path, params)
        with self._calling(path, anybody=anybody) as client:
            reply = client.get(path, **params)
        if reply is False:
            raise errors.Unauthenticated(
                "The ConPaaS director does not know the user of this certificate.", hint="get a new one with 'cps-user get_certificate'"
            )
        return reply

    def _raw(self, path: str) -> bytes:
        _log_request(self.url + path, {})
        with self._calling(path, anybody=True) as client:
            return client.raw(path)

    def _post(self, path: str, fields: Mapping[str, Any], *, anybody: bool = False, address: str = "") -> Any:
        _log_request(self.url + path, fields)
        more: dict[str, Any] = {"headers": _on_behalf_of(address)} if address else {}
        with self._calling(path, anybody=anybody) as client:
            return client.post(path, {name: str(value) for name, value in fields.items()}, **more)

    @contextlib.contextmanager
    def _calling(self, path: str, *, anybody: bool) -> Iterator[https_client.DirectorClient]:
        """The connection, opened at first use; its failures get the sentences users know."""
        if self.identity.credentials is None and not anybody:
            raise errors.Unauthenticated(_NO_CERTIFICATES)
        if self.identity.credentials is None and self.identity.ca is None:
            raise errors.Unauthenticated(f"The CA of the director at URL '{self.url}' is not known.", hint="use 'cps-tools login'")
        if self._client is None:
            from conpaas.core.https import client as https_client

            self._client = https_client.DirectorClient(self.url, self.identity.credentials, ca=self.identity.ca)
        try:
            yield self._client
        except errors.Unreachable as error:
            raise failures.contact_error(error, "director", self.url) from error


class Manager:
    """The manager VM of one application; `service_id` 0 is the application manager, others are service managers."""

    def __init__(self, application: replies.Application, identity: Identity) -> None:
        if application.manager is None:
            raise errors.WrongState(
                f"Application {application.aid} has not started. Try to start it first.",
                hint=f"start it with 'cps-application start {application.aid}'",
            )
        if identity.credentials is None:
            raise errors.Unauthenticated(_NO_CERTIFICATES)
        self.application = application
        self.address = (application.manager, application.manager_port)
        self.identity = identity
        self._client: https_client.RpcClient | None = None

    def close(self) -> None:
        """Close the connections; a later call opens them again."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def get(self, method: str, service_id: int = APPLICATION_MANAGER, params: Mapping[str, Any] | None = None) -> Any:
        """Call a method that changes nothing."""
        with self._calling(method, service_id, params) as client:
            return client.get(self.address, method, service_id, dict(params or {}))

    def post(self, method: str, service_id: int = APPLICATION_MANAGER, params: Mapping[str, Any] | None = None) -> Any:
        """Call a method that changes something."""
        with self._calling(method, service_id, params) as client:
            return client.post(self.address, method, service_id, dict(params or {}))

    def upload(
        self,
        method: str,
        service_id: int,
        files: Mapping[str, Any],
        fields: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Call a method that takes files: part name → path, or (file name, open binary file). Streamed.

        `timeout` is the longest silence of the manager, in seconds.
        """
        with self._calling(method, service_id, fields) as client:
            return client.upload(self.address, method, service_id, fields=dict(fields or {}), files=dict(files), timeout=timeout)

    def stream(
        self, method: str, service_id: int, params: Mapping[str, Any] | None = None, timeout: float | None = None
    ) -> https_client.FileStream:
        """Call a method that answers a file, and read it as it comes. What breaks off later is raised by the pieces."""
        with self._calling(method, service_id, params) as client:
            return client.stream(self.address, method, service_id, dict(params or {}), timeout)

    def download(
        self, method: str, service_id: int, to: Path, params: Mapping[str, Any] | None = None, timeout: float | None = None
    ) -> None:
        """Call a method that answers a file, and stream it into `to`."""
        with self._calling(method, service_id, params) as client:
            client.download(self.address, method, service_id, dict(params or {}), to=to, timeout=timeout)

    # -- application manager

    def states(self) -> dict[int, str]:
        """The states of the managers by service id; 0 is the application manager."""
        reply = replies.mapping(self.application_info().get("states"), "the states of an application")
        return {replies.integer(sid, "a service id"): replies.text(state) for sid, state in reply.items()}

    def application_info(self) -> Mapping[str, Any]:
        """`states`, `nodes` and `volumes` of the application."""
        return replies.mapping(self.get("get_app_info"), "an application")

    def start_service(self, sid: int, cloud: str) -> Any:
        """Ask for the service to start; returns at once."""
        return self.post("start_service", params={"service_id": sid, "cloud": cloud})

    def stop_service(self, sid: int) -> Any:
        """Ask for the service to stop; returns at once."""
        return self.post("stop_service", params={"service_id": sid})

    def add_nodes(self, sid: int, nodes: Mapping[str, int], cloud: str) -> Any:
        """Ask for more nodes, role → number; returns at once."""
        return self.post("add_nodes", params={"service_id": sid, "nodes": dict(nodes), "cloud": cloud})

    def remove_nodes(self, sid: int, nodes: Mapping[str, int], node_ids: list[str] | None = None) -> Any:
        """Ask for nodes to go, role → number (or exactly those of `node_ids`); returns at once."""
        params: dict[str, Any] = {"service_id": sid, "nodes": dict(nodes)}
        if node_ids:
            params["nodeIds"] = node_ids
        return self.post("remove_nodes", params=params)

    def recover_service(self, sid: int) -> Any:
        """Ask for a service in ERROR to be brought back; returns at once."""
        return self.post("recover_service", params={"service_id": sid})

    def volumes(self, sid: int = APPLICATION_MANAGER) -> list[replies.Volume]:
        """The volumes of a service, or of all services (0)."""
        reply = replies.mapping(self.post("list_volumes", params={"service_id": sid}), "a list of volumes")
        return replies.each(reply.get("volumes") or [], replies.Volume.read, "a list of volumes")

    def operation(self, operation_id: str) -> replies.Operation:
        """One operation, as it is now."""
        return replies.Operation.read(self.get("get_operation", params={"operationId": operation_id}))

    def operations(self, sid: int, limit: int = 20) -> list[replies.Operation]:
        """The latest operations of a service."""
        reply = replies.mapping(self.get("list_operations", sid, {"limit": limit}), "a list of operations")
        return replies.each(reply.get("operations") or [], replies.Operation.read, "a list of operations")

    def startup_script(self, sid: int) -> str:
        """The startup script of a service."""
        return replies.text(self.get("get_startup_script", params={"sid": sid}))

    def upload_startup_script(self, sid: int, script: Path) -> None:
        """Give a service another startup script, run on nodes created from then on."""
        self.upload("upload_startup_script", APPLICATION_MANAGER, {"script": script}, {"sid": sid})

    # -- service managers

    def service_info(self, sid: int) -> Mapping[str, Any]:
        """At least `state` and `type` of the service."""
        return replies.mapping(self.get("get_service_info", sid), "a service")

    def node_ids(self, sid: int) -> list[tuple[str, str]]:
        """(role, node id) pairs; a node with two roles comes twice."""
        roles = replies.mapping(self.get("list_nodes", sid), "nodes by role")
        return [(role, str(node_id)) for role, ids in roles.items() for node_id in replies.sequence(ids, "a list of nodes")]

    def node(self, sid: int, node_id: str, role: str = "") -> replies.Node:
        """One node of the service."""
        return replies.Node.read(self.get("get_node_info", sid, {"serviceNodeId": node_id}), node_id, role)

    def history(self, sid: int) -> list[replies.StateChange]:
        """The service's state changes, oldest first."""
        reply = replies.mapping(self.get("get_service_history", sid), "a history")
        return replies.each(reply.get("state_log") or [], replies.StateChange.read, "a history")

    def log(
        self, sid: int, *, agent: str | None = None, filename: str | None = None, offset: int | None = None, limit: int | None = None
    ) -> replies.LogPart:
        """The manager's log, or an agent's; `offset` and `limit` in bytes, without an offset the end of the log."""
        method = "get_manager_log" if agent is None else "get_agent_log"
        given = {"agentId": agent, "filename": filename, "offset": offset, "limit": limit}
        return replies.LogPart.read(self.get(method, sid, {name: value for name, value in given.items() if value is not None}))

    # -- wire

    @contextlib.contextmanager
    def _calling(self, method: str, service_id: int, params: Mapping[str, Any] | None) -> Iterator[https_client.RpcClient]:
        if self._client is None:
            from conpaas.core.https import client as https_client
            from conpaas.core.https import identity

            credentials = self.identity.credentials
            assert credentials is not None
            policy = identity.expect_manager(uid=credentials.identity.uid, aid=self.application.aid)
            self._client = https_client.RpcClient(credentials, policy)
        url = f"https://{self.address[0]}:{self.address[1]}/"
        _log_request(f"{url} {method} of service {service_id}", params or {})
        try:
            yield self._client
        except errors.Unreachable as error:
            raise failures.contact_error(error, "manager", url) from error


def _on_behalf_of(address: str) -> dict[str, str]:
    """The header that names the person for whom something is asked."""
    return {"X-Forwarded-For": address} if address else {}


def _log_request(target: str, params: Mapping[str, Any]) -> None:
    """Log a request without its secrets."""
    shown = {name: "<hidden>" if any(word in name.lower() for word in _SECRET_WORDS) else value for name, value in params.items()}
    log.debug("Requesting '%s' with data %s.", target, shown)


def _segment(name: str) -> str:
    """A name as one path segment of a URL."""
    import urllib.parse

    return urllib.parse.quote(name, safe="")


def _raise_error_reply(body: bytes, url: str) -> NoReturn:
    """Raise what an error reply says."""
    try:
        reply = json.loads(body)
    except ValueError as error:
        raise errors.RemoteError("The reply is not a zip archive with certificates.", peer=url) from error
    raise errors.RemoteError(replies.text(reply.get("error"), "The reply is not a zip archive with certificates."), peer=url)


def _accepted(reply: Any, what: str) -> Any:
    """Refuse the Director's old way of saying no."""
    if reply is False:
        raise errors.RemoteError(f"The ConPaaS director refused to {what}.")
    return reply
