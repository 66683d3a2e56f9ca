"""Tomcat: one JVM in the foreground per release, with the application at `/`; `graceful` means TERM."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.client
import json
import pathlib
import re
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from typing import Final
from xml.etree import ElementTree

from conpaas.core import errors, file, misc, rendering, supervisor
from conpaas.services.webservers import spec, workload
from conpaas.services.webservers.workload import launch

HEALTH_PATH: Final = "/.conpaas/health"
GRACE: Final = 300
"""Seconds that requests under way may take when a Tomcat is told to end."""
_START_TIMEOUT: Final = 75.0
_LOG_FORMAT: Final = "%4$s %3$s %5$s%6$s%n"
_STAMP: Final = r"(?:\S+ )?"
_SEVERE: Final = re.compile(rf"^{_STAMP}SEVERE org\.apache\.(?:catalina|coyote|jasper|tomcat)\.\S+ (?P<text>.*)$")
_LEVEL: Final = re.compile(rf"^{_STAMP}(?:SEVERE|WARNING|INFO|CONFIG|FINE|FINER|FINEST) ")
_CAUSE: Final = re.compile(rf"^{_STAMP}(?:Caused by: )?(?P<text>[\w.$]+(?:Exception|Error)\b.*)$")
_FOLLOWS: Final = re.compile(r"One or more (?:listeners|Filters|servlets) failed|startup failed due to previous errors")
_LOG_WINDOW: Final = 512_000
_OPENED: Final = ("java.base/java.lang", "java.base/java.lang.reflect", "java.base/java.io", "java.base/java.util")
_OPENED_TOO: Final = ("java.base/java.util.concurrent", "java.rmi/sun.rmi.transport")
_TAKEN_OVER: Final = frozenset({"Resource", "Environment", "Parameter", "ResourceLink", "CookieProcessor"})
"""What of an application's META-INF/context.xml counts; the rest is the platform's to say."""
_MAX_CONTEXT: Final = 256_000
_MAX_THREADS: Final = 200


@dataclasses.dataclass(frozen=True)
class Instance:
    """One release's Tomcat. `base` is private to it; `root` is the application; `stores` the list of session stores; `log` its output.

    `ip` is listened on, `node_ip` is what the node is known by, if that is another.
    """

    name: str
    base: pathlib.Path
    ip: str
    port: int
    root: pathlib.Path
    settings: spec.BackendSettings
    stores: pathlib.Path
    access_log: pathlib.Path
    log: pathlib.Path
    user: str | None = None
    node_ip: str = ""


class Tomcat:
    """What to do with the Tomcat in `home` on the JVM `java`; `shared` is where what all instances of a node need is made once."""

    def __init__(self, java: str, home: pathlib.Path, shared: pathlib.Path, sources: pathlib.Path) -> None:
        self._java = java
        self._home = home
        self._shared = shared
        self._sources = sources

    def prepare(self, instance: Instance) -> supervisor.Daemon:
        """Write and check the configuration of an instance; returns the daemon to run."""
        sessions = self._session_library()
        for name in ("conf", "temp", "work", "logs", "none"):
            (instance.base / name).mkdir(parents=True, exist_ok=True)
            launch.give(instance.base / name, instance.user)
        launch.begin_log(instance.access_log, instance.user)
        conf = instance.base / "conf"
        file.write_atomically(conf / "server.xml", render(instance))
        file.write_atomically(conf / "catalina.properties", self._properties())
        file.write_atomically(conf / "logging.properties", _LOGGING)
        file.write_atomically(conf / "context.xml", '<?xml version="1.0" encoding="UTF-8"?>\n<Context />\n')
        file.write_atomically(conf / "web.xml", self._default("web.xml").read_bytes())
        return supervisor.Daemon(
            name=instance.name,
            argv=launch.write(
                instance.base / "launch",
                {"MY_IP": instance.node_ip or instance.ip, **instance.settings.environment},
                self._command(instance, sessions),
                instance.user,
            ),
            cwd=instance.root,
            user=instance.user,
            stop_timeout=GRACE + 10.0,
            log=instance.log.parent,
        )

    def wait_ready(self, instance: Instance, alive: Callable[[], bool]) -> None:
        """Return once the application answers. Raises OperationFailed with Tomcat's reason when it does not start, or its JVM ends."""

        def decided() -> str:
            return health(instance.ip, instance.port) or ("" if alive() else "ended")

        try:
            outcome = misc.wait_until(decided, timeout=_START_TIMEOUT, what=f"The start of the application on port {instance.port}")
        except errors.OperationFailed as error:
            raise errors.OperationFailed(f"{error}: {self.reason(instance)}") from error
        if outcome != "UP":
            raise errors.OperationFailed(f"The application does not start: {self.reason(instance)}")

    @staticmethod
    def reason(instance: Instance) -> str:
        """Why an instance did not start, in Tomcat's or the JVM's words."""
        told = severe_errors(instance.log, 3)
        return "; ".join(told) or file.tail(instance.log, 500).strip() or "its log is empty"

    def _command(self, instance: Instance, sessions: pathlib.Path) -> Sequence[str]:
        settings = instance.settings
        path = [self._home / "bin" / "bootstrap.jar", self._home / "bin" / "tomcat-juli.jar", *sorted((self._home / "lib").glob("*.jar"))]
        base = instance.base
        class_path = ":".join(str(one) for one in (*path, self._compiler(), sessions))
        return (
            self._java,
            f"-Xmx{settings.jvm_memory}m",
            "-XX:+UseSerialGC" if settings.jvm_memory < 1792 else "-XX:+UseG1GC",
            "-XX:+ExitOnOutOfMemoryError",
            "-XX:-UsePerfData",
            "-Xlog:disable",
            "-Xlog:all=error:stderr",
            *self._class_sharing(instance, class_path),
            "-Djava.awt.headless=true",
            "-Dfile.encoding=UTF-8",
            f"-Djava.io.tmpdir={base / 'temp'}",
            f"-Djava.util.logging.config.file={base / 'conf' / 'logging.properties'}",
            "-Djava.util.logging.manager=org.apache.juli.ClassLoaderLogManager",
            f"-Djava.util.logging.SimpleFormatter.format={_LOG_FORMAT}",
            "-Dorg.apache.tomcat.util.digester.PROPERTY_SOURCE=org.apache.tomcat.util.digester.EnvironmentPropertySource",
            "-Djava.protocol.handler.pkgs=org.apache.catalina.webresources",
            *(f"--add-opens={package}=ALL-UNNAMED" for package in (*_OPENED, *_OPENED_TOO)),
            f"-Dcatalina.home={self._home}",
            f"-Dcatalina.base={base}",
            "-cp",
            class_path,
            "org.apache.catalina.startup.Bootstrap",
            "start",
        )

    def keep_classes(self, instance: Instance) -> None:
        """Once an instance has ended: keep the archive of loaded classes that its JVM wrote, by which the next ones start faster."""
        for draft in (instance.base / "work").glob("classes-*.jsa"):
            if draft.stat().st_size:
                draft.replace(self._shared / draft.name)

    def _class_sharing(self, instance: Instance, class_path: str) -> Sequence[str]:
        """The option to use the node's archive of loaded classes, or to write it at the end. A JVM refuses one that does not fit."""
        program = pathlib.Path(self._java).resolve()
        key = f"{program} {program.stat().st_mtime_ns} {class_path}" if program.exists() else class_path
        archive = self._shared / f"classes-{hashlib.sha256(key.encode()).hexdigest()[:16]}.jsa"
        if archive.is_file():
            return (f"-XX:SharedArchiveFile={archive}",)
        return (f"-XX:ArchiveClassesAtExit={instance.base / 'work' / archive.name}",)

    def _properties(self) -> str:
        """The distribution's catalina.properties, with all of Tomcat in the JVM's own class path: so it may come from a shared archive."""
        text = self._default("catalina.properties").read_text(encoding="utf-8")
        return re.sub(r"(?m)^common\.loader=.*$", "common.loader=", text)

    def _default(self, name: str) -> pathlib.Path:
        places = [self._home / part / name for part in ("skel/conf", "conf")]
        for place in places:
            if place.is_file():
                return place
        raise errors.OperationFailed(f"There is no {name} of Tomcat in {places[0].parent} nor in {places[1].parent}.")

    @staticmethod
    def _compiler() -> pathlib.Path:
        """Eclipse's compiler, which compiles JSPs and our own sources: nodes have no JDK."""
        for name in ("eclipse-jdt-core.jar", "ecj.jar"):
            path = pathlib.Path("/usr/share/java") / name
            if path.exists():
                return path
        raise errors.OperationFailed("The Java compiler of Eclipse is not on this node.", hint="install libeclipse-jdt-core-java")

    def _session_library(self) -> pathlib.Path:
        """Our own session manager as a jar, compiled once for a version of its sources."""
        sources = sorted(self._sources.glob("*.java"))
        digest = hashlib.sha256(b"\0".join(source.read_bytes() for source in sources)).hexdigest()[:16]
        jar = self._shared / f"sessions-{digest}.jar"
        if jar.is_file():
            return jar
        self._shared.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._shared) as scratch:
            libraries = [*(self._home / "lib").glob("*.jar"), self._home / "bin" / "tomcat-juli.jar"]
            options = ("-17", "-proc:none", "-nowarn", "-cp", ":".join(map(str, libraries)), "-d", f"{scratch}/classes")
            main = ("-cp", str(self._compiler()), "org.eclipse.jdt.internal.compiler.batch.Main")
            misc.run((self._java, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", *main, *options, *sources), timeout=120)
            draft = pathlib.Path(scratch) / "sessions.jar"
            with zipfile.ZipFile(draft, "w") as archive:
                for compiled in sorted(pathlib.Path(scratch, "classes").rglob("*.class")):
                    archive.write(compiled, compiled.relative_to(pathlib.Path(scratch, "classes")))
            draft.chmod(0o644)
            draft.replace(jar)
        return jar


def render(instance: Instance) -> str:
    """The server.xml of an instance, well-formed. Raises InvalidArgument when a value cannot stand in it."""
    text = rendering.render(
        workload.PACKAGE,
        "tomcat-server.xml.j2",
        ip=instance.ip,
        port=instance.port,
        workers=instance.settings.workers or _MAX_THREADS,
        post_bytes=instance.settings.upload_size << 20,
        grace_ms=(GRACE - 10) * 1000,
        nothing=instance.base / "none",
        root=instance.root,
        stores=instance.stores,
        health_path=HEALTH_PATH,
        log_directory=instance.access_log.parent,
        log_name=instance.access_log.name,
        elements=_of_application(instance.root),
    )
    ElementTree.fromstring(text)  # noqa: S314 - our own text
    return text


def health(ip: str, port: int) -> str:
    """What the health check of an instance says: UP, DOWN (the application did not start), or nothing if there is no answer."""
    connection = http.client.HTTPConnection(ip, port, timeout=2.0)
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError), contextlib.closing(connection):
        connection.request("GET", HEALTH_PATH, headers={"Connection": "close"})
        answer = connection.getresponse()
        said = json.loads(answer.read(4096))
        return "UP" if answer.status == 200 and said.get("status") == "UP" else "DOWN"
    return ""


def severe_errors(log: pathlib.Path, limit: int) -> list[str]:
    """Tomcat's own SEVERE lines in a log, each with its root cause; what only says that something said before was fatal is left out."""
    try:
        lines = file.read_bounded(log, limit=_LOG_WINDOW).text.splitlines()
    except FileNotFoundError:
        return []
    found: list[str] = []
    followed: list[str] = []
    current = cause = ""
    for line in [*lines, "INFO end"]:
        if not _LEVEL.match(line):
            match = _CAUSE.match(line)
            cause = match["text"] if match and current else cause
            continue
        if current:
            told = f"{current}: {cause}" if cause and cause not in current else current
            (followed if _FOLLOWS.search(current) else found).append(told[:500])
        match = _SEVERE.match(line)
        current, cause = (match["text"] if match else ""), ""
    return list(dict.fromkeys(found or followed))[:limit]


def _of_application(root: pathlib.Path) -> list[str]:
    """The resources that an application declares in its META-INF/context.xml, as elements of ours."""
    path = root / "META-INF" / "context.xml"
    if not path.is_file():
        return []
    try:
        text = file.read_bounded(path, offset=0, limit=_MAX_CONTEXT).text
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise errors.InvalidArgument("The application's META-INF/context.xml declares a document type, which is not supported.")
        top = ElementTree.fromstring(text)  # noqa: S314 - bounded, and without entities
    except ElementTree.ParseError as error:
        raise errors.InvalidArgument(f"The application's META-INF/context.xml is not well-formed: {error}.") from error
    return [ElementTree.tostring(one, encoding="unicode").strip() for one in top if one.tag in _TAKEN_OVER]


_LOGGING: Final = """\
handlers = java.util.logging.ConsoleHandler
.handlers = java.util.logging.ConsoleHandler
.level = INFO
java.util.logging.ConsoleHandler.level = INFO
java.util.logging.ConsoleHandler.formatter = java.util.logging.SimpleFormatter
java.util.logging.ConsoleHandler.encoding = UTF-8
"""
