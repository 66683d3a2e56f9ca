"""A service type's own verbs, as the plug-in page promises them."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from conpaas.client import handles, plugins, typed
from conpaas.client.objects import completion

ROOT = Path(__file__).parents[3]


@pytest.fixture
def plugged(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes helloworld's verbs those of a function."""

    def plug(verbs: Any) -> None:
        class Point:
            name = "helloworld"

            def load(self) -> Any:
                return verbs

        original = typed.importlib.metadata.entry_points

        def entry_points(**wanted: str) -> Any:
            return [Point()] if wanted == {"group": "conpaas.cli", "name": "helloworld"} else original(**wanted)

        monkeypatch.setattr(typed.importlib.metadata, "entry_points", entry_points)

    return plug


def example() -> Any:
    """The `verbs` function of the plug-in page."""
    text = inspect.getdoc(plugins) or ""
    source = re.search(r"^    def verbs\(group\):\n(?:        .*\n|\n)+", text, re.MULTILINE)
    assert source is not None
    namespace: dict[str, Any] = {}
    exec(inspect.cleandoc("\n" + source.group(0)), namespace)
    return namespace["verbs"]


def test_the_example_of_the_page_works(cps: Any, wire: Any, plugged: Any) -> None:
    plugged(example())
    wire.manager |= {"greet": lambda params: {"text": f"hi {params['name']} x{params['times']}"}, "add_nodes": {}}
    wire.manager["get_service_info"] = {"state": "RUNNING"}
    assert cps("helloworld greet 1 1 bob --times 3").out == "hi bob x3\n"
    assert cps("helloworld greet 1 1 bob -o json").out == '{\n  "text": "hi bob x1"\n}\n'
    assert "Print a greeting of every node." in cps("helloworld -h").out
    cps("helloworld add_nodes 1 1 --master 1")
    cps("helloworld add_nodes 1 1")
    assert [call[3]["nodes"] for call in wire.changes()] == [{"master": 1, "node": 0}, {"master": 0, "node": 1}]


def test_a_plug_in_that_cannot_be_loaded_spoils_its_own_program_only(cps: Any, plugged: Any) -> None:
    def broken(_: Any) -> None:
        raise ImportError("no module named nothing")

    plugged(broken)
    done = cps("helloworld list")
    assert (done.code, done.err) == (1, "ERROR: The verbs of service type 'helloworld' cannot be loaded: no module named nothing\n")
    assert cps("service list -a 2").code == 0


def test_a_handle_offers_what_the_page_lists() -> None:
    page = inspect.getdoc(plugins) or ""
    promised = set(re.findall(r"`([a-z_]+)\(", page.split("What every handle offers")[1])) - {"probe", "request"}
    missing = {name for name in promised if not hasattr(handles.Handle, name)}
    assert missing == set()


@pytest.mark.parametrize(("shell", "file"), [("bash", "cps-tools.bash"), ("zsh", "_cps-tools"), ("fish", "cps-tools.fish")])
def test_the_completion_files_are_what_the_command_prints(shell: str, file: str) -> None:
    text = (ROOT / "misc" / "completion" / file).read_text()
    line = next(line for line in text.splitlines() if "cps-user" in line)
    programs = tuple(dict.fromkeys(re.findall(r"\bcps-[a-z0-9]+", line)))
    assert text == completion.script(shell, programs)
