"""The verbs that web hosting services of every language add to the command line."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from conpaas.core import errors

SETTLED: Final = ("RUNNING", "INIT", "STOPPED")
"""A change is done when the service is in one of these states: one that does not run only stores it."""
ROLES: Final = ("proxy", "web", "backend")
HIDDEN: Final = "********"
_FIGURES: Final = ("request_rate", "error_rate", "throughput", "response_time", "p50", "p95", "p99")


def add(group: Any, enable: str) -> None:
    """Fill the verb group of a service type; `enable` is the manager's method that activates a code version."""
    group.node_roles(backend=1, proxy=0, web=0)
    group.code_verbs(enable=enable)
    _add_releases(group)
    _add_addresses(group)
    _add_environment(group)
    _add_settings(group)
    _add_cron(group)
    _add_weights(group)
    _add_performance(group)


def assigned(service: Any, words: Iterable[str], *, removable: bool = True) -> dict[str, str | None]:
    """`NAME=VALUE` as name and value, `NAME-` as name and None; ends the command naming a word that is neither."""
    found: dict[str, str | None] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals and removable and word.endswith("-"):
            name, value = word[:-1], ""
        elif not equals:
            service.fail(f"Cannot read '{word}'.", "write NAME=VALUE" + (" to set and NAME- to remove" if removable else ""))
        if not name:
            service.fail(f"There is no name in '{word}'.")
        found[name] = value if equals else None
    return found


def local_time(seconds: Any) -> str:
    """`YYYY-MM-DD HH:MM:SS` in local time, N/A for what is no time."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(seconds)))
    except (TypeError, ValueError, OverflowError, OSError):
        return "N/A"


def _objects(reply: Any, name: str, service: Any) -> list[dict[str, Any]]:
    return [one for one in service.field(reply, name, list) if isinstance(one, dict)]


# -- releases


def _add_releases(group: Any) -> None:
    @group.verb("rollback", group.argument("code_version", required=False))
    def rollback(service: Any, code_version: str | None) -> None:
        """Go back to the code version that was active before, or to the given one."""
        wanted = {"codeVersionId": code_version} if code_version else {}
        sentence = f"Going back to code version '{code_version}'" if code_version else "Going back to the code version before"
        service.change(sentence, lambda: service.post("rollback", **wanted), until=SETTLED)

    @group.verb("releases")
    def releases(service: Any) -> None:
        """List what was served since when, newest first; * marks the active release.

        Each change of code, PHP settings or environment makes a release.
        """
        found = _objects(service.get("list_releases"), "releases", service)
        rows = [
            {
                "current": "*".rjust(len("current")) if one.get("current") else "",
                "release": one.get("number", ""),
                "codeVersionId": one.get("codeVersionId", ""),
                "since": local_time(one.get("time")),
                "by": one.get("requester", ""),
            }
            for one in found
        ]
        service.table(("current", "release", "codeVersionId", "since", "by"), rows, "No existing releases.", found)


# -- addresses


def _add_addresses(group: Any) -> None:
    @group.verb("open", group.flag("--browser", help="Also show the first one in a browser."))
    def open_site(service: Any, browser: bool) -> None:
        """Print the addresses of the site."""
        urls = [str(url) for url in service.field(service.get("get_service_info"), "urls", list)]
        if not urls:
            hint = f"cps-{service.type} start {service.app_id} {service.service_id}"
            service.fail("The site has no address: the service does not run.", hint)
        service.show("\n".join(urls), urls)
        if browser:
            _browse(service, urls[0])

    name = group.argument("domain", required=False, help="A full name such as www.example.org.")
    action = group.argument("action", choices=("list", "add", "remove"), required=False, help="What to do; list by default.")
    certificate = group.option("--certificate", kind="file", help="PEM file: the domain's certificate, then those that signed it.")
    key = group.option("--key", kind="file", help="PEM file: the certificate's key.")

    @group.verb("domains", action, name, certificate, key)
    def domains(service: Any, action: str | None, domain: str | None, certificate: str | None, key: str | None) -> None:
        """List, add or remove domains of the site; adding again replaces the certificate."""
        if (action or "list") == "list":
            _list_domains(service)
            return
        if domain is None:
            service.fail(f"Say which domain to {action}.", f"cps-{service.type} domains APP SRV {action} www.example.org")
        if action == "remove":
            service.change(f"Removing domain '{domain}'", lambda: service.post("remove_domain", domain=domain), until=SETTLED)
            return
        if (certificate is None) != (key is None):
            service.fail("--certificate and --key are needed both, or none of them.")
        files = {"certificate": certificate, "key": key} if certificate else {}
        service.change(f"Adding domain '{domain}'", lambda: service.upload("set_domain", files, domain=domain), until=SETTLED)


def _browse(service: Any, url: str) -> None:
    import webbrowser

    if not webbrowser.open(url):
        service.note("There is no browser on this machine.")


def _list_domains(service: Any) -> None:
    found = _objects(service.get("list_domains"), "domains", service)
    rows = []
    for one in found:
        certificate = service.field(one, "certificate", dict)
        ends = local_time(certificate.get("expires"))[:10] if certificate else ""
        row = {"name": one.get("domain", ""), "https": "yes" if one.get("tls") else "no"}
        rows.append({**row, "expires": ends, "issuer": certificate.get("issuer", "")})
    service.table(("name", "https", "expires", "issuer"), rows, "No existing domains.", found)


# -- environment


def _add_environment(group: Any) -> None:
    words = group.argument("assignments", required=False, many=True, help="NAME=VALUE to set, NAME- to remove; none: list all.")
    secret = group.option("--secret", many=True, help="Set a variable to a line of standard input, or ask for it; never shown again.")

    @group.verb("env", words, secret)
    def env(service: Any, assignments: Sequence[str], secret: Sequence[str]) -> None:
        """List or change the environment variables of the site's code."""
        if not assignments and not secret:
            _list_environment(service)
            return
        given = _environment(service, assignments, secret)
        service.change("Changing the environment", lambda: service.post("set_environment", **given), until=SETTLED)


