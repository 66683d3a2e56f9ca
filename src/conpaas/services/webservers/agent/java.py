"""Java behind the role of a backend: where a release's Tomcat lies, and which logs it writes."""

from __future__ import annotations

import pathlib
from typing import Final

from conpaas.core import config, errors, file, paths, resources, supervisor
from conpaas.services.webservers.agent import copying, ports, releases, sessions
from conpaas.services.webservers.workload import launch, tomcat

ERRORS_TOLD: Final = 5
_PACKAGE: Final = "conpaas.services.webservers"


class Java:
    """Releases in Java. `catalina.out` is what the newest one's JVM writes, with applications' own output."""

    prefix = "tomcat"

    def __init__(
        self,
        places: paths.Paths,
        configuration: config.Config,
        address: str,
        user: str | None,
        rotating: copying.CopyingRotation,
        supervising: supervisor.Supervisor,
    ) -> None:
        self._home = places.cache / "java"
        self._logs = self._home / "log"
        self._tomcat = tomcat.Tomcat(
            configuration.get("web", "JAVA", "/usr/bin/java"),
            pathlib.Path(configuration.get("web", "CATALINA_HOME", "/usr/share/tomcat10")),
            self._home / "shared",
            resources.find_in_package(_PACKAGE, "resources/java/Stores.java").parent,
        )
        self._address = address
        self._listening = ports.inner_address(address, configuration)
        self._user = user
        self._stores = sessions.stores_file(places)
        self._log_dir = places.log_dir
        self._rotation = rotating
        self._supervisor = supervising

    def prepare(self, instance: releases.Instance, code: pathlib.Path) -> tuple[supervisor.Daemon, releases.Instance]:
        made = self._instance(instance, code)
        if not made.root.is_dir():
            raise errors.NotFound(
                f"The code version {instance.version} has no directory '{instance.settings.document_root}'.",
                hint="change the document root, or upload code that has it",
            )
        if instance.state is releases.State.STARTING and self._supervisor.status(instance.name).state is supervisor.DaemonState.ABSENT:
            file.remove_tree(made.log.parent)  # of a release of the same number, long ago
        self._logs.mkdir(parents=True, exist_ok=True)
        launch.give(self._logs, self._user)
        return self._tomcat.prepare(made), instance

    def rotate_logs(self) -> None:
        self._rotation.cover_directory("java", self._logs, "*.txt", self._user)

    def wait_ready(self, instance: releases.Instance) -> None:
        pid = self._supervisor.status(instance.name).pid

        def alive() -> bool:
            return pid is not None and self._supervisor.status(instance.name).pid == pid

        self._tomcat.wait_ready(self._instance(instance, pathlib.Path()), alive)

    def errors(self, instance: releases.Instance) -> list[str]:
        return tomcat.severe_errors(self._instance(instance, pathlib.Path()).log, ERRORS_TOLD)

    def discard(self, instance: releases.Instance) -> None:
        self._tomcat.keep_classes(self._instance(instance, pathlib.Path()))
        file.remove_tree(self._home / instance.name)

    def log_files(self, newest: releases.Instance | None) -> dict[str, pathlib.Path]:
        found = {"access_log.txt": self._logs / "access_log.txt"}
        if newest is not None:
            found["catalina.out"] = self._log_dir / newest.name / "current"
        return found

    def _instance(self, instance: releases.Instance, code: pathlib.Path) -> tomcat.Instance:
        return tomcat.Instance(
            name=instance.name,
            base=self._home / instance.name,
            ip=self._listening,
            node_ip=self._address,
            port=instance.port,
            root=code / instance.settings.document_root,
            settings=instance.settings,
            stores=self._stores,
            access_log=self._logs / "access_log.txt",
            log=self._log_dir / instance.name / "current",
            user=self._user,
        )
