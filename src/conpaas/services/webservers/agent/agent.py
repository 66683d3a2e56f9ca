"""The agent of a web hosting service: maps RPCs to the roles of its node."""

from __future__ import annotations

import pathlib
from typing import Any, Final

from conpaas.core import agent, config, errors, expose, file, params
from conpaas.services.webservers import spec
from conpaas.services.webservers.agent import backend, code, cron, proxy, sessions, static, web_user

SECTION: Final = "web"
PLACES: Final = 7
"""Daemons that a node begins to run in quick succession: what a packed node has, and the next release."""

_VERSION = params.Param("codeVersionId", params.Text(max_length=80, non_empty=True), help="Id of a code version.")
_CODE = (
    params.Param("filetype", params.Choice(("zip", "tar", "git")), "tar", help="What the file is; recognised by its content anyway."),
    _VERSION,
    params.Param("file", params.Upload(), None, help="The archive."),
    params.Param("revision", params.Text(max_length=64), None, help="Ignored: a git revision travels as an archive."),
    params.Param("time", params.Integer(minimum=0), 0, help="When the version was made, in seconds since 1970: the age of all its files."),
)
_RELEASE = params.Param("release", params.Integer(minimum=0), help="Number of a release.")
_SETTINGS = params.Param("settings", params.Mapping(), help="How the release is started (`spec.BackendSettings`).")
_KEEP = params.Param("keep", params.ListOf(params.Integer(minimum=0)), (), help="Releases that go on; all others end.")
_CONFIGURATION = params.Param("configuration", params.Mapping(), help="All that the proxy needs (`spec.ProxyConfig`).")
_STATIC = (
    params.Param("code_versions", params.ListOf(params.Text(max_length=80)), help="The code versions to serve."),
    params.Param("site", params.Mapping(), help="How to serve them (`spec.SiteSettings`)."),
)
_SECRET = params.Param("secret", params.Text(max_length=200, non_empty=True), help="What opens the session stores of the service.")


