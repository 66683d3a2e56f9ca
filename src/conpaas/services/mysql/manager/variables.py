"""Server variables that users may set: checked, kept, the same on all members, and on those that come later."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from conpaas.core import errors, expose, params
from conpaas.core.https import identity
from conpaas.core.operations import Operation, OperationKind, Step
from conpaas.core.states import State
from conpaas.services.mysql import variables as catalogue
from conpaas.services.mysql.agent import client
from conpaas.services.mysql.manager import base

CONFIGURE: Final = OperationKind(
    "configure",
    (
        Step("remember", "remember_variables", "remember_former_variables"),
        Step("apply", "apply_variables", "apply_former_variables"),
        Step("restart", "restart_members"),
    ),
    allowed=(State.RUNNING,),
    transient=State.ADAPTING,
    final=State.RUNNING,
    help="Updating configuration",
)

_CHANGEABLE: Final = (State.INIT, State.STOPPED, State.RUNNING)
_CHANGED: Final = "The variables were changed by somebody else meanwhile; ask again."
_DRAIN: Final = 30.0
_VARIABLE = params.Param("variable", params.Text(max_length=64, non_empty=True), help="The name of a variable.")
_VALUE = params.Param("value", params.Text(max_length=1024), help="Its value.")


class VariableCalls(base.MySQLBase):
    """The operation `configure`, and what begins it."""

    operations: ClassVar[tuple[OperationKind, ...]] = (CONFIGURE,)

    @expose.expose("GET", _VARIABLE, _VALUE)
    def setMySqlParams(self, variable: str, value: str, caller: identity.PeerIdentity | None) -> str:
        """Set one variable; the classic call."""
        self.change_variables({variable: value}, caller)
        return "OK!"

    @expose.expose("POST", _VARIABLE, _VALUE)
    def set_mysql_param(self, variable: str, value: str, caller: identity.PeerIdentity | None) -> dict[str, Any]:
        """The same as set_variables with one variable."""
        return self.change_variables({variable: value}, caller)

    @expose.expose("POST", params.Param("variables", params.Mapping(), help="Values by name; null brings back the default."))
    def set_variables(self, variables: dict[str, Any], caller: identity.PeerIdentity | None) -> dict[str, Any]:
        """Set variables on all members: at once where the server can, else by restarting one member after the other."""
        return self.change_variables(variables, caller)

    @expose.expose("GET")
    def get_variables(self) -> dict[str, Any]:
        """Tell the variables that were set, and all that may be."""
        return {"variables": self.memory.variables, "catalogue": [one.to_dict() for one in catalogue.CATALOGUE.values()]}

    def change_variables(self, values: dict[str, Any], caller: identity.PeerIdentity | None) -> dict[str, Any]:
        """Begin the operation; of a service that does not run, the variables are only kept."""
        self.check_state(*_CHANGEABLE)
        former = self.memory.variables
        removed = [catalogue.find(name).name for name, value in values.items() if value is None]
        merged = {**former, **{name: value for name, value in values.items() if value is not None}}
        wanted = catalogue.check_all({name: value for name, value in merged.items() if name not in removed})
        if wanted == former:
            return {}
        if self.state != State.RUNNING:
            self.memory.variables = wanted
            return {}
        operation = self.submit(CONFIGURE.name, {"former": former, "wanted": wanted}, caller)
        return {"operation": operation.id, "state": str(self.state)}

    # Steps

    def remember_variables(self, op: Operation) -> None:
        with self.guard:
            if self.memory.variables not in (op.args["former"], op.args["wanted"]):
                raise errors.WrongState(_CHANGED)
            self.memory.variables = op.args["wanted"]

    def remember_former_variables(self, op: Operation) -> None:
        with self.guard:
            if self.memory.variables == op.args["wanted"]:
                self.memory.variables = op.args["former"]

    def apply_variables(self, op: Operation) -> None:
        """Put the variables into the configuration of all members, and into the servers as far as that can be done while they run."""
        former, wanted = op.args["former"], op.args["wanted"]
        changed = {name: value for name, value in wanted.items() if former.get(name) != value}
        removed = sorted(set(former) - set(wanted))
        op.note(f"Setting {', '.join([*changed, *removed])} on all members")
        with self.guard:
            own, go = self.members_in_order(), self.cluster.round()
            if "told" not in op.data:
                told = self.persistently(client.get_variables)
                op.data["told"] = {name: told[name] for name in changed if name in told}
                op.save()
            working = self.cluster.join_all(go, own, self.nodes, self.note)
            pending = go.each(working, lambda one: client.set_variables(self.agents, one, changed))
        op.data["restart"] = sorted(key for key, names in pending.items() if names or removed)

    def apply_former_variables(self, op: Operation) -> None:
        self.remember_former_variables(op)
        told = op.data.get("told", {})
        with self.guard:
            own = self.members_in_order()
            go = self.cluster.round(tolerated=own, lenient=True)
            working = self.cluster.join_all(go, own, self.nodes, self.note)
            if told:
                go.each(working, lambda one: client.set_variables(self.agents, one, told))
            self.cluster.balance(go, self.nodes)

    def restart_members(self, op: Operation) -> None:
        """One after the other, the writer last; each is back before the next one goes."""
        with self.guard:
            own = self.members_in_order()
            go = self.cluster.round()
            for one in reversed(own):
                if one.id not in op.data["restart"]:
                    continue
                op.note(f"Restarting {one.id}")
                self.cluster.restart(go, one, self.nodes, _DRAIN, self.note)
                op.data["restart"] = [key for key in op.data["restart"] if key != one.id]
                op.save()
