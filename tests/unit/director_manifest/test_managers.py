"""What managers do with the fields of their type, and what they tell of them."""

from __future__ import annotations

import io
import pathlib
import tarfile

import pytest

from conpaas.core import data_urls, errors
from conpaas.testing import harness


@pytest.fixture
def archive(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "app.tar"
    with tarfile.open(path, "w") as made:
        member = tarfile.TarInfo("run.sh")
        member.size = 4
        made.addfile(member, io.BytesIO(b"true"))
    return path


def test_helloworld_takes_and_tells_its_text() -> None:
    with harness.Harness("helloworld") as service:
        assert service.call("export_manifest", limit=10) == {"fields": {}}
        assert service.call("apply_manifest", fields={}) == {}
        for _ in range(2):
            service.call("apply_manifest", fields={"String": "moin"})
        assert service.call("export_manifest", limit=10) == {"fields": {"String": "moin"}}
        service.start()
        assert service.call("get_helloworld")["replies"][0]["message"] == "moin"


def test_generic_takes_and_tells_its_code(archive: pathlib.Path) -> None:
    with harness.Harness("generic") as service:
        assert service.call("export_manifest", limit=10**6) == {"fields": {}}
        uploads = [service.call("upload_code_version", code=archive, request="op-0-Archive") for _ in range(2)]
        assert uploads[0] == uploads[1]
        assert len(service.call("list_code_versions")["codeVersions"]) == 2
        for _ in range(2):
            assert service.call("apply_manifest", fields={"Archive": uploads[0]}) == {}
        current = next(one for one in service.call("list_code_versions")["codeVersions"] if one.get("current"))
        assert current["codeVersionId"] == uploads[0]["codeVersionId"]
        told = service.call("export_manifest", limit=10**6)["fields"]["Archive"]
        assert data_urls.decode(told) == ("app.tar", archive.read_bytes())
        with pytest.raises(errors.RemoteError, match="a manifest can hold at most 10"):
            service.call("export_manifest", limit=10)


def test_code_that_another_upload_left_has_another_id(archive: pathlib.Path) -> None:
    with harness.Harness("generic") as service:
        ids = {service.call("upload_code_version", code=archive, request=key)["codeVersionId"] for key in ("a", "b")}
        ids.add(service.call("upload_code_version", code=archive)["codeVersionId"])
        assert len(ids) == 3
