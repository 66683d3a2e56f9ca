"""The configurations of nginx that web hosting needs, as text: a proxy's, a static web server's, and that of a trial of a site.

Nothing reaches a configuration but numbers, words of harmless characters and quoted text: whatever else a template puts out is refused.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import ipaddress
import pathlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import jinja2

from conpaas.core import errors, params
from conpaas.services.webservers import spec

PROOF: Final = "conpaas-proof"
"""Stands in a text for the digest of that very text, until `nginx.Nginx` puts it in."""
STATIC_UPSTREAM: Final = "web_upstream"
DYNAMIC_UPSTREAMS: Final = {spec.PHP: "fpm_upstream", spec.JAVA: "tomcat_upstream"}

_TEMPLATES: Final = pathlib.Path(__file__).resolve().parent.parent / "templates"
_RETRY_MARGIN: Final = 12
"""Seconds."""
_WORD: Final = re.compile(r"[A-Za-z0-9_./:\[\]@-]+\Z")


class Safe(str):
    """Text that may stand in a configuration as it is."""

    __slots__ = ()


@dataclasses.dataclass(frozen=True)
class Host:
    """What a configuration takes from the machine and the place of its nginx. `drain`: longest life of old workers, in seconds.

    `socket` is relative to the directory that nginx is started in. Without `access_log` nothing is logged but errors.
    """

    name: str
    directory: pathlib.Path
    socket: str
    pid_file: pathlib.Path
    error_log: pathlib.Path
    user_files: pathlib.Path
    access_log: pathlib.Path | None = None
    timed_log: pathlib.Path | None = None
    user: str | None = None
    group: str | None = None
    workers: int = 1
    connections: int = 4096
    open_files: int = 8192
    drain: int = 300

    def scratch(self, kind: str) -> pathlib.Path:
        """Where bodies and answers lie that are too large for memory."""
        return self.directory / kind

    def user_file(self, kind: str) -> Safe:
        """A pattern that matches the file a user may have added, or nothing: nginx minds a missing file, but no empty match."""
        text = str(self.user_files / f"nginx-user-{kind}.conf")
        if re.search(r"[*?\[\]]", text):
            raise errors.ConfigurationError(f"nginx cannot serve from {self.user_files}: its name holds one of * ? [ ].")
        return Safe(text[:-1] + f"[{text[-1]}]")


@dataclasses.dataclass(frozen=True)
class Pair:
    """The files of a certificate (with its chain) and its key."""

    certificate: pathlib.Path
    key: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Group:
    """Servers that do the same work. The addresses in `down` get none of it; those in `sockets` are reached by a Unix socket."""

    name: str
    servers: tuple[spec.Upstream, ...]
    down: frozenset[str] = frozenset()
    least_connections: bool = False
    keepalive: bool = False
    sockets: Mapping[str, pathlib.Path] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Face:
    """One `server` block. `static` is the group that files come from, empty: this node's own disk; `dynamic` the group of backends."""

    listens: tuple[str, ...]
    names: tuple[str, ...] = ()
    default: bool = False
    tls: Pair | None = None
    static: str = ""
    dynamic: str = ""


@dataclasses.dataclass(frozen=True)
class Listening:
    """Where a proxy listens: `plain` and `tls` as `address:port`; `tls_port` as browsers need it in a redirect."""

    plain: tuple[str, ...]
    tls: tuple[str, ...] = ()
    tls_port: int | None = None


def proxy(
    host: Host,
    configuration: spec.ProxyConfig,
    *,
    root: pathlib.Path,
    files_only: bool,
    local: bool,
    listening: Listening,
    pairs: Sequence[tuple[Sequence[str], Pair]] = (),
    down: frozenset[str] = frozenset(),
    sockets: Mapping[str, pathlib.Path] | None = None,
) -> str:
    """A proxy's configuration. `root` is the document root; `files_only`: there is nothing in the code that a backend would run.

    `local`: files come from this node's disk, not from web servers. `pairs`: names and their certificate. `down`: servers left out.
    `sockets`: the Unix sockets of backends, by their addresses, where there is one.
    """
    groups = _groups(configuration, down, local, sockets or {})
    static = "" if local else STATIC_UPSTREAM
    common = Face(listening.plain, default=True, static=static, dynamic=DYNAMIC_UPSTREAMS[configuration.site.kind])
    faces = [common]
    faces += [dataclasses.replace(common, listens=listening.tls, names=tuple(names), default=False, tls=pair) for names, pair in pairs]
    redirected = [name for names, _ in pairs for name in names] if configuration.site.https_redirect else []
    return _proxy(
        host,
        configuration,
        root=root,
        files_only=files_only,
        groups=groups,
        faces=faces,
        tls_listens=listening.tls if pairs else (),
        plain_listens=listening.plain,
        redirected=redirected,
        tls_suffix=Safe("" if listening.tls_port in (None, 443) else f":{listening.tls_port}"),
    )


