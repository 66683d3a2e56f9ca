"""Files as replies: one that was made for a reply only is gone from the disk as soon as it is being sent."""

from __future__ import annotations

import pathlib

import pytest

from conpaas.core import rpc
from conpaas.core.https import endpoint


@pytest.mark.parametrize("remove", [False, True])
def test_a_file_made_for_the_reply_is_removed_and_still_sent(tmp_path: pathlib.Path, remove: bool) -> None:
    path = tmp_path / "dump"
    path.write_bytes(b"x" * 200_000)
    started: list[str] = []
    body = endpoint.send(rpc.RpcReply(200, None, rpc.FileDownload("a.sql", path, remove)), lambda status, headers: started.append(status))
    assert path.exists() is not remove
    assert b"".join(body) == b"x" * 200_000
    assert started == ["200 OK"]
    body.close()  # type: ignore[attr-defined]
