"""Changing what a web hosting service serves: the operation `configure`, and the calls for code versions.

Whatever changes (code, settings, environment, domains …), the way is the same: everything the new configuration needs is made ready beside
what serves, asked whether it answers, and only then used by all proxies at once. What fails before that was never used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Final

from conpaas.core import errors, expose, node, params
from conpaas.core.https import identity
from conpaas.core.operations import Operation, OperationKind, Step
from conpaas.core.states import State
from conpaas.services.webservers import spec
from conpaas.services.webservers.manager import base, cluster, sites

CONFIGURE: Final = OperationKind(
    "configure",
    (
        Step("claim", "claim_domains", "unclaim_domains"),
        Step("stage", "stage_code"),
        Step("prepare", "prepare_release", "return_to_former"),
        Step("check", "check_answers"),
        Step("switch", "switch_proxies", "return_to_former"),
        Step("select", "select_site", "select_former_site"),
    ),
    allowed=(State.RUNNING,),
    transient=State.ADAPTING,
    final=State.RUNNING,
    help="Updating configuration",
    secrets=("former", "wanted"),  # users' secrets and the keys of domains are in them
)

Edit = Callable[[sites.Configuration], sites.Configuration]

_BYPASS_SECONDS: Final = 5.0
_CHANGED: Final = "The configuration was changed by somebody else meanwhile; ask again."


class Deploying(base.WebBase):
    """Adds the operation `configure` and what begins it."""

    operations = (CONFIGURE,)

    # Beginning

    def change(self, edit: Edit, caller: identity.PeerIdentity | str | None) -> dict[str, Any]:
        """Change the configuration: of a service that does not run, at once; of one that runs, in the background, as an operation."""
        with self.guard:
            self.refuse_unless_changeable()
            former = self.site
            wanted = edit(former.configuration)
            if wanted == former.configuration:
                return {}
            wanted.site_settings()  # what agents would refuse is refused here
            wanted.backend_settings()
            if self.state != State.RUNNING:
                self._adopt(former.changed_to(wanted, self.memory.next_release), caller)
                return {}
            args = {"former": former.to_dict(), "wanted": wanted.to_dict()}
            return {"operation": self.submit(CONFIGURE.name, args, caller).id, "state": str(self.state)}

    def _adopt(self, chosen: sites.Site, caller: identity.PeerIdentity | str | None) -> None:
        """Change the site of a service that does not run."""
        dropped = _names(self.site.configuration) - _names(chosen.configuration)
        self.memory.select(chosen, base.requester_of(caller), f"at-rest-{chosen.release.number}")
        self.code.set_current(chosen.version)
        self.memory.unclaimed = {*self.memory.unclaimed, *dropped}
        self.release_domains()

    # Steps of `configure`

    @staticmethod
    def _former(op: Operation) -> sites.Site:
        return sites.Site.from_dict(op.args["former"])

    def _wanted(self, op: Operation) -> sites.Site:
        """The site to come; the number of its release is fixed once."""
        configuration = sites.Configuration.from_dict(op.args["wanted"])

        def number() -> int:
            if "release" not in op.data:
                op.data["release"] = self.memory.next_release()
                op.save()
            return int(op.data["release"])

        return self._former(op).changed_to(configuration, number)

    def claim_domains(self, op: Operation) -> None:
        with self.guard:
            if self.site != self._former(op):
                raise errors.WrongState(_CHANGED)
            for name in sorted(_names(self._wanted(op).configuration) - _names(self._former(op).configuration)):
                self.director.claim_domain(name, self.service_id)

    def unclaim_domains(self, op: Operation) -> None:
        claimed = _names(self._wanted(op).configuration) - _names(self.site.configuration)
        self.memory.unclaimed = {*self.memory.unclaimed, *claimed}
        self.release_domains()

    def stage_code(self, op: Operation) -> None:
        wanted = self._wanted(op)
        if wanted.version != self._former(op).version:
            op.note(f"Bringing code version {wanted.version} to all nodes")
        with self.guard:
            self.memory.untidy = True
            self.cluster.stage(self.cluster.round(), self.nodes, wanted.version)

    def prepare_release(self, op: Operation) -> None:
        wanted, former = self._wanted(op), self._former(op)
        if wanted.release != former.release:
            op.note(f"Starting release {wanted.release.number} of code version {wanted.version} beside the one that serves")
        with self.guard:
            nodes, go = self.nodes, self.cluster.round()
            if wanted.configuration.setting("documentRoot") != former.configuration.setting("documentRoot"):
                self.cluster.bypass_webs(go, nodes, former, _BYPASS_SECONDS)
            ready = self.cluster.prepare(go, nodes, wanted)
        op.data["ready"] = dataclasses.asdict(ready)

    def check_answers(self, op: Operation) -> None:
        """Ask everything for the health path. A version that does not answer well is not used; other changes must not make it worse."""
        wanted, former = self._wanted(op), self._former(op)
        same_site = wanted.configuration.site_settings() == former.configuration.site_settings()
        if wanted.release == former.release and same_site:
            return
        path = wanted.configuration.setting("healthPath")
        op.note(f"Asking all backends for {path}")
        with self.guard:
            nodes = self.nodes
            problem = self._problem(nodes, wanted, self._ready(op))
            if problem is None:
                return
            if wanted.version == former.version:
                ready = self.cluster.prepare(self.cluster.round(), nodes, former)
                before = self._problem(nodes, former, ready)
                if before is not None:
                    op.note(f"{problem}. That was so before ({before})")
                    self.cluster.prepare(self.cluster.round(), nodes, wanted)
                    return
        what = f"code version {wanted.version}" if wanted.version != former.version else "these settings"
        raise errors.OperationFailed(f"{problem}; {what} will not be used")

    def _problem(self, nodes: Sequence[node.ServiceNode], wanted: sites.Site, ready: cluster.Prepared) -> str | None:
        """Why a site that is ready does not answer well; None if it does."""
        configuration = wanted.configuration
        path, seconds = configuration.setting("healthPath"), float(configuration.setting("healthTimeout"))
        answers = self.cluster.check(nodes, wanted, ready, path, seconds)
        said = self.cluster.release_errors(ready.playing(spec.BACKEND, nodes), wanted.release.number)
        names = {f"{one.ip}:{port}": one.id for one in nodes for port in _ports_of(one, ready)}
        backends = {f"{one.ip}:{ready.backends[one.id]}" for one in nodes if one.id in ready.backends}
        for answer in answers:
            server, status = str(answer["server"]), int(answer["status"])
            ok = 0 < status < 500 if path == sites.DEFAULT_HEALTH_PATH else 200 <= status < 400
            if not ok:
                name = names.get(server, server)
                reason = (said.get(name) or [""])[-1] if server in backends else ""
                reason = reason or str(answer.get("reason") or "")
                what = f"answered {status}" if status else f"did not answer within {seconds:g} seconds"
                return f"GET {path} on {name} {what}" + (f": {reason}" if reason else "")
        for name, lines in said.items():
            return f"GET {path} on {name} logged: {lines[-1]}"
        return None

    @staticmethod
    def _ready(op: Operation) -> cluster.Prepared:
        return cluster.Prepared(**op.data["ready"])

    def switch_proxies(self, op: Operation) -> None:
        wanted, ready = self._wanted(op), self._ready(op)
        op.note("Switching all proxies")
        with self.guard:
            go, nodes = self.cluster.round(), self.nodes
            self.cluster.switch(go, nodes, wanted, ready)
            self.cluster.schedule(go, nodes, wanted, ready)

    def return_to_former(self, op: Operation) -> None:
        """Undo: have all proxies work with the former configuration; nodes that fail now are passed over, and seen to later."""
        with self.guard:
            nodes = self.nodes
            self.cluster.converge(self.cluster.round(tolerated=nodes, lenient=True), nodes, self._former(op))

    def select_site(self, op: Operation) -> None:
        wanted, former = self._wanted(op), self._former(op)
        with self.guard:
            self.memory.select(wanted, op.requester, op.id)
            self.code.set_current(wanted.version)
            dropped = _names(former.configuration) - _names(wanted.configuration)
            self.memory.unclaimed = {*self.memory.unclaimed, *dropped}
        if wanted.release != former.release:
            op.data["reason"] = f"Release {wanted.release.number}: code version {wanted.version}"
        if dropped:
            self.release_domains()

    def select_former_site(self, op: Operation) -> None:
        former = self._former(op)
        with self.guard:
            self.memory.unselect(former, op.id)
            self.code.set_current(former.version)
            self.memory.unclaimed = set(self.memory.unclaimed) - _names(former.configuration)

    # Code

    def enable(self, version_id: str, caller: identity.PeerIdentity | str | None, edit: Edit | None = None) -> dict[str, Any]:
        """Make a code version the enabled one, together with further changes."""
        record = self.code.get(version_id)
        self.check_state(*base.CHANGEABLE)
        self.code.archive(record.id)

        def both(configuration: sites.Configuration) -> sites.Configuration:
            changed = edit(configuration) if edit is not None else configuration
            return dataclasses.replace(changed, version=record.id)

        return self.change(both, caller)

    def enable_version(self, version_id: str, caller: identity.PeerIdentity | None) -> dict[str, Any]:
        return self.enable(version_id, caller)

    @expose.expose(
        "POST", params.Param("codeVersionId", params.Text(max_length=80), None, help="Without it, the version enabled before this one.")
    )
    def rollback(self, code_version_id: str | None, caller: identity.PeerIdentity | None) -> dict[str, Any]:
        """Go back to a code version that was enabled before."""
        version = code_version_id or self.previous_version()
        if version is None:
            raise errors.NotFound("There is no former code version to go back to.", hint="enable a code version by its id")
        return {"codeVersionId": version, **self.enable(version, caller)}

    @expose.expose("GET", params.Param("limit", params.Integer(minimum=1, maximum=100), 20, help="At most so many, newest first."))
    def list_releases(self, limit: int) -> dict[str, Any]:
        """List what was enabled when and by whom, newest first; every change of code or of backends' settings is a release."""
        current = self.site.release.number
        entries = [{key: value for key, value in entry.items() if key != "key"} for entry in reversed(self.memory.releases())]
        newest = True
        for entry in entries:
            if newest and entry["number"] == current:
                entry["current"] = True
                newest = False
        return {"releases": entries[:limit]}

    @expose.expose("POST", params.Param("codeVersionId", params.Text(max_length=80), help="Any version but the enabled one."))
    def delete_code_version(self, code_version_id: str) -> None:
        """Delete a code version; nodes lose it a little later."""
        self.code.delete(code_version_id)
        self.memory.untidy = True

    # Manifests

    def on_apply_manifest(self, fields: dict[str, Any], caller: identity.PeerIdentity | None) -> dict[str, Any]:
        """All fields are one change; `Archive` holds the reply to the archive's upload."""
        edits = [self.manifest_edit(name, value) for name, value in fields.items()]

        def all_of_them(configuration: sites.Configuration) -> sites.Configuration:
            for edit in edits:
                configuration = edit(configuration)
            return configuration

        return self.change(all_of_them, caller)

    def manifest_edit(self, name: str, value: Any) -> Edit:
        """What a field of a manifest changes."""
        if name != "Archive":
            raise errors.InvalidArgument(f"Services of type '{self.type}' have no field {name} in a manifest.")
        uploaded = params.check_arguments((params.Param(name, params.Mapping()),), {name: value})["archive"]
        record = self.code.get(str(uploaded.get("codeVersionId")))
        return lambda configuration: dataclasses.replace(configuration, version=record.id)


def _names(configuration: sites.Configuration) -> set[str]:
    return {one.name for one in configuration.domains}


def _ports_of(one: node.ServiceNode, ready: cluster.Prepared) -> list[int]:
    return [ports[one.id] for ports in (ready.backends, ready.webs) if one.id in ports]