def trial(host: Host, configuration: spec.ProxyConfig, *, root: pathlib.Path, files_only: bool, sockets: Sequence[str]) -> str:
    """A configuration with one face, on its own socket, for each backend; files come from the disk."""
    name = DYNAMIC_UPSTREAMS[configuration.site.kind]
    groups = [Group(f"{name}_{number}", (one,)) for number, one in enumerate(configuration.backends)]
    faces = [Face((f"unix:{socket}",), default=True, dynamic=group.name) for socket, group in zip(sockets, groups, strict=True)]
    return _proxy(host, configuration, root=root, files_only=files_only, groups=groups, faces=faces)


def static(host: Host, versions: Sequence[tuple[str, pathlib.Path]], site: spec.SiteSettings, listens: Sequence[str]) -> str:
    """The configuration of a static web server: one name-based server per code version (its id and document root)."""
    names = [name.lower() for name, _ in versions]
    if len(set(names)) < len(names):
        raise errors.InvalidArgument("Two code versions differ only in upper and lower case; a web server cannot tell them apart.")
    shown = [{"name": spec.check_version(name), "root": root} for name, root in versions]
    return _render("nginx-static.conf.j2", host=host, serial=0, versions=shown, site=site, listens=listens)


def _groups(configuration: spec.ProxyConfig, down: frozenset[str], local: bool, sockets: Mapping[str, pathlib.Path]) -> list[Group]:
    site = configuration.site
    dynamic = Group(
        DYNAMIC_UPSTREAMS[site.kind],
        configuration.backends,
        down=_without(configuration.backends, down),
        least_connections=site.balancing == spec.DYNAMIC_BALANCING,
        keepalive=site.kind == spec.JAVA,
        sockets=sockets,
    )
    return (
        [dynamic] if local else [Group(STATIC_UPSTREAM, configuration.web, down=_without(configuration.web, down), keepalive=True), dynamic]
    )


def _without(servers: Collection[spec.Upstream], down: frozenset[str]) -> frozenset[str]:
    """Those of `down` that can be left out: never all."""
    out = frozenset(one.address for one in servers) & down
    return out if len(out) < len({one.address for one in servers}) else frozenset()


def _proxy(
    host: Host, configuration: spec.ProxyConfig, *, root: pathlib.Path, files_only: bool, groups: Sequence[Group], **values: Any
) -> str:
    defaults = {"tls_listens": (), "plain_listens": (), "redirected": (), "tls_suffix": Safe("")}
    mark = hashlib.blake2s(" ".join(values.get("plain_listens", ())).encode(), digest_size=4).hexdigest()
    return _render(
        "nginx-proxy.conf.j2",
        host=host,
        serial=configuration.serial,
        mark=mark,
        version=spec.check_version(configuration.code_version),
        site=configuration.site,
        kind="files" if files_only else configuration.site.kind,
        root=root,
        groups=groups,
        # With another server to turn to, none that does not take a connection at once is waited for.
        connect_timeout=1 if len(configuration.backends) > 1 else 4,
        # Whatever takes as long as a request may take is not begun again elsewhere; backends end it some seconds before the proxy does.
        retry_timeout=max(1, configuration.site.response_timeout - _RETRY_MARGIN),
        **{**defaults, **values},
    )


# Filters


def quoted(value: object) -> Safe:
    """Text in quotes. nginx has no way to write a dollar sign there, nor have names any use for control characters: both are refused."""
    text = str(value)
    if any(not letter.isprintable() or letter == "$" for letter in text):
        raise errors.InvalidArgument(f"'{params.shown(text)}' cannot stand in a configuration of nginx.")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return Safe(f'"{escaped}"')


def word(value: object) -> Safe:
    """A bare word of characters that mean nothing to nginx."""
    text = str(value)
    if not _WORD.match(text):
        raise errors.InvalidArgument(f"'{params.shown(text)}' cannot stand in a configuration of nginx.")
    return Safe(text)


def number(value: object) -> Safe:
    """A whole number that is not negative."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise errors.InvalidArgument(f"'{params.shown(value)}' is not a number for a configuration of nginx.")
    return Safe(str(value))


def server(one: spec.Upstream, sockets: Mapping[str, pathlib.Path]) -> Safe:
    """An upstream's address as nginx writes it, or its socket. IPv6 zones are refused: their names may be any text."""
    if one.address in sockets:
        return quoted(f"unix:{sockets[one.address]}")
    ip = ipaddress.ip_address(one.ip)
    if getattr(ip, "scope_id", None) is not None:
        raise errors.InvalidArgument(f"The address of a server must have no zone, got {params.shown(one.ip)}.")
    return Safe(f"[{ip}]:{number(one.port)}" if ip.version == 6 else f"{ip}:{number(one.port)}")


def _only_safe(value: object) -> object:
    if not isinstance(value, Safe):
        raise TypeError(f"A template of nginx puts out something that no filter passed: {value!r}")
    return value


def _render(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(proof=PROOF, **values)


@functools.cache
def _environment() -> jinja2.Environment:
    made = jinja2.Environment(  # noqa: S701 - the results are not HTML, and `finalize` lets nothing through that no filter passed
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        finalize=_only_safe,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update(quoted=quoted, word=word, number=number, server=server, literal=Safe)
    return made
