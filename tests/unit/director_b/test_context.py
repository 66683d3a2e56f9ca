"""User-data: valid bash, whatever the values hold; what would break out of its place is refused."""

from __future__ import annotations

import os
import pathlib
import subprocess
from typing import Any

import pytest

from conpaas.core import config, errors, services
from conpaas.director import context

HOSTILE = 'it\'s $(touch pwned) `touch pwned` "$$" ${HOME} \\n %s <<EOF é 漢'
SCRIPT = f"#!/bin/sh\necho {HOSTILE!r}\nCONPAAS_PACKED\nEOF\necho $$ '\n"


@pytest.fixture
def files(tmp_path: pathlib.Path) -> pathlib.Path:
    """The operator's own run-time files."""
    for name, text in {
        "scripts/cloud/dummy": "IP_PUBLIC=127.16.0.9\n",
        "scripts/cloud/broken": "{{ NOBODY_GIVES_THIS }}\n",
        "config/agent/hostile-agent.cfg": "STRING = $STRING\n",
        "config/agent/greedy-agent.cfg": "STRING = $NOBODY\n",
        "scripts/agent/plain-agent-start": "#!/bin/bash\nprintf '%s' {{ CONFIG | sh }} > \"$OUT/written\"\n"
        "printf '%s' {{ STARTUP_SCRIPT | sh }} > \"$OUT/script\"\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def composer(files: pathlib.Path, **options: Any) -> context.Composer:
    return context.Composer(
        director_url="https://director.example.org:5555",
        deployment="testing",
        ca_pem=lambda: "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        code_sha256=lambda: "ab" * 32,
        conf_dir=files,
        **{"registry": services.Registry.of([]), **options},
    )


def agent(made: context.Composer, agent_type: str = "hostile", **changes: Any) -> str:
    fields: dict[str, Any] = {"driver": "dummy", "user_id": 1, "app_id": 2, "service_id": 3, "manager_ip": "10.0.0.1", "token": "t0"}
    return made.agent(agent_type=agent_type, **{**fields, "values": {"STRING": HOSTILE}, "startup_script": SCRIPT, **changes})


def manager(made: context.Composer) -> str:
    return made.manager(driver="dummy", user_id=1, app_id=2, token="t0")


def check(script: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "user-data"
    path.write_text(script)
    subprocess.run(["bash", "-n", path], check=True)
    found = subprocess.run(["shellcheck", "--severity=warning", "--shell=bash", path], check=False, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_what_boots_a_manager_and_an_agent_is_sound_bash(files: pathlib.Path) -> None:
    made = composer(files)
    check(manager(made), files)
    check(agent(made), files)
    check(agent(made, values={"STRING": "plain"}, startup_script=""), files)


def test_user_data_begins_as_cloud_init_and_the_boot_hook_want_it(files: pathlib.Path) -> None:
    assert manager(composer(files)).startswith("#!/bin/bash\n")
    assert len(manager(composer(files)).encode()) <= context.LIMIT


def test_values_reach_the_vm_unchanged(files: pathlib.Path) -> None:
    """The rendered pieces are run by bash; neither the configuration nor the script may differ by a byte."""
    made = composer(files)
    (files / "config/agent/plain-agent.cfg").write_text("STRING = $STRING\n")
    whole = agent(made, "plain")
    tail = whole[whole.index("printf '%s' '[agent]") :]
    subprocess.run(["bash", "-c", tail], check=True, cwd=files, env={**os.environ, "OUT": str(files)})
    assert (files / "script").read_text() == SCRIPT
    parsed = config.Config.read(files / "written")
    assert (parsed.get("agent", "STRING"), parsed.get("agent", "TYPE")) == (HOSTILE, "plain")
    assert not (files / "pwned").exists()


@pytest.mark.parametrize("value", ["a\nEVIL = 1", "a\rb", "a\x00b", "a\u2028b", "a\x85b"])
def test_a_value_cannot_begin_a_line_of_its_own(files: pathlib.Path, value: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="Context value 'STRING'"):
        agent(composer(files), values={"STRING": value})


def test_a_service_cannot_replace_what_the_director_says(files: pathlib.Path) -> None:
    with pytest.raises(errors.InvalidArgument, match="'MANAGER_IP' is set by the Director"):
        agent(composer(files), values={"STRING": "x", "MANAGER_IP": "6.6.6.6"})


def test_a_name_that_nobody_fills_in_is_an_error(files: pathlib.Path) -> None:
    with pytest.raises(errors.ConfigurationError, match=r"greedy-agent.cfg needs a value for \$NOBODY"):
        agent(composer(files), "greedy")
    with pytest.raises(errors.ConfigurationError, match="NOBODY_GIVES_THIS"):
        composer(files).manager(driver="broken", user_id=1, app_id=2, token="t0")
    with pytest.raises(errors.NotFound, match="scripts/cloud/mars"):
        composer(files).manager(driver="mars", user_id=1, app_id=2, token="t0")


def test_a_long_script_is_packed_and_unpacks_to_itself(tmp_path: pathlib.Path) -> None:
    script = "#!/bin/bash\n" + "".join(f"echo {number} $$ '{HOSTILE.replace(chr(39), '')}'\n" for number in range(400)) + "echo done\n"
    packed = context.pack(script, context.LIMIT, {})
    assert len(script.encode()) > context.LIMIT >= len(packed.encode())
    check(packed, tmp_path)
    plain = subprocess.run(["bash", "-c", script.replace("$$", "pid")], check=True, capture_output=True, cwd=tmp_path).stdout
    (tmp_path / "packed").write_text(context.pack(script.replace("$$", "pid"), context.LIMIT, {}))
    assert subprocess.run(["bash", tmp_path / "packed"], check=True, capture_output=True, cwd=tmp_path).stdout == plain


def test_what_is_too_long_even_packed_is_named(files: pathlib.Path) -> None:
    noise = os.urandom(40000).hex()
    with pytest.raises(errors.TooLarge, match="the largest part is the startup script"):
        agent(composer(files), startup_script=noise)


def test_a_service_type_brings_its_configuration_and_start_script_in_its_package(
    files: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = files / "thirdparty"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "agent.cfg").write_text("COLOUR = $COLOUR\n")
    (package / "paint-agent-start").write_text("#!/bin/bash\necho painting\n")
    monkeypatch.syspath_prepend(str(files))
    paint = services.ServiceType(
        name="painter", manager="m:M", agent="a:A", agent_type="paint", agent_config="agent.cfg", package="thirdparty"
    )
    rendered = agent(composer(files, registry=services.Registry.of([paint])), "paint", values={"COLOUR": "red"})
    assert "COLOUR = red" in rendered
    assert "echo painting" in rendered
    assert "conpaas.core.agent_daemon" not in rendered