def _environment(service: Any, words: Sequence[str], secret: Sequence[str]) -> dict[str, dict[str, str | None]]:
    """What to set and to remove, variables and secrets apart; a name to remove is looked up."""
    variables = assigned(service, words)
    known = service.get("get_environment") if None in variables.values() else {}
    hidden = service.field(known, "secrets", list)
    secrets: dict[str, str | None] = {name: None for name, value in variables.items() if value is None and name in hidden}
    for name, value in variables.items():
        if value is None and name not in hidden and name not in service.field(known, "environment", dict):
            service.fail(f"There is no environment variable '{name}'.")
    for name in secret:
        if name in variables:
            service.fail(f"'{name}' cannot be a variable and a secret at once.")
        secrets[name] = service.ask_secret(f"{name}: ")
    plain = {name: value for name, value in variables.items() if name not in secrets}
    return {kind: values for kind, values in (("environment", plain), ("secrets", secrets)) if values}


def _list_environment(service: Any) -> None:
    reply = service.get("get_environment")
    shown = {name: (value, "no") for name, value in service.field(reply, "environment", dict).items()}
    shown |= {str(name): (HIDDEN, "yes") for name in service.field(reply, "secrets", list)}
    rows = [{"name": name, "value": value, "secret": secret} for name, (value, secret) in sorted(shown.items())]
    columns: tuple[str, ...] = ("name", "value", "secret")
    given = service.field(reply, "given", dict)
    if given:
        columns = (*columns, "from")
        rows = [{**row, "from": ""} for row in rows]
        rows += [{"name": name, "value": HIDDEN, "secret": "yes", "from": who} for who, names in sorted(given.items()) for name in names]
    service.table(columns, rows, "No existing environment variables.", reply)


# -- settings


def _add_settings(group: Any) -> None:
    words = group.argument("assignments", required=False, many=True, help="NAME=VALUE to set, NAME- for the default; none: list all.")

    @group.verb("settings", words)
    def settings(service: Any, assignments: Sequence[str]) -> None:
        """List or change how the site is served: document root, front controller and more."""
        if not assignments:
            service.pairs(service.field(service.get("get_web_settings"), "settings", dict))
            return
        wanted = assigned(service, assignments)
        service.change("Changing the settings", lambda: service.post("update_web_settings", settings=wanted), until=SETTLED)


# -- cron


