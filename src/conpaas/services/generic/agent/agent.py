"""The agent of the generic service: maps RPCs to the code, the scripts and the volumes of its node."""

from __future__ import annotations

import pathlib
import threading
from typing import Any

from conpaas.core import agent, config, errors, expose, file, mounts, params
from conpaas.services.generic import scripts
from conpaas.services.generic.agent import launcher, membership, runs, versions

_CODE_PARAMS = (
    params.Param("codeVersionId", params.Text(max_length=80, non_empty=True), help="Id of the code version."),
    params.Param(
        "activation", params.Text(pattern=r"[A-Za-z0-9][A-Za-z0-9-]{0,63}"), help="Id of this activation; asked again, it is the same."
    ),
)
_TIME_LIMIT = params.Param("timeLimit", params.Integer(minimum=0), None, help="Seconds the script may take; 0: no limit.")
_AGENTS_INFO = params.Param("agents_info", params.Text(max_length=4_000_000), help="JSON list of all agents, as in agents.json.")
_VARIABLES = params.Param("variables", params.Mapping(params.Text()), None, help="What other services give; none: as before.")
_RUN = params.Param("run", params.Text(max_length=80), None, help="Id of the run.")
_MAX_WAIT = 30


class GenericAgent(agent.BaseAgent):
    """One node of a generic service. Scripts run as the user of the agent; nothing of them depends on the life of the agent."""

    def __init__(self, configuration: config.Config) -> None:
        super().__init__(configuration)
        notes = file.Notes(self.paths.lib / "generic.json")
        self._notes = notes
        self._activating = threading.Lock()
        self._code = versions.CodeVersions(self.paths.cache)
        self._members = membership.Membership(self.paths.cache / "agents.json", notes)
        self._launcher = launcher.Launcher(self.paths, self._code, self._members, notes, launcher.Settings.from_config(configuration))
        self._volumes = mounts.Mounts(self.paths.root, self.paths.media, notes)

    def start_up(self) -> None:
        """Mount the volumes again after a reboot, and start the scripts that were promised and not started."""
        self._volumes.restore()
        self._launcher.resume()

    def log_files(self) -> dict[str, pathlib.Path]:
        """The agent's own log and the output of all scripts."""
        logs = self._launcher.log_files
        return {**super().log_files(), "agent.out": logs["stdout"], "agent.err": logs["stderr"]}

    @expose.expose("POST", _AGENTS_INFO, params.Param("ip", params.Text(max_length=64), help="Address of this node."))
    def init_agent(self, agents_info: str, ip: str) -> None:
        """Tell the node its address and who is in the service."""
        self._members.join(agents_info, ip)

    @expose.expose("UPLOAD", *_CODE_PARAMS, params.Param("file", params.Upload(), help="The archive."))
    def stage_code(self, code_version_id: str, activation: str, file: params.UploadedFile) -> None:
        """Unpack a code version beside the active one."""
        self._code.stage(activation, file.path)
        self.log.info("code version %s is staged as %s", code_version_id, activation)

    @expose.expose("POST", *_CODE_PARAMS, _VARIABLES, _TIME_LIMIT)
    def activate_code(
        self, code_version_id: str, activation: str, variables: dict[str, str] | None, time_limit: int | None
    ) -> dict[str, Any]:
        """End all scripts, make the staged code the active one and start its init.sh; answers its run, null if the code has none."""
        self._members.give(variables)
        with self._activating:
            if self._notes.get("activation") != activation:
                if not self._code.is_staged(activation):
                    raise errors.NotFound(f"The code version {code_version_id} is not staged on this node.")
                self._launcher.end_all("another code version was activated")
                self._code.activate(activation)
                self._notes.set(activation=activation, code_version=code_version_id)
            request = launcher.Request.make(scripts.Script.INIT, run=f"init-{activation}", time_limit=time_limit)
            run = self._launcher.start(request)
        return {"run": run.id if run else None}

    @expose.expose(
        "UPLOAD",
        params.Param("filetype", params.Choice(("zip", "tar", "git")), help="What the file is; recognised by its content anyway."),
        *_CODE_PARAMS[:1],
        params.Param("activation", _CODE_PARAMS[1].type, None, help="Id of this activation."),
        params.Param("file", params.Upload(), None, help="The archive."),
        params.Param("revision", params.Text(max_length=64), None, help="Ignored: a git revision travels as an archive."),
    )
    def update_code(
        self, filetype: str, code_version_id: str, activation: str | None, file: params.UploadedFile | None, revision: str | None
    ) -> dict[str, Any]:
        """Unpack a code version, make it the active one and start its init.sh."""
        if file is None:
            raise errors.InvalidArgument(f"The '{filetype}' filetype requires an uploaded file")
        activation = activation or launcher.new_activation()
        self.stage_code(code_version_id, activation, file)
        return self.activate_code(code_version_id, activation, None, None)

    @expose.expose(
        "POST",
        params.Param("command", params.Choice(("notify", "run", "interrupt", "cleanup")), help="Which script."),
        params.Param("parameters", params.Text(), "", help="Arguments, split as a shell would."),
        _AGENTS_INFO,
        _VARIABLES,
        _RUN,
        _TIME_LIMIT,
    )
    def execute_script(
        self,
        command: str,
        parameters: str,
        agents_info: str,
        variables: dict[str, str] | None,
        run: str | None,
        time_limit: int | None,
    ) -> dict[str, Any]:
        """Start a script (notify: as soon as it may). Answers its run, null if the code has no such script, and the runs it ends."""
        script = scripts.Script(command)
        arguments = () if script is scripts.Script.NOTIFY else scripts.split(parameters)
        self._members.update(agents_info)
        self._members.give(variables)
        request = launcher.Request.make(script, run=run, time_limit=time_limit, parameters=parameters, arguments=arguments)
        ends: list[str] = []
        if script is scripts.Script.NOTIFY:
            started = self._launcher.notify(request)
        elif script is scripts.Script.INTERRUPT:
            started, ends = self._launcher.interrupt(request)
        else:
            started = self._launcher.start(request)
        self.log.info("%s: run %s", script.filename, started.id if started else "not started")
        return {"run": started.id if started else None, "ends": ends}

    @expose.expose("GET")
    def get_script_status(self) -> dict[str, Any]:
        """What each script does, or did last, and whether anything lives that interrupt could end."""
        return {"scripts": self._launcher.statuses(), "alive": bool(self._launcher.store.alive())}

    @expose.expose("GET", params.Param("limit", params.Integer(minimum=1, maximum=1000), 50, help="At most so many runs."))
    def list_runs(self, limit: int) -> dict[str, Any]:
        """The runs this node remembers, newest first."""
        return {"runs": [run.describe() for run in reversed(self._launcher.store.all()[-limit:])]}

    @expose.expose(
        "GET",
        params.Param("run", params.Text(max_length=80), help="Id of the run."),
        params.Param("wait", params.Integer(minimum=0, maximum=_MAX_WAIT), 0, help="Seconds to wait for its end."),
    )
    def get_run(self, run: str, wait: int) -> dict[str, Any]:
        """One run; with `wait`, as soon as it has ended."""
        found = self._launcher.find(run)
        launcher.wait_ended(found, wait)
        return {"run": found.describe()}

    @expose.expose(
        "GET",
        _RUN,
        params.Param("script", params.Choice(tuple(script.filename for script in scripts.Script)), None, help="Without run: its last run."),
        params.Param("stream", params.Choice(runs.STREAMS), "stdout", help="Which output."),
        params.Param("offset", params.Integer(minimum=0), 0, help="First byte."),
        params.Param("limit", params.Integer(minimum=1, maximum=4_000_000), 1_000_000, help="At most so many bytes."),
    )
    def get_script_output(self, run: str | None, script: str | None, stream: str, offset: int, limit: int) -> dict[str, Any]:
        """Part of what a run wrote; `offset` in the answer is where to go on."""
        found = self._launcher.find(run, script)
        ended = not found.running and not found.queued
        try:
            part = file.read_bounded(found.directory / stream, offset=offset, limit=limit)
        except FileNotFoundError:
            part = file.Excerpt("", 0, 0)
        return {"run": found.id, "output": part.text, "offset": part.offset, "size": part.size, "ended": ended}

    @expose.expose("POST")
    def end_scripts(self) -> None:
        """End every process that scripts left on this node, in order (TERM, grace, KILL)."""
        self._launcher.end_all("the node leaves the service")

    @expose.expose(
        "POST",
        params.Param("dev_name", params.Text(max_length=32), help="Name of the device, without /dev/."),
        params.Param("vol_name", params.Text(max_length=128), help="Name of the volume."),
    )
    def mount_volume(self, dev_name: str, vol_name: str) -> None:
        """Mount a volume; a file system is made only where there is none."""
        self._volumes.mount(dev_name, vol_name)

    @expose.expose("POST", params.Param("vol_name", params.Text(max_length=128), help="Name of the volume."))
    def unmount_volume(self, vol_name: str) -> None:
        """Unmount a volume. Scripts that use it are ended; other users are named in the error."""
        users = self._volumes.users(vol_name)
        of_scripts = {pid for run in self._launcher.store.alive() for pid in run.processes()}
        if users and users.keys() <= of_scripts:
            self._launcher.end_all("its volume is unmounted")
        self._volumes.unmount(vol_name)
