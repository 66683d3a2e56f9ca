"""What the pages of web hosting services of every language show."""

from __future__ import annotations

from typing import Final

from conpaas.core import code_page
from conpaas.core.pages import (
    AT_REST,
    NODES,
    WORKING,
    Action,
    Buttons,
    Chart,
    Facts,
    Field,
    Form,
    Link,
    Page,
    Panel,
    Part,
    Role,
    Table,
    Value,
)
from conpaas.services.webservers import spec

PEM_LIMIT: Final = 1_000_000
_CHANGED: Final = "The change is being made; visitors notice nothing of it."

SITE = Panel(
    "Site",
    (
        Link("Open the site", method="get_service_info", key="urls", help="The addresses of its proxies, then its domains."),
        Facts(
            "get_service_performance",
            (
                Value("request_rate", "Requests", "count", unit="/s"),
                Value("error_rate", "Errors", "count", help="answers with a status from 500 on", unit="/s"),
                Value("response_time", "Response time", "count", unit="ms"),
                Value("p95", "95 % answered within", "count", unit="ms"),
            ),
            states=WORKING,
        ),
    ),
)

CHARTS = Panel(
    "Performance",
    (
        Chart("Requests", "get_service_performance", (Value("request_rate", "requests"), Value("error_rate", "errors")), unit="/s"),
        Chart(
            "Response time",
            "get_service_performance",
            (Value("p50", "half of all"), Value("p95", "95 %"), Value("p99", "99 %"), Value("response_time", "mean")),
            unit="ms",
        ),
        Chart("Throughput", "get_service_performance", (Value("throughput", "sent"),), unit="KB/s"),
    ),
    help="What the proxies measured, each number over one minute.",
)

RELEASES = Panel(
    "Releases",
    (
        Table(
            "list_releases",
            "releases",
            (
                Value("number", "Release"),
                Value("codeVersionId", "Code version", "code"),
                Value("time", "Since", "time"),
                Value("requester", "By"),
            ),
            actions=(
                Action(
                    "rollback",
                    "Go back to its code",
                    row={"codeVersionId": "codeVersionId"},
                    unless="current",
                    states=AT_REST,
                    done="Going back to that code version.",
                ),
            ),
            marked="current",
            empty="Nothing was enabled yet.",
        ),
        Buttons((Action("rollback", "Go back to the version before", states=AT_REST, done="Going back to the version before."),)),
    ),
    help="Every change of code, environment or settings of the backends is a release.",
)

ENVIRONMENT = Panel(
    "Environment",
    (
        Table(
            "get_environment",
            "environment",
            (Value("key", "Name", "code"), Value("value", "Value", "code")),
            actions=(
                Action(
                    "set_environment",
                    "Change",
                    row={"name": "key"},
                    fields=(Field("value", "New value", required=True),),
                    entry="environment",
                    states=AT_REST,
                    done=_CHANGED,
                ),
                Action(
                    "set_environment",
                    "Remove",
                    row={"name": "key"},
                    entry="environment",
                    loses="The variable and its value.",
                    states=AT_REST,
                    done=_CHANGED,
                ),
            ),
            empty="There are no variables.",
            title="Variables",
        ),
        Table(
            "get_environment",
            "secrets",
            (Value("value", "Name", "code"),),
            actions=(
                Action(
                    "set_environment",
                    "Change",
                    row={"name": "value"},
                    fields=(Field("value", "New value", "secret", required=True),),
                    entry="secrets",
                    states=AT_REST,
                    done=_CHANGED,
                ),
                Action(
                    "set_environment",
                    "Remove",
                    row={"name": "value"},
                    entry="secrets",
                    loses="The secret, whose value nobody can be told again.",
                    states=AT_REST,
                    done=_CHANGED,
                ),
            ),
            empty="There are no secrets.",
            title="Secrets",
        ),
        Form(
            "Set a variable",
            Action(
                "set_environment",
                "Set",
                fields=(Field("name", "Name", required=True, placeholder="APP_MODE"), Field("value", "Value", required=True)),
                entry="environment",
                states=AT_REST,
                done=_CHANGED,
            ),
        ),
        Form(
            "Set a secret",
            Action(
                "set_environment",
                "Set",
                fields=(
                    Field("name", "Name", required=True, placeholder="API_KEY"),
                    Field("value", "Value", "secret", required=True, help="It is never shown again."),
                ),
                entry="secrets",
                states=AT_REST,
                done=_CHANGED,
            ),
        ),
        Table(
            "get_environment",
            "given",
            (Value("key", "From"), Value("value", "Variables", "list")),
            empty="No other service gives variables; a database does when it is bound to this service.",
            title="Given by other services",
        ),
    ),
    help="What the code finds in its environment.",
)

