"""The manager of a web hosting service: which node plays which role, as the service starts, grows, shrinks, and loses nodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from conpaas.core import errors, expose, manager, migration, node, params
from conpaas.core.operations import Operation
from conpaas.core.states import State
from conpaas.services.webservers import spec
from conpaas.services.webservers.agent import client
from conpaas.services.webservers.manager import addresses, default_code, logs, performance, placement, settings, sites

_AGENT_TYPE: Final = "web"
_NO_LOG: Final = "Failed to read log file"
"""How an agent says that a log is not there."""
_WINDOW = params.Param("window", params.Integer(minimum=1, maximum=3600), 60, help="Seconds to look back.")


class WebManager(settings.SettingsCalls):
    """Proxies, static web servers and backends. Subclasses say for which language, and bring the classic calls of their own."""

    shown_type: ClassVar[str]
    """What `get_service_info` calls the type."""
    default_name: ClassVar[str]
    """The file name of the first code version."""

    # What the service is made of

    def get_service_type(self) -> str:
        return _AGENT_TYPE

    def get_node_roles(self) -> list[str]:
        return list(spec.ROLES)

    def get_default_role(self) -> str:
        return spec.BACKEND

    def get_starting_nodes(self) -> dict[str, int]:
        return self.memory.shape.starting_nodes()

    def get_role_sninfo(self, role: str, cloud: str) -> dict[str, Any]:
        return self.get_standard_sninfo(placement.base_of(role), cloud)

    def get_role_logs(self, role: str) -> list[dict[str, str]]:
        return [*super().get_role_logs(role), *logs.of_label(role, self.kind)]

    def choose_nodes(self, roles: Mapping[str, int]) -> list[node.ServiceNode]:
        nodes = self.nodes
        chosen = self.victims if self.victims is not None else placement.victims(placement.placed(nodes), roles)
        if not self.heirs:  # a site that moves gets another address, because its user asked for that
            placement.check_victims(placement.placed(nodes), chosen)
        by_id = {one.id: one for one in nodes}
        return [by_id[key] for key in chosen if key in by_id]

    # Life cycle

    def on_create(self) -> None:
        self.code.add_default(lambda path: default_code.build(self.kind, path), self.default_name)
        if not self.memory.exists:
            first = sites.Site.first(sites.Configuration(self.kind, self.code.current().id))
            self.memory.select(first, "", "created")

    def on_start(self, nodes: list[node.ServiceNode]) -> None:
        with self.guard:
            if self.operation is None or "fresh" not in self.operation.data:
                self.memory.forget_proxies()
                self._remember("fresh", value=True)
            self.note(f"Bringing code version {self.site.version} to {', '.join(node.ids_of(nodes))}")
            self.cluster.converge(self.cluster.round(), nodes, self.site)

    def on_stop(self) -> list[node.ServiceNode]:
        nodes = self.nodes
        with self.guard:
            self.memory.incomplete = True  # should the service not stop after all, housekeeping brings everything back
            self.cluster.shut_down(nodes)
        return nodes

    def check_add_nodes(self, roles: dict[str, int]) -> None:
        placement.check_add(placement.placed(self.nodes), roles)

    def on_add_nodes(self, nodes: list[node.ServiceNode]) -> None:
        with self.guard:
            ids = set(node.ids_of(nodes))
            present = [one for one in self.nodes if one.id not in ids]
            kind = self.operation.kind if self.operation is not None else ""
            if self.operation is not None and kind == "add_nodes":
                former = placement.Shape(**self._remember("shape", value=dataclasses.asdict(self.memory.shape)))
                self.memory.shape = former.plus(self.operation.args["nodes"])
            elif kind == migration.MIGRATE.name:
                self._inherit_weights(self.heirs)
            else:
                self._assign(present, nodes)
            self.note(f"Bringing code version {self.site.version} to {', '.join(node.ids_of(nodes))}")
            self.cluster.converge(self.cluster.round(tolerated=present), self.nodes, self.site)

    def _assign(self, present: Sequence[node.ServiceNode], newcomers: Sequence[node.ServiceNode]) -> None:
        """Give replacements of lost nodes what they are for."""
        bases = placement.replacements(placement.placed(present), placement.placed(newcomers), self.memory.shape)
        for one in newcomers:
            if placement.base_of(one.role) != bases[one.id]:
                self.set_role(one.id, bases[one.id])

    def _inherit_weights(self, heirs: Mapping[str, str]) -> None:
        """Give nodes the weights of those whose places they take; what else they are for comes with their roles."""
        current = self.site
        weights = {
            role: {**known, **{heir: known[former] for former, heir in heirs.items() if former in known}}
            for role, known in current.configuration.weights.items()
        }
        if weights != current.configuration.weights:
            configuration = dataclasses.replace(current.configuration, weights=weights)
            self.memory.select(dataclasses.replace(current, configuration=configuration), "", self.operation.id if self.operation else "")

    def on_undo_add_nodes(self, nodes: list[node.ServiceNode]) -> None:
        with self.guard:
            operation = self.operation
            if operation is not None and "shape" in operation.data:
                self.memory.shape = placement.Shape(**operation.data["shape"])
            staying = self.nodes
            if not staying:
                return
            self.cluster.converge(self.cluster.round(tolerated=staying, lenient=True), staying, self.site, nodes)
            self._retire(nodes, self.nodes)

    def check_remove_nodes(self, roles: dict[str, int]) -> None:
        bases: dict[str, int] = {}
        for label, count in roles.items():
            bases[placement.base_of(label)] = bases.get(placement.base_of(label), 0) + count
        placement.check_remove(placement.placed(self.nodes), bases)

    def unknown_node(self, cloud: str, vmid: str) -> errors.ConPaaSError:
        return errors.InvalidArgument(f"Unknown node from cloud {params.shown(cloud)} with VM identifier {params.shown(vmid)}")

    def check_victims(self, nodes: list[node.ServiceNode]) -> None:
        placement.check_victims(placement.placed(self.nodes), node.ids_of(nodes))

    def on_remove_nodes(self, roles: dict[str, int]) -> list[node.ServiceNode]:
        leaving = self.choose_nodes(roles)
        gone = set(node.ids_of(leaving))
        with self.guard:
            staying = [one for one in self.nodes if one.id not in gone]
            heirs = set(self.heirs.values())
            if not heirs:
                self._shrink(leaving)
            tolerated = [one for one in staying if one.id not in heirs]
            self.cluster.converge(self.cluster.round(tolerated=tolerated), staying, self.site, leaving)
            self._retire(leaving, [one for one in self.nodes if one.id not in gone])
        return leaving

    def _shrink(self, leaving: Sequence[node.ServiceNode]) -> None:
        """The user wants so many nodes fewer from now on."""
        former = placement.Shape(**self._remember("shape", value=dataclasses.asdict(self.memory.shape)))
        counts: dict[str, int] = {}
        for one in leaving:
            counts[placement.base_of(one.role)] = counts.get(placement.base_of(one.role), 0) + 1
        self.memory.shape = former.plus(counts, -1)

    def _retire(self, leaving: Sequence[node.ServiceNode], staying: Sequence[node.ServiceNode]) -> None:
        """Wait until no request needs the nodes that leave. Those that were passed over get a second chance before."""
        if self.memory.incomplete:
            self.cluster.converge(self.cluster.round(tolerated=staying, lenient=True), staying, self.site, leaving)
        seconds = float(self.site.configuration.setting("drainTime"))
        self.note(f"Waiting for the requests on {', '.join(node.ids_of(leaving))} to end")
        busy = self.cluster.retire(leaving, staying, seconds)
        if busy:
            self.note(f"Requests by way of {', '.join(busy)} did not end within {seconds:g} seconds and may be cut off")

    def on_undo_remove_nodes(self, nodes: list[node.ServiceNode]) -> None:
        with self.guard:
            if self.operation is not None and "shape" in self.operation.data:
                self.memory.shape = placement.Shape(**self.operation.data["shape"])
            everybody = self.nodes
            self.cluster.converge(self.cluster.round(tolerated=everybody, lenient=True), everybody, self.site)

    def on_node_lost(self, lost: node.ServiceNode) -> bool:
        with self.guard:
            staying = self.nodes
            if staying:
                self.cluster.converge(self.cluster.round(tolerated=staying, lenient=True), staying, self.site)
        return True

    def on_recover(self, nodes: list[node.ServiceNode]) -> None:
        with self.guard:
            moved = {one.node_id for one in self.departures}
            self.memory.shape = placement.shape_of(placement.placed(one for one in nodes if one.id not in moved))
            self.cluster.converge(self.cluster.round(), nodes, self.site)

    def on_remove(self) -> None:
        self.memory.unclaimed = {*self.memory.unclaimed, *(one.name for one in self.site.configuration.domains)}
        for name in self.memory.unclaimed:
            self.director.release_domain(name, self.service_id)

    def _remember(self, name: str, *, value: Any) -> Any:
        """A value as it was when the operation under way first got here; put on disk at once."""
        operation: Operation | None = self.operation
        if operation is None:
            return value
        if name not in operation.data:
            operation.data[name] = value
            operation.save()
        return operation.data[name]

    # Housekeeping

    def housekeeping(self) -> None:
        """See to nodes that were passed over, end what proxies no longer use, give up domains."""
        if not (self.memory.untidy or self.memory.incomplete or self.memory.unclaimed):
            return
        if not self.guard.acquire(blocking=False):
            return
        try:
            if not self.idle or self.state != State.RUNNING:
                return
            self._tidy_up(self.nodes)
            self.release_domains()
        finally:
            self.guard.release()

    def _tidy_up(self, nodes: Sequence[node.ServiceNode]) -> None:
        if self.memory.incomplete or (self.memory.untidy and self.cluster.behind(nodes)):
            go = self.cluster.round(tolerated=nodes, lenient=True, patience=0.0)
            self.cluster.converge(go, nodes, self.site)
            nodes = self.nodes
        if self.memory.untidy and not self.memory.incomplete:
            previous = self.previous_version()
            self.memory.untidy = not self.cluster.tidy(nodes, [previous] if previous else [])

    # Calls

    @expose.expose("GET")
    def get_service_info(self) -> dict[str, Any]:
        """Tell the state, the type and the addresses of the site (`urls`: of its proxies, those to leave last, then by its domains)."""
        moved = {one.node_id for one in self.departures}
        nodes = sorted(self.nodes, key=lambda one: one.id in moved)
        urls = addresses.urls(nodes, self.memory.proxy_ports, self.site.configuration.domains)
        return {"state": str(self.state), "type": self.shown_type, "urls": urls}

    @expose.expose("GET")
    def get_configuration(self) -> dict[str, Any]:
        """Tell the enabled code version."""
        current = self.site
        return {"codeVersionId": current.version, "release": current.release.number}

    @expose.expose("GET")
    def list_nodes(self) -> dict[str, list[str]]:
        """List the ids of the nodes by role, a node in the list of each of its roles; empty unless the service is running."""
        if self.state not in (State.RUNNING, State.ADAPTING):
            return {}
        nodes = self.nodes
        return {role: [one.id for one in nodes if role in placement.roles_of(one.role)] for role in spec.ROLES}

    def describe_node(self, one: node.ServiceNode) -> dict[str, Any]:
        roles = placement.roles_of(one.role)
        configuration = self.site.configuration
        ports = self.memory.proxy_ports.get(one.id, {})
        return {
            **super().describe_node(one),
            "isRunningProxy": spec.PROXY in roles,
            "isRunningWeb": spec.WEB in roles,
            "isRunningBackend": spec.BACKEND in roles,
            "weightWeb": configuration.weight(spec.WEB, one.id),
            "weightBackend": configuration.weight(spec.BACKEND, one.id),
            **({"port": ports.get("port"), "tlsPort": ports.get("tls_port")} if spec.PROXY in roles else {}),
        }

    @expose.expose("GET", *manager.AGENT_LOG_PARAMS)
    def get_agent_log(self, agent_id: str, filename: str | None, offset: int | None, limit: int) -> dict[str, Any]:
        """Read a log of one node; one that nothing was written to yet is empty."""
        try:
            return super().get_agent_log(agent_id, filename, offset, limit)
        except errors.Unreachable:
            raise
        except errors.RemoteError as error:
            if str(error).startswith(_NO_LOG):
                return {"log": "", "offset": 0, "size": 0}
            raise

    @expose.expose("GET", _WINDOW)
    def get_service_performance(self, window: int) -> dict[str, Any]:
        """Tell what the proxies measured: requests, errors (both per second), throughput (KB/s), response times (ms)."""
        proxies = [one for one in self.nodes if spec.PROXY in placement.roles_of(one.role)] if self.state == State.RUNNING else []
        found = self.agents.each(proxies, lambda one: client.performance(self.agents, one, spec.PROXY, window))
        good = {key: answer for key, answer in found.items() if not isinstance(answer, errors.ConPaaSError)}
        silent = {key: str(answer) for key, answer in found.items() if isinstance(answer, errors.ConPaaSError)}
        return {**performance.together(list(good.values())), "window": window, **({"silent": silent} if silent else {})}

    @expose.expose("GET", params.Param("serviceNodeId", params.Text(max_length=256), help="The id of a proxy or a web node."), _WINDOW)
    def get_node_performance(self, service_node_id: str, window: int) -> dict[str, Any]:
        """Tell what one proxy, or one static web server beside the proxies, measured, and as what (`role`)."""
        target = self.get_node(service_node_id)
        roles = placement.roles_of(target.role)
        role = next((one for one in (spec.PROXY, spec.WEB) if one in roles), None)
        if role is None:
            raise errors.InvalidArgument(f"The node {target.id} is neither a proxy nor a web node; requests are measured by those.")
        return {**performance.together([client.performance(self.agents, target, role, window)]), "role": role, "window": window}