def _add_cron(group: Any) -> None:
    action = group.argument("action", choices=("list", "add", "remove"), required=False, help="What to do; list by default.")
    first = group.argument("schedule", required=False, help="Five fields as in crontab(5), in quotes; for remove, the entry's number.")
    command = group.argument("command", required=False, help="Run in the document root, on one backend.")

    @group.verb("cron", action, first, command)
    def cron(service: Any, action: str | None, schedule: str | None, command: str | None) -> None:
        """List, add or remove commands that run at set times."""
        entries = _objects(service.get("get_cron"), "entries", service)
        if (action or "list") == "list":
            rows = [{"number": number, **one} for number, one in enumerate(entries, 1)]
            service.table(("number", "schedule", "command"), rows, "No existing cron entries.", entries)
            return
        if action == "add":
            if schedule is None or command is None:
                service.fail("Say when and what to run.", f"cps-{service.type} cron APP SRV add '*/10 * * * *' 'php cron.php'")
            sentence, wanted = "Adding a cron entry", [*entries, {"schedule": schedule, "command": command}]
        else:
            which = schedule or ""
            wanted = [one for number, one in enumerate(entries, 1) if str(number) != which]
            if len(wanted) == len(entries):
                service.fail(f"There is no cron entry '{which}'; there are {len(entries)}.")
            sentence = f"Removing cron entry {which}"
        service.change(sentence, lambda: service.post("set_cron", entries=wanted), until=SETTLED)


# -- weights


def _add_weights(group: Any) -> None:
    web = group.option("--web", many=True, help="AGENT_ID=WEIGHT of a static web server.")
    backend = group.option("--backend", many=True, help="AGENT_ID=WEIGHT of a backend.")

    @group.verb("weights", web, backend)
    def weights(service: Any, web: Sequence[str], backend: Sequence[str]) -> None:
        """List or change how many requests nodes get in proportion to each other."""
        if not web and not backend:
            _list_weights(service)
            return
        wanted = {role: _numbers(service, words) for role, words in (("web", web), ("backend", backend)) if words}
        service.change("Changing the weights", lambda: service.post("update_nodes_weight", **wanted), until=SETTLED)


def _numbers(service: Any, words: Sequence[str]) -> dict[str, int]:
    numbers = {}
    for name, value in assigned(service, words, removable=False).items():
        digits = value or ""
        if not digits.isdecimal():
            service.fail(f"The weight of {name} must be a number, not '{digits}'.")
        numbers[name] = int(digits)
    return numbers


def _nodes_by_role(service: Any) -> list[tuple[str, list[str]]]:
    roles = service.get("list_nodes")
    return [(role, [str(one) for one in service.field(roles, role, list)]) for role in ROLES]


def _node(service: Any, node_id: str) -> dict[str, Any]:
    return dict(service.field(service.get("get_node_info", serviceNodeId=node_id), "serviceNode", dict))


def _list_weights(service: Any) -> None:
    rows = []
    for role, ids in _nodes_by_role(service):
        if role == "proxy":
            continue
        for node_id in ids:
            node = _node(service, node_id)
            weight = node.get("weightWeb" if role == "web" else "weightBackend", "N/A")
            rows.append({"role": role, "agent_id": node_id, "ip": node.get("ip", "N/A"), "weight": weight})
    service.table(("role", "agent_id", "ip", "weight"), rows, "No existing nodes.")


# -- performance


def _add_performance(group: Any) -> None:
    @group.verb("performance")
    def performance(service: Any) -> None:
        """Print what proxies measured, and web nodes beside them: requests and errors per second, KB/s, ms."""
        whole = service.get("get_service_performance")
        by_role = dict(_nodes_by_role(service))
        roles = {node_id: role for role in ("web", "proxy") for node_id in by_role[role]}  # a web server on a proxy has nothing to do
        nodes = {node_id: _measured(service, node_id) for node_id in sorted(roles, key=lambda one: (roles[one] != "proxy", one))}
        rows = [_figures("all", "proxy", whole), *(_figures(name, roles[name], measured) for name, measured in nodes.items())]
        service.table(("agent_id", "role", *_FIGURES), rows, "Nothing was measured.", {"service": whole, "nodes": nodes})


def _measured(service: Any, node_id: str) -> dict[str, Any]:
    try:
        return dict(service.get("get_node_performance", serviceNodeId=node_id))
    except errors.ConPaaSError as error:
        service.note(f"WARNING: {node_id} told nothing: {error}")
        return {}


def _figures(name: str, role: str, measured: Mapping[str, Any]) -> dict[str, Any]:
    return {"agent_id": name, "role": role, **{figure: measured.get(figure, "N/A") for figure in _FIGURES}}
