"""An nginx of this node: where its files lie, who it runs as, how much of the machine it takes."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import Final

from conpaas.core import config, paths, supervisor
from conpaas.services.webservers.agent import ports, web_user
from conpaas.services.webservers.workload import machine, nginx, nginx_config

ROOT: Final = "root"


@dataclasses.dataclass(frozen=True)
class Place:
    """What every nginx of a node is made from."""

    paths: paths.Paths
    config: config.Config
    supervisor: supervisor.Supervisor
    address: str

    @property
    def shared(self) -> bool:
        return ports.is_shared(self.paths)

    @property
    def program(self) -> str:
        return self.config.get("web", "NGINX", "/usr/sbin/nginx")

    def code(self, version: str) -> pathlib.Path:
        """Where a code version lies."""
        return self.paths.cache / "www" / version

    def run(self, name: str) -> pathlib.Path:
        """Where an nginx is started in, and has its socket; only the agent may enter."""
        return self.paths.run / name

    def host(self, name: str) -> nginx_config.Host:
        """The classic names of an nginx's files, and its share of the machine."""
        cache = self.paths.cache
        user = web_user.choose(self.paths, self.config)
        as_root = os.geteuid() == 0
        share = machine.share(shared=self.shared, workers=self.config.get_int("web", "NGINX_WORKERS", 0, minimum=0, maximum=256))
        return nginx_config.Host(
            name=name,
            directory=cache / name,
            socket=f"{name}.sock",
            pid_file=self.paths.run / f"{name}.pid",
            error_log=cache / f"{name}-error.log",
            user_files=cache,
            access_log=cache / f"{name}-access.log",
            timed_log=cache / f"{name}-timed.log",
            user=(user or ROOT) if as_root else None,
            group=web_user.group_of(user or ROOT) if as_root else None,
            workers=share.workers,
            connections=share.connections,
            open_files=share.open_files,
        )

    def nginx(self, name: str) -> nginx.Nginx:
        """The nginx of that name."""
        return nginx.Nginx(
            self.host(name),
            program=self.program,
            configuration=self.paths.cache / f"{name}.conf",
            run=self.run(name),
            notes=self.paths.lib / f"{name}-workers.json",
            watcher=self.supervisor,
        )