class WebAgent(agent.BaseAgent):
    """One node of a web hosting service. What it was told last goes on over its own death and over a reboot of its VM."""

    def __init__(self, configuration: config.Config) -> None:
        super().__init__(configuration)
        notes = file.Notes(self.paths.lib / "web.json")
        where = (self.paths, configuration, self.supervisor, self.my_ip, notes)
        self._code = code.CodeStore(self.paths, web_user.choose(self.paths, configuration))
        self._backend = backend.BackendRole(*where)
        self._static = static.StaticRole(*where)
        self._proxy = proxy.ProxyRole(*where)
        self._sessions = sessions.SessionRole(*where)
        self._cron = cron.CronRole(*where)
        self.supervisor.reserve(PLACES)

    def start_up(self) -> None:
        """Go on with what was under way when the agent died."""
        for role in (self._sessions, self._backend, self._static, self._proxy, self._cron):
            role.resume()

    def close(self) -> None:
        for role in (self._backend, self._proxy):
            role.close()

    def log_files(self) -> dict[str, pathlib.Path]:
        found = super().log_files()
        for role in (self._proxy, self._static, self._backend, self._cron):
            found |= role.log_files()
        return found

    # Code

    @expose.expose("GET")
    def list_code(self) -> dict[str, Any]:
        """List the code versions on this node."""
        return {"versions": self._code.list()}

    @expose.expose("UPLOAD", *_CODE)
    def updatePHPCode(self, filetype: str, code_version_id: str, file: params.UploadedFile | None, revision: str | None, time: int) -> None:
        """Unpack a code version beside the others."""
        if file is None:
            raise errors.InvalidArgument(f"The '{filetype}' filetype requires an uploaded file")
        self._code.stage(spec.check_version(code_version_id), file.path, time)

    @expose.expose("UPLOAD", *_CODE)
    def updateTomcatCode(
        self, filetype: str, code_version_id: str, file: params.UploadedFile | None, revision: str | None, time: int
    ) -> None:
        """The same as updatePHPCode."""
        self.updatePHPCode(filetype, code_version_id, file, revision, time)

    @expose.expose("POST", params.Param("versions", params.ListOf(params.Text(max_length=80)), help="The versions that stay."))
    def keep_code(self, versions: list[str]) -> None:
        """Remove all code versions but these."""
        self._code.keep([spec.check_version(one) for one in versions])

    # Backends

    @expose.expose("POST", _RELEASE, _VERSION, _SETTINGS)
    def createPHP(self, release: int, code_version_id: str, settings: dict[str, Any]) -> dict[str, Any]:
        """Have a release run beside those that run; answers its port once it works."""
        return self._start_backend(spec.PHP, release, code_version_id, settings)

    @expose.expose("POST", _RELEASE, _VERSION, _SETTINGS)
    def updatePHP(self, release: int, code_version_id: str, settings: dict[str, Any]) -> dict[str, Any]:
        """The same as createPHP: new settings are a new release."""
        return self._start_backend(spec.PHP, release, code_version_id, settings)

    @expose.expose("POST", _RELEASE, _VERSION, _SETTINGS)
    def createTomcat(self, release: int, code_version_id: str, settings: dict[str, Any]) -> dict[str, Any]:
        """Have a release run beside those that run; answers its port once it works."""
        return self._start_backend(spec.JAVA, release, code_version_id, settings)

    def _start_backend(self, kind: str, release: int, version_id: str, settings: dict[str, Any]) -> dict[str, Any]:
        wanted = spec.BackendSettings.from_dict(settings)
        if wanted.kind != kind:
            raise errors.InvalidArgument(f"These are settings of a backend of kind {wanted.kind}, not {kind}.")
        return {"port": self._backend.start(release, spec.check_version(version_id), wanted)}

    @expose.expose("POST", _KEEP)
    def stopPHP(self, keep: list[int]) -> None:
        """Let all releases but these finish their requests and end."""
        self._backend.keep(keep)

    @expose.expose("POST", _KEEP)
    def stopTomcat(self, keep: list[int]) -> None:
        """Let all releases but these finish their requests and end."""
        self._backend.keep(keep)

    @expose.expose("GET")
    def getPHPState(self) -> dict[str, Any]:
        """Tell which releases run, and where."""
        return {"return": self._backend.state()}

    @expose.expose("GET")
    def getTomcatState(self) -> dict[str, Any]:
        """Tell which releases run, and where."""
        return {"return": self._backend.state()}

    @expose.expose("GET", _RELEASE)
    def get_release_errors(self, release: int) -> dict[str, Any]:
        """List the fatal errors that a release has logged since its start."""
        return {"errors": self._backend.errors(release)}

    # Static web servers

    @expose.expose("POST", *_STATIC)
    def createWebServer(self, code_versions: list[str], site: dict[str, Any]) -> dict[str, Any]:
        """Serve the static files of these code versions; answers the port."""
        return {"port": self._static.configure([spec.check_version(one) for one in code_versions], spec.SiteSettings.from_dict(site))}

    @expose.expose("POST", *_STATIC)
    def updateWebServer(self, code_versions: list[str], site: dict[str, Any]) -> dict[str, Any]:
        """The same as createWebServer."""
        return self.createWebServer(code_versions, site)

    @expose.expose("POST")
    def stopWebServer(self) -> None:
        """Let the static web server finish its requests and end."""
        self._static.stop()

    @expose.expose("GET")
    def getWebServerState(self) -> dict[str, Any]:
        """Tell what the static web server does."""
        return {"return": self._static.state()}

    # Proxies

    @expose.expose("POST", _CONFIGURATION)
    def createHttpProxy(self, configuration: dict[str, Any]) -> dict[str, Any]:
        """Have the proxy work with a configuration; answers its ports once new requests are served by it."""
        return self._proxy.configure(spec.ProxyConfig.from_dict(configuration))

    @expose.expose("POST", _CONFIGURATION)
    def updateHttpProxy(self, configuration: dict[str, Any]) -> dict[str, Any]:
        """The same as createHttpProxy."""
        return self.createHttpProxy(configuration)

    @expose.expose("POST")
    def stopHttpProxy(self) -> None:
        """Let the proxy finish its requests and end."""
        self._proxy.stop()

    @expose.expose("GET")
    def getHttpProxyState(self) -> dict[str, Any]:
        """Tell which configuration is in force, and the oldest one that still has requests under way."""
        return {"return": self._proxy.state()}

    @expose.expose(
        "POST",
        _CONFIGURATION,
        params.Param("path", params.Text(max_length=1024), help="The path to ask for."),
        params.Param("seconds", params.Integer(minimum=1, maximum=300), 10, help="How long an answer may take."),
    )
    def check_site(self, configuration: dict[str, Any], path: str, seconds: int) -> dict[str, Any]:
        """Ask every server of a configuration for a path, aside from the proxy that serves."""
        wanted = spec.ProxyConfig.from_dict(configuration)
        return {"answers": self._proxy.check_site(wanted, spec.check_path("path", path), seconds)}

    @expose.expose(
        "GET",
        params.Param("role", params.Choice((spec.PROXY, spec.WEB)), spec.PROXY, help="Who measured: the proxy, or the static web server."),
        params.Param("window", params.Integer(minimum=1, maximum=3600), 60, help="Seconds to look back."),
    )
    def get_performance(self, role: str, window: int) -> dict[str, Any]:
        """Tell what was measured: request and error rates, throughput, response times."""
        measuring = self._proxy if role == spec.PROXY else self._static
        return measuring.performance(window)

    # Sessions

    @expose.expose("POST", _SECRET, params.Param("source", params.Mapping(), None, help="A store, `ip` and `port`, to take over."))
    def start_session_store(self, secret: str, source: dict[str, Any] | None) -> dict[str, Any]:
        """Have a session store run, with all that is in `source`; answers its address."""
        return self._sessions.start_store(secret, source)

    @expose.expose("POST", _SECRET, params.Param("stores", params.ListOf(params.Mapping()), help="All stores, `ip` and `port` each."))
    def use_session_stores(self, secret: str, stores: list[dict[str, Any]]) -> None:
        """Keep sessions in all of these stores from now on."""
        self._sessions.use_stores(secret, stores)

    @expose.expose("POST")
    def stop_session_store(self) -> None:
        """End the session store of this node and forget what is in it."""
        self._sessions.stop_store()

    # Cron

    @expose.expose("POST", params.Param("entries", params.ListOf(params.Mapping()), help="All entries, `schedule` and `command` each."))
    def set_cron(self, entries: list[dict[str, Any]]) -> None:
        """Run exactly these entries on this node."""
        self._cron.set([spec.CronEntry.from_dict(one) for one in entries])
