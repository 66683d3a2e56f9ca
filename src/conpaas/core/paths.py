"""Where things lie on a VM. Every path comes from the configuration, so that the same code runs as root in a VM
of its own and under a private directory on a laptop."""

from __future__ import annotations

import dataclasses
import pathlib

from conpaas.core import config as configuration

REQUIRED = ("LOG_FILE", "ETC", "VAR_TMP", "VAR_CACHE", "VAR_RUN")


@dataclasses.dataclass(frozen=True)
class Paths:
    """All directories of one VM. `root` is the VM's `/`: a private directory where VMs are directories."""

    root: pathlib.Path
    etc: pathlib.Path
    certs: pathlib.Path
    log_file: pathlib.Path
    tmp: pathlib.Path
    cache: pathlib.Path
    run: pathlib.Path
    lib: pathlib.Path
    home: pathlib.Path
    service: pathlib.Path
    media: pathlib.Path

    @property
    def log_dir(self) -> pathlib.Path:
        """Directory of all logs of this VM."""
        return self.log_file.parent

    @property
    def scratch(self) -> pathlib.Path:
        """Where boot scripts leave what agents report, such as the outcome of the user's startup script."""
        return self.root / "root"

    @classmethod
    def from_config(cls, config: configuration.Config, *, section: str | None = None) -> Paths:
        """Reads the paths from the main section; what is absent follows from what is there, as on a standard VM."""
        main = section or config.main
        config.require(main, REQUIRED)
        root = config.get_path(main, "ROOT", pathlib.Path("/"))
        etc = config.get_path(main, "ETC")
        cache = config.get_path(main, "VAR_CACHE")
        return cls(
            root=root,
            etc=etc,
            certs=config.get_path(main, "CERT_DIR", etc / "certs"),
            log_file=config.get_path(main, "LOG_FILE"),
            tmp=config.get_path(main, "VAR_TMP"),
            cache=cache,
            run=config.get_path(main, "VAR_RUN"),
            lib=config.get_path(main, "VAR_LIB", cache.parent.parent / "lib" / cache.name),
            home=config.get_path(main, "CONPAAS_HOME", root / "root" / "ConPaaS"),
            service=config.get_path(main, "SERVICE_DIR", root / "service"),
            media=config.get_path(main, "MEDIA", root / "media"),
        )

    @classmethod
    def under(cls, root: pathlib.Path, *, daemon: str = "cpsagent") -> Paths:
        """The standard layout below `root` for `daemon` (`cpsagent` or `cpsmanager`)."""
        var = root / "var"
        return cls(
            root=root,
            etc=root / "etc" / daemon,
            certs=root / "etc" / daemon / "certs",
            log_file=var / "log" / f"{daemon}.log",
            tmp=var / "tmp" / daemon,
            cache=var / "cache" / daemon,
            run=var / "run" / daemon,
            lib=var / "lib" / daemon,
            home=root / "root" / "ConPaaS",
            service=root / "service",
            media=root / "media",
        )

    def create(self) -> None:
        """Creates the directories that a daemon writes to; private ones are closed to other users. Idempotent."""
        for directory in (self.etc, self.tmp, self.cache, self.run, self.log_dir, self.service):
            directory.mkdir(parents=True, exist_ok=True)
        for private in (self.certs, self.lib):
            private.mkdir(parents=True, exist_ok=True, mode=0o700)

    def to_config(self) -> dict[str, str]:
        """The keys of a `[vm]` section that describe these paths."""
        return {
            "ROOT": str(self.root),
            "ETC": str(self.etc),
            "CERT_DIR": str(self.certs),
            "LOG_FILE": str(self.log_file),
            "VAR_TMP": str(self.tmp),
            "VAR_CACHE": str(self.cache),
            "VAR_RUN": str(self.run),
            "VAR_LIB": str(self.lib),
            "CONPAAS_HOME": str(self.home),
            "SERVICE_DIR": str(self.service),
            "MEDIA": str(self.media),
        }
