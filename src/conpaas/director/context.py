"""Composing user-data: the one text that turns a bare VM into a manager or an agent.

It is put together from run-time files, in this order: `scripts/cloud/<driver>`, `scripts/<role>/<role>-setup`, and the start script
(`<type>-agent-start` where a service type has one). These are bash with Jinja2 placeholders `{{ NAME|sh }}`: an unknown name is an error,
and every value is quoted for the place it lands in. The daemon's configuration (`config/<role>/default-<role>.cfg`, for agents
followed by the service type's own) uses the classic `$NAME`; it is rendered once and never expanded again, neither here nor in the VM.
"""

from __future__ import annotations

import base64
import gzip
import pathlib
import shlex
import string
import textwrap
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, Final

import jinja2

import conpaas
from conpaas.core import errors, resources
from conpaas.core import services as service_registry
from conpaas.director import inventory

LIMIT: Final = 16 * 1024
"""Bytes of user-data that every cloud takes."""


def sh(value: object) -> str:
    """A value as one word of bash."""
    return shlex.quote(str(value))


def ini(value: object) -> str:
    """A value as the text of one key of an INI file; what could begin a new line is refused."""
    text = str(value)
    if any(unicodedata.category(letter) in {"Cc", "Zl", "Zp", "Cs"} for letter in text):
        raise errors.InvalidArgument("A value for a configuration file may not hold line breaks or control characters.")
    return text


def environment(read: Callable[[str], str] = resources.read) -> jinja2.Environment:
    """The strict template environment: unknown names fail, nothing is escaped behind the author's back. `read` finds included files."""
    made = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FunctionLoader(read),
        autoescape=False,  # noqa: S701 - the result is bash; the filter `sh` quotes
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        # `{#` is bash for the length of an array or a text.
        comment_start_string="{##",
        comment_end_string="##}",
    )
    made.filters.update(sh=sh, ini=ini)
    return made


