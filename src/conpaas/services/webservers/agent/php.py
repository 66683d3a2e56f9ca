"""PHP behind the role of a backend: where a release's files lie, and which logs it writes."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import pathlib
from collections.abc import Mapping
from typing import Final

from conpaas.core import config, errors, file, paths, resources, supervisor
from conpaas.services.webservers.agent import beside, copying, ports, releases, sessions
from conpaas.services.webservers.workload import launch, phpfpm

log: Final = logging.getLogger(__name__)
ERRORS_TOLD: Final = 5
_LOG_CARRIED_OVER: Final = 256_000


class Php:
    """Releases in PHP. Each logs its errors to a file of its own, so that they can be told apart; `php-error.log` is the newest one's.

    A release's log begins with the end of the one before, so that who follows the log sees it go on.
    """

    prefix = "php-fpm"

    def __init__(
        self, places: paths.Paths, configuration: config.Config, address: str, user: str | None, rotating: copying.CopyingRotation
    ) -> None:
        self._fpm = phpfpm.PhpFpm(configuration.get("web", "PHP_FPM", "/usr/sbin/php-fpm8.2"))
        self._address = address
        self._listening = ports.inner_address(address, configuration)
        self._user = user
        self._code = places.cache / "www"
        self._places = places
        self._home = places.cache / "php"
        self._logs = self._home / "log"
        self._rotation = rotating
        self._temporary = places.tmp / "php"
        self._stores = sessions.stores_file(places)

    def prepare(self, instance: releases.Instance, code: pathlib.Path) -> tuple[supervisor.Daemon, releases.Instance]:
        pool = self._pool(instance, code)
        if not pool.root.is_dir():
            raise errors.NotFound(
                f"The code version {instance.version} has no directory '{instance.settings.document_root}'.",
                hint="change the document root, or upload code that has it",
            )
        self._logs.mkdir(parents=True, exist_ok=True)
        launch.give(self._logs, self._user)  # PHP begins a new file there when one was put aside
        if instance.state is releases.State.STARTING:
            instance = dataclasses.replace(instance, log_offset=self._begin_log(pool.php_error_log))
        self._install()
        return self._fpm.prepare(pool), instance

    def rotate_logs(self) -> None:
        self._rotation.cover_directory("php", self._logs, "*.log", self._user)

    def wait_ready(self, instance: releases.Instance) -> None:
        self._fpm.wait_ready(self._pool(instance, pathlib.Path()))

    def errors(self, instance: releases.Instance) -> list[str]:
        code = self._code / instance.version
        return phpfpm.fatal_errors(self._error_log(instance.name), instance.log_offset, code, ERRORS_TOLD)

    def discard(self, instance: releases.Instance) -> None:
        file.remove_tree(self._home / instance.name)
        if (socket := beside.socket(self._places, instance.port)) is not None:
            socket.unlink(missing_ok=True)
        log = self._error_log(instance.name)
        if self._newest_log(log) is not None:  # the last log stays for who wants to know why all is gone
            for part in self._logs.glob(f"{log.name}*"):
                part.unlink(missing_ok=True)

    def log_files(self, newest: releases.Instance | None) -> dict[str, pathlib.Path]:
        found = {name: self._logs / name for name in ("fpm-access.log", "fpm-error.log")}
        if newest is not None:
            found["php-error.log"] = self._error_log(newest.name)
        return found

    def _pool(self, instance: releases.Instance, code: pathlib.Path) -> phpfpm.Pool:
        return phpfpm.Pool(
            name=instance.name,
            directory=self._home / instance.name,
            ip=self._listening,
            node_ip=self._address,
            port=instance.port,
            root=code / instance.settings.document_root,
            settings=instance.settings,
            access_log=self._logs / "fpm-access.log",
            error_log=self._logs / "fpm-error.log",
            php_error_log=self._error_log(instance.name),
            temporary=self._temporary,
            prepend=self._prepend(),
            preload=self._sessions(),
            user=self._user,
            socket=beside.socket(self._places, instance.port),
        )

    def _error_log(self, name: str) -> pathlib.Path:
        return self._logs / f"{name}.php-error.log"

    def _begin_log(self, log: pathlib.Path) -> int:
        """Begin a release's log with the end of the newest one; returns where its own part begins."""
        if log.is_symlink() or not log.exists():
            former = self._newest_log(log)
            file.write_atomically(log, _end_of(former) if former else "")
        return log.lstat().st_size

    def _newest_log(self, but: pathlib.Path) -> pathlib.Path | None:
        """Links are none: the directory is the site's own, and a link may lead to what the site may not read."""
        logs = [log for log in self._logs.glob("*.php-error.log") if log != but and not log.is_symlink()]
        return max(logs, key=lambda log: log.lstat().st_mtime, default=None)

    # The session handler's files have names that change with their content: code that runs never changes under a release.

    def _prepend(self) -> pathlib.Path:
        return self._home / _name("begin", self._begin())

    def _sessions(self) -> pathlib.Path:
        return self._home / _name("sessions", self._handler())

    def _install(self) -> None:
        for path, content in ((self._sessions(), self._handler()), (self._prepend(), self._begin())):
            if not path.exists():
                file.write_atomically(path, content)

    def _handler(self) -> bytes:
        return _filled("sessions.php", {"@STORES@": self._stores, "@MARKS@": self._temporary})

    def _begin(self) -> bytes:
        return _filled("begin.php", {"@SESSIONS@": self._sessions()})


def _end_of(former: pathlib.Path) -> str:
    """What a log ends with; nothing if it is none any more."""
    try:
        return file.read_bounded(former, limit=_LOG_CARRIED_OVER, follow=False).text
    except OSError as error:
        log.warning("the log of a new release begins empty: %s", error)
        return ""


def _name(stem: str, content: bytes) -> str:
    return f"{stem}-{hashlib.sha256(content).hexdigest()[:12]}.php"


def _filled(resource: str, places: Mapping[str, pathlib.Path]) -> bytes:
    """Our own PHP code with the agent's own paths in it, which stand in single quotes."""
    text = resources.find_in_package("conpaas.services.webservers", f"resources/{resource}").read_text(encoding="utf-8")
    for mark, path in places.items():
        text = text.replace(mark, str(path).replace("\\", "\\\\").replace("'", "\\'"))
    return text.encode()
