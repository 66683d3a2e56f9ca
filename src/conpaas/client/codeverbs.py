"""The verbs of services that run uploaded code; a service type adds them with `group.code_verbs()`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conpaas.client import handles, replies, verbs
from conpaas.core import errors


def register(group: verbs.VerbTable, enable: str) -> None:
    """Add the verbs; `enable` is the manager's method that activates a version."""
    _register_transfers(group)
    _register_keys(group)
    code = group.argument("code_version")

    @group.verb("list_codes")
    def list_codes(service: handles.Handle) -> None:
        """List the code versions, newest first; * marks the active one."""
        columns = ("current", "codeVersionId", "filename", "description")
        versions = code_versions(service)
        rows = [
            {
                "current": "*".rjust(len("current")) if version.current else "",
                "codeVersionId": version.id,
                "filename": version.filename,
                "description": version.description,
            }
            for version in versions
        ]
        data = [row | {"current": version.current} for row, version in zip(rows, versions, strict=True)]
        service.table(columns, rows, "No existing code versions.", data)

    @group.verb("delete_code", code, destructive="Delete this code version?")
    def delete_code(service: handles.Handle, code_version: str) -> None:
        """Delete a code version that is not active."""
        service.post("delete_code_version", codeVersionId=code_version)
        service.show(f"Code version '{code_version}' deleted.", {"codeVersionId": code_version, "result": "done"})

    @group.verb("enable_code", code)
    def enable_code(service: handles.Handle, code_version: str) -> None:
        """Activate a code version on all nodes and wait until it is."""
        service.change(
            f"Enabling code version '{code_version}'",
            lambda: service.post(enable, codeVersionId=code_version),
            until=("RUNNING", "INIT", "STOPPED"),
        )


def _register_transfers(group: verbs.VerbTable) -> None:
    @group.verb("upload_code", group.argument("filename"), group.option("--description", default="", help="A remark kept with it."))
    def upload_code(service: handles.Handle, filename: str, description: str) -> None:
        """Upload an archive with code (- is standard input); prints the id of the new version."""
        if filename != handles.STANDARD_STREAM and not _readable(filename):
            service.fail(f"Cannot upload code: filename '{filename}' not found or access is denied")
        fields: dict[str, Any] = {"description": description} if description else {}
        reply = replies.mapping(service.upload("upload_code_version", {"code": filename}, **fields), "a code version")
        service.show(f"Code version '{reply.get('codeVersionId')}' uploaded.", reply)

    version = group.option("--version", "-v", help="The code version; the active one by default.")
    to = group.option("--to", kind="output", help="The file to write (- is standard output) instead of the stored name.")

    @group.verb("download_code", version, to)
    def download_code(service: handles.Handle, version: str | None, to: str | None) -> None:
        """Download a code version into the current directory, under the name it was uploaded with."""
        chosen = _chosen(service, version)
        target = to or handles.safe_name(chosen.filename, chosen.id)
        service.download("download_code_version", target, codeVersionId=chosen.id)
        if target != handles.STANDARD_STREAM:
            service.show(f"File '{target}' written.", {"file": target, "codeVersionId": chosen.id})


def _register_keys(group: verbs.VerbTable) -> None:
    @group.verb("upload_key", group.argument("filename", kind="file"))
    def upload_key(service: handles.Handle, filename: str) -> None:
        """Allow the public SSH keys of a file to push code with git."""
        reply = replies.mapping(service.upload("upload_authorized_key", {"key": filename}), "an outcome")
        service.show(f"{reply.get('outcome')}.", reply)

    @group.verb("list_keys")
    def list_keys(service: handles.Handle) -> None:
        """List the public SSH keys that may push code."""
        reply = replies.mapping(service.get("list_authorized_keys"), "a list of keys")
        keys = replies.each(reply.get("authorizedKeys") or [], str, "a list of keys")
        service.show("\n".join(keys), keys)

    @group.verb("git_address")
    def git_address(service: handles.Handle) -> None:
        """Print where to push code to, and which directory of the repository is this service's."""
        reply = replies.mapping(service.get("list_authorized_keys"), "a git address")
        service.show(f"{reply.get('repository')}\nThis service's directory: {reply.get('directory')}", reply)


def code_versions(service: Any) -> list[replies.CodeVersion]:
    """The code versions of a service, newest first."""
    reply = replies.mapping(service.get("list_code_versions"), "a list of code versions")
    return replies.each(reply.get("codeVersions") or [], replies.CodeVersion.read, "a list of code versions")


def _chosen(service: handles.Handle, wanted: str | None) -> replies.CodeVersion:
    for version in code_versions(service):
        if version.id == wanted or (wanted is None and version.current):
            return version
    if wanted is None:
        raise errors.WrongState("There is no code version currently enabled.")
    raise errors.NotFound(f"Invalid code version '{wanted}'")


def _readable(path: str) -> bool:
    try:
        with Path(path).open("rb"):
            return True
    except OSError:
        return False