DOMAINS = Panel(
    "Domains and certificates",
    (
        Table(
            "list_domains",
            "domains",
            (
                Value("domain", "Domain", "code"),
                Value("tls", "HTTPS", "boolean"),
                Value("certificate.expires", "Certificate ends", "time"),
                Value("certificate.issuer", "Issued by"),
            ),
            actions=(
                Action(
                    "remove_domain",
                    "Remove",
                    row={"domain": "domain"},
                    loses="The site no longer answers to the domain, and its certificate and key are deleted.",
                    typed="domain",
                    states=AT_REST,
                    done="The domain is being removed.",
                ),
            ),
            empty="The site answers to its addresses only. Have a domain lead to a proxy, then add it here.",
        ),
        Form(
            "Add a domain, or replace its certificate",
            Action(
                "set_domain",
                "Save",
                verb="UPLOAD",
                fields=(
                    Field("domain", "Domain", required=True, maximum=253, placeholder="www.example.org"),
                    Field(
                        "certificate",
                        "Certificate",
                        "file",
                        maximum=PEM_LIMIT,
                        help="PEM: the domain's own first, then those that signed it.",
                    ),
                    Field("key", "Key", "file", maximum=PEM_LIMIT, help="PEM, without a password; with a certificate only."),
                ),
                states=AT_REST,
                done=_CHANGED,
            ),
        ),
    ),
)

CRON = Panel(
    "Commands at set times",
    (
        Facts("get_cron", (Value("node", "Run on", "code"),), states=WORKING),
        Form(
            "Commands",
            Action(
                "set_cron",
                "Save",
                fields=(
                    Field(
                        "entries",
                        "Commands",
                        "rows",
                        required=True,
                        present="entries",
                        help="Five fields as in crontab(5); run in the document root, on one backend. Empty rows are left out.",
                        of=(
                            Field("schedule", "Schedule", required=True, placeholder="*/10 * * * *"),
                            Field("command", "Command", required=True, placeholder="php cron.php"),
                        ),
                    ),
                ),
                states=AT_REST,
                done=_CHANGED,
            ),
            method="get_cron",
        ),
    ),
)

WEIGHTS = Panel(
    "Weights",
    tuple(
        Form(
            f"Weight of a {label}",
            Action(
                "update_nodes_weight",
                "Set",
                fields=(
                    Field("name", "Node", "choice", choices_from=NODES, required=True),
                    Field("value", "Weight", "number", required=True, minimum=1, maximum=spec.MAX_WEIGHT, default=100),
                ),
                entry=role,
                states=WORKING,
                done=_CHANGED,
            ),
        )
        for role, label in ((spec.WEB, "web node"), (spec.BACKEND, "backend"))
    ),
    help="Nodes get requests in proportion to the weights of their role; 100 unless set. The list of nodes shows them.",
)


def _number(name: str, label: str, help: str, minimum: int, maximum: int, unit: str = "") -> Field:
    return Field(name, label, "number", help, minimum=minimum, maximum=maximum, unit=unit, present=f"settings.{name}")


def _switch(name: str, label: str, help: str = "") -> Field:
    return Field(name, label, "boolean", help, present=f"settings.{name}")


def _text(name: str, label: str, help: str) -> Field:
    return Field(name, label, help=help, present=f"settings.{name}")


FRONT_CONTROLLER: Final = _text("frontController", "Front controller", "The script that gets what no file answers; empty: none.")
UPLOAD_SIZE: Final = _number("uploadSize", "Largest request", "", 1, 10_240, "MB")
MAX_TIME: Final = _number("maxTime", "Longest request", "", 1, 3590, "s")
JVM_MEMORY: Final = _number("jvmMemory", "Heap of a backend", "", 32, 65_536, "MB")


def settings(*own: Field, before: tuple[Part, ...] = ()) -> Panel:
    """The web settings, with those of one language."""
    fields = (
        _text("documentRoot", "Document root", "The directory of the code that is served, such as public; empty: all of it."),
        *own,
        _text("healthPath", "Health path", "What a new code version is asked for before it is used."),
        _number("healthTimeout", "Its answer may take", "", 1, 120, "s"),
        Field(
            "loadBalancing",
            "Load balancing",
            "choice",
            "In turn (static), or the least busy (dynamic).",
            choices=(spec.STATIC_BALANCING, spec.DYNAMIC_BALANCING),
            present="settings.loadBalancing",
        ),
        _number("staticMaxAge", "Browsers keep static files", "", 0, 31_536_000, "s"),
        _number("workers", "Requests at once", "Of one backend; 0: what suits the machine.", 0, 1000),
        _number("drainTime", "Time to finish", "What requests on a node that is removed may still take.", 0, 300, "s"),
        _switch("httpsRedirect", "Send visitors of domains with a certificate to HTTPS"),
        _switch("hsts", "Tell browsers to use HTTPS only"),
        _switch("gzip", "Compress answers"),
        _switch("securityHeaders", "Add the usual security headers"),
    )
    action = Action("update_web_settings", "Save", fields=fields, group="settings", states=AT_REST, done=_CHANGED)
    return Panel("Settings", (*before, Form("How the site is served", action, method="get_web_settings")))


def page(enable: str, own_settings: Panel, next_step: str) -> Page:
    """The page of a language; `enable` is the method that enables a code version."""
    return Page(
        panels=(
            SITE,
            code_page.versions(enable),
            RELEASES,
            code_page.git(),
            CHARTS,
            own_settings,
            ENVIRONMENT,
            DOMAINS,
            CRON,
            WEIGHTS,
        ),
        roles=(
            Role("proxy", "Proxies", "Take requests and answer over HTTPS.", minimum=1),
            Role("web", "Web servers", "Serve static files.", minimum=1),
            Role("backend", "Backends", "Run the code.", minimum=1),
        ),
        next_step=next_step,
        node=(Value("weightWeb", "Web weight"), Value("weightBackend", "Backend weight")),
    )