def startup_timeout(node_timeout: int) -> int:
    """Seconds that a startup script may take on a VM that has `node_timeout` seconds to become ready: what leaves time for the rest."""
    return max(node_timeout // 2, node_timeout - 60)


class Composer:
    """Composes user-data for one deployment. Functions given to it are asked anew for every VM."""

    def __init__(
        self,
        *,
        director_url: str,
        deployment: str,
        ca_pem: Callable[[], str],
        code_sha256: Callable[[], str],
        manager_port: int = 443,
        agent_port: int = 5555,
        allow_frontend: bool = False,
        startup_timeout: int = 240,
        conf_dir: pathlib.Path | None = None,
        registry: service_registry.Registry = service_registry.registry,
        limit: int = LIMIT,
    ) -> None:
        self._director_url = director_url
        self._deployment = deployment
        self._ca_pem = ca_pem
        self._code_sha256 = code_sha256
        self._ports = {"MANAGER_PORT": manager_port, "AGENT_PORT": agent_port}
        self._allow_frontend = "yes" if allow_frontend else "no"
        self._startup_timeout = startup_timeout
        self._conf_dir = conf_dir
        self._registry = registry
        self._limit = limit
        self._environment = environment(self._read)

    def manager(self, *, driver: str, user_id: int, app_id: int, token: str) -> str:
        """The user-data of an application's manager."""
        names = self._names(user_id, app_id)
        variables = {**self._common(token, names), "AGENT_TYPE": "", "STARTUP_SCRIPT": "", "MANAGER_IP": ""}
        template, start = "config/manager/default-manager.cfg", "scripts/manager/default-manager-start"
        config = self._config([(template, self._read(template))], names)
        return self._compose(inventory.MANAGER, driver, (start, self._read(start)), {**variables, "CONFIG": config})

    def agent(
        self,
        *,
        driver: str,
        user_id: int,
        app_id: int,
        service_id: int,
        agent_type: str,
        manager_ip: str,
        token: str,
        values: Mapping[str, str],
        startup_script: str = "",
    ) -> str:
        """The user-data of one agent. `values` are the service manager's own, for the `$NAME`s of its agents' configuration."""
        own = {"AGENT_TYPE": agent_type, "SERVICE_ID": str(service_id), "MANAGER_IP": manager_ip}
        names = {**self._names(user_id, app_id), **own, "CONPAAS_SERVICE_ID": str(service_id)}
        overlap = sorted(set(names) & set(values))
        if overlap:
            raise errors.InvalidArgument(f"The context value '{overlap[0]}' is set by the Director and can't be given by a service.")
        variables = {**self._common(token, names), **own, "STARTUP_SCRIPT": startup_script}
        config = self._config(self._agent_templates(agent_type), {**names, **values})
        return self._compose(inventory.AGENT, driver, self._agent_start(agent_type), {**variables, "CONFIG": config})

    # Values

    def _names(self, user_id: int, app_id: int) -> dict[str, str]:
        """What configuration templates may use, under the classic names and the present ones."""
        plain = {"USER_ID": str(user_id), "APP_ID": str(app_id), "DEPLOYMENT_NAME": self._deployment}
        classic = {f"CONPAAS_{name}": value for name, value in plain.items()}
        ports = {name: str(port) for name, port in self._ports.items()}
        return {**plain, **classic, **ports, "DIRECTOR_URL": self._director_url, "ALLOW_FRONTEND": self._allow_frontend}

    def _common(self, token: str, names: Mapping[str, str]) -> dict[str, Any]:
        return {
            **names,
            **self._ports,
            "SERVICE_ID": names.get("SERVICE_ID", "0"),
            "CA_PEM": self._ca_pem(),
            "TOKEN": token,
            "CODE_SHA256": self._code_sha256(),
            "CODE_VERSION": conpaas.__version__,
            "STARTUP_TIMEOUT": str(self._startup_timeout),
        }

    # Files

    def _read(self, name: str) -> str:
        """A run-time file: the operator's own in CONF_DIR if there is one, else the installed one."""
        if self._conf_dir is not None:
            own = self._conf_dir / name
            if own.is_file():
                return own.read_text(encoding="utf-8")
        return resources.read(name)

    def _exists(self, name: str) -> bool:
        try:
            self._read(name)
        except errors.NotFound:
            return False
        return True

    def _service(self, agent_type: str) -> service_registry.ServiceType | None:
        try:
            return self._registry.by_agent_type(agent_type)
        except errors.NotFound:
            return None

    def _agent_templates(self, agent_type: str) -> list[tuple[str, str]]:
        """The templates of an agent's configuration, by name: everybody's, then the service type's own if it has one."""
        default = "config/agent/default-agent.cfg"
        found = [(default, self._read(default))]
        own = f"config/agent/{agent_type}-agent.cfg"
        service = self._service(agent_type)
        if self._exists(own):
            found.append((own, self._read(own)))
        elif service is not None and service.agent_config:
            path = resources.find_in_package(service.package, service.agent_config)
            found.append((f"{service.package}/{service.agent_config}", path.read_text(encoding="utf-8")))
        return found

    def _agent_start(self, agent_type: str) -> tuple[str, str]:
        """The start script by name: the service type's own (of the installation, or of its package), else everybody's."""
        own, default = f"{agent_type}-agent-start", "scripts/agent/default-agent-start"
        if self._exists(f"scripts/agent/{own}"):
            return own, self._read(f"scripts/agent/{own}")
        service = self._service(agent_type)
        try:
            if service is not None and service.package:
                return f"{service.package}/{own}", resources.find_in_package(service.package, own).read_text(encoding="utf-8")
        except errors.NotFound:
            return default, self._read(default)
        return default, self._read(default)

    def _config(self, templates: list[tuple[str, str]], names: Mapping[str, str]) -> str:
        checked = {name: _config_value(name, value) for name, value in names.items()}
        rendered = []
        for name, text in templates:
            try:
                rendered.append(string.Template(text).substitute(checked))
            except KeyError as error:
                raise errors.ConfigurationError(f"{name} needs a value for ${error.args[0]}, which nobody gives.") from error
            except ValueError as error:
                raise errors.ConfigurationError(f"{name} is not a template: {error}.") from error
        return "\n".join(text.rstrip("\n") + "\n" for text in rendered)

    # Putting together

    def _compose(self, role: str, driver: str, start: tuple[str, str], variables: Mapping[str, Any]) -> str:
        pieces = [(name, self._read(name)) for name in (f"scripts/cloud/{driver}", f"scripts/{role}/{role}-setup")]
        texts = ["#!/bin/bash\n", *(self._render(name, text, variables) for name, text in (*pieces, start))]
        return pack("".join(texts), self._limit, {name: len(str(value)) for name, value in variables.items()})

    def _render(self, name: str, text: str, variables: Mapping[str, Any]) -> str:
        try:
            rendered = self._environment.from_string(text).render(variables)
        except jinja2.TemplateError as error:
            raise errors.ConfigurationError(f"{name} can't be rendered: {error}.") from error
        body = rendered.removeprefix("#!/bin/bash\n")
        return body if body.endswith("\n") else body + "\n"


def _config_value(name: str, value: str) -> str:
    try:
        return ini(value)
    except errors.InvalidArgument as error:
        raise errors.InvalidArgument(f"Context value '{name}': {error}") from error


def pack(script: str, limit: int, sizes: Mapping[str, int]) -> str:
    """The script as it is if it fits, else wrapped in a small one that unpacks and runs it.

    The wrapper needs only bash, coreutils and gzip, so any cloud and any boot hook that runs scripts takes it. Raises TooLarge naming the
    largest part when even that does not fit. `sizes` are the sizes of the parts, in characters.
    """
    if len(script.encode()) <= limit:
        return script
    packed = textwrap.fill(base64.b64encode(gzip.compress(script.encode(), 9, mtime=0)).decode(), 76)
    wrapped = (
        "#!/bin/bash\n"
        "# Longer than clouds take: packed. The unpacked script is read from an open file that has no name any more.\n"
        "umask 077\n"
        "unpacked=$(mktemp) || exit 1\n"
        "base64 -d <<'CONPAAS_PACKED' | gunzip > \"$unpacked\" || exit 1\n"
        f"{packed}\n"
        "CONPAAS_PACKED\n"
        'exec 9< "$unpacked"\n'
        'rm -f "$unpacked"\n'
        "umask 022\n"
        "exec /bin/bash /dev/fd/9\n"
    )
    if len(wrapped) > limit:
        largest = max(sizes, key=lambda name: sizes[name])
        what = {"STARTUP_SCRIPT": "the startup script", "CONFIG": "the agents' configuration"}.get(largest, largest)
        raise errors.TooLarge(
            f"The user-data of a VM would have {len(wrapped)} bytes even when packed, {limit} are possible; the largest part is {what}.",
            hint="Let the startup script download what it needs.",
        )
    return wrapped
