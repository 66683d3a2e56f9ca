"""Manifests on a whole platform: an application made from one, written down again and made once more; and one that fails."""

from __future__ import annotations

import collections
import io
import json
import pathlib
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest

from conpaas.core import data_urls
from tests.support import consistency
from tests.support import platform as platforms

SCRIPT = "#!/bin/bash\ntrue\n"


def archive(text: str) -> str:
    """Code for a generic service, as a `data:` URL: an init.sh that says something."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for name in ("init.sh", "notify.sh", "run.sh", "interrupt.sh", "cleanup.sh"):
            content = f"#!/bin/bash\necho {text}\n".encode()
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            tar.addfile(member, io.BytesIO(content))
    return data_urls.encode("code.tar.gz", made.getvalue())


def manifest(name: str) -> dict[str, Any]:
    return {
        "Description": "one of each",
        "Application": name,
        "Services": [
            {"Type": "helloworld", "ServiceName": "greeter", "Start": 1, "StartupInstances": {"node": "2"}, "String": "moin"},
            {
                "Type": "generic",
                "ServiceName": "workers",
                "Start": 1,
                "StartupInstances": {"master": 1, "node": 1},
                "StartupScript": data_urls.encode("setup.sh", SCRIPT.encode()),
                "Archive": archive("hello"),
            },
            {"Type": "generic", "ServiceName": "later", "Archive": archive("later")},
        ],
    }


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[platforms.Platform]:
    with platforms.platform(tmp_path_factory.mktemp("manifest"), 96) as made:
        yield made


def upload(platform: platforms.Platform, document: dict[str, Any], directory: pathlib.Path, *, check: bool = True) -> platforms.Result:
    path = directory / "app.mnf"
    path.write_text(json.dumps(document))
    return platform.cps("application", "manifest", path, check=check)


def application(platform: platforms.Platform, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in platform.data("application", "list") if one["name"] == name)
    return found


def shape(platform: platforms.Platform, name: str) -> list[tuple[Any, ...]]:
    """What the services of an application are: type, name, state, nodes by role, enabled code's name, text."""
    found: list[tuple[Any, ...]] = []
    for service in platform.data("service", "list", "-a", name):
        sid = str(service["sid"])
        nodes: collections.Counter[str] = collections.Counter()
        if service["status"] == "RUNNING":
            nodes.update(one["role"] for one in platform.data("service", "list_nodes", name, sid))
        code = ""
        if service["type"] == "generic":
            versions = platform.data("generic", "list_codes", name, sid)
            code = next(one["filename"] for one in versions if one.get("current"))
        found.append((service["type"], service["name"], service["status"], dict(nodes), code))
    return found


EXPECTED = [
    ("helloworld", "greeter", "RUNNING", {"helloworld": 2}, ""),  # its role, as it tells it
    ("generic", "workers", "RUNNING", {"master": 1, "node": 1}, "code.tar.gz"),
    ("generic", "later", "INIT", {}, "code.tar.gz"),
]


def test_an_application_made_from_a_manifest_can_be_written_down_and_made_again(
    platform: platforms.Platform, tmp_path: pathlib.Path
) -> None:
    done = upload(platform, manifest("shop"), tmp_path)
    assert "is being created based on the specified manifest...  done." in done.out
    assert shape(platform, "shop") == EXPECTED
    exported = json.loads(platform.cps("application", "download_manifest", "shop").out)
    assert [service["Start"] for service in exported["Services"]] == [1, 1, 0]
    assert exported["Services"][0]["String"] == "moin"
    assert data_urls.decode(exported["Services"][1]["StartupScript"])[1] == SCRIPT.encode()
    upload(platform, exported, tmp_path)
    assert shape(platform, "shop (2)") == EXPECTED
    assert json.loads(platform.cps("application", "download_manifest", "shop (2)").out)["Services"] == exported["Services"]
    consistency.assert_consistent(platform)
    for name in ("shop", "shop (2)"):
        platform.cps("--yes", "application", "delete", name)
    assert not platform.vms()


def test_a_part_that_fails_undoes_the_whole_and_says_why(platform: platforms.Platform, tmp_path: pathlib.Path) -> None:
    document = manifest("broken")
    document["Services"][1]["StartupInstances"] = {"master": 2}
    done = upload(platform, document, tmp_path, check=False)
    assert done.code != 0
    assert "Service 2, 'workers' (generic): Cannot add a master node: the service has exactly one." in done.out + done.err
    assert application(platform, "broken")["status"] == "ERROR"
    assert not platform.vms()
    assert platform.data("service", "list", "-a", "broken") == []
    platform.cps("--yes", "application", "delete", "broken")


def test_what_is_wrong_with_a_manifest_is_said_before_anything_is_made(platform: platforms.Platform, tmp_path: pathlib.Path) -> None:
    document = manifest("never")
    document["Services"][0]["StartupInstances"] = {"node": -1}
    done = upload(platform, document, tmp_path, check=False)
    assert (
        "Services[0].StartupInstances.node: should be" in done.err.replace("nodes", "node")
        or "Services[0].StartupInstances.node" in done.err
    )
    document = manifest("never")
    document["Services"][1]["Archive"] = "http://127.0.0.1:1/x.tar"
    done = upload(platform, document, tmp_path, check=False)
    assert "Archive: 127.0.0.1 has the address 127.0.0.1, which is not a public one" in done.out + done.err
    assert not platform.vms()
