"""`cps-cloud`: the clouds and the virtual machines in them."""

from __future__ import annotations

from conpaas.client import grammar, session

group = grammar.Group("cloud", help="List clouds and the virtual machines in them.")


@group.verb("list")
def list_clouds(run: session.Session) -> None:
    """List the names of the clouds, the default one first."""
    names = run.director.clouds()
    run.out.show("\n".join(names), names)


@group.verb("console_log", grammar.argument("vmid"), grammar.cloud_option())
def console_log(run: session.Session, vmid: str, cloud: str) -> None:
    """Print what a virtual machine of yours wrote to its console."""
    log = run.director.console_log(vmid, cloud)
    run.out.show(log, {"log": log})


@group.verb("list_resources")
def list_resources(run: session.Session) -> None:
    """List the virtual machines of your applications."""
    rows = [{"rid": r.rid, "app_id": r.aid, "vmid": r.vmid, "ip": r.ip, "role": r.role, "cloud": r.cloud} for r in run.director.resources()]
    run.out.table(("rid", "app_id", "vmid", "ip", "role", "cloud"), rows, "No existing resources")
