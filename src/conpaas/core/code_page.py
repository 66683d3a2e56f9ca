"""The part of a page that services share which run the user's code (`code_manager.CodeManager`)."""

from __future__ import annotations

from typing import Final

from conpaas.core.pages import AT_REST, Action, Download, Facts, Field, Form, Panel, Part, Table, Text, Value

ARCHIVE_LIMIT: Final = 2_000_000_000
KEYS_LIMIT: Final = 1_000_000


def versions(enable: str, *more: Part) -> Panel:
    """Code versions; `enable` is the method that makes one the version in use. `more` parts follow."""
    table = Table(
        "list_code_versions",
        "codeVersions",
        (
            Value("codeVersionId", "Version", "code"),
            Value("filename", "File"),
            Value("description", "Description"),
            Value("time", "Added", "time"),
        ),
        actions=(
            Action(
                enable, "Enable", row={"codeVersionId": "codeVersionId"}, unless="current", states=AT_REST, done="Enabling the version."
            ),
            Download("download_code_version", "Download", "{codeVersionId}", row={"codeVersionId": "codeVersionId"}),
            Action(
                "delete_code_version",
                "Delete",
                row={"codeVersionId": "codeVersionId"},
                unless="current",
                loses="The code of this version is deleted from the service. It cannot be enabled again unless it is uploaded once more.",
                done="The version is deleted.",
            ),
        ),
        marked="current",
    )
    upload = Action(
        "upload_code_version",
        "Upload",
        verb="UPLOAD",
        fields=(
            Field(
                "code",
                "Archive",
                "file",
                required=True,
                maximum=ARCHIVE_LIMIT,
                help="A tar (plain or compressed) or zip archive that expands in the current directory.",
            ),
            Field("description", "Description", maximum=4096, help="A note to recognise the version by."),
        ),
        done="The archive is uploaded as a new version; enable it to use it.",
    )
    return Panel("Code versions", (table, Form("Upload a version", upload), *more))


def git() -> Panel:
    """Pushing code with git."""
    address = Facts("list_authorized_keys", (Value("repository", "Repository", "code"), Value("directory", "Directory in it", "code")))
    keys = Table(
        "list_authorized_keys",
        "fingerprints",
        (Value("value", "Key", "code"),),
        actions=(
            Action(
                "delete_authorized_key",
                "Delete",
                row={"key": "value"},
                loses="Whoever has this key can no longer push code to this application.",
                done="The key is deleted.",
            ),
        ),
        empty="Nobody can push yet: upload a public key first.",
        title="Keys that may push",
    )
    upload = Action(
        "upload_authorized_key",
        "Add",
        verb="UPLOAD",
        fields=(
            Field(
                "key",
                "Public keys",
                "file",
                required=True,
                maximum=KEYS_LIMIT,
                help="A file such as ~/.ssh/id_ed25519.pub, one key a line.",
            ),
        ),
        done="The keys are added.",
    )
    clone = Text("$ git clone {repository} code", method="list_authorized_keys")
    return Panel(
        "Code by git",
        (address, clone, keys, Form("Add keys", upload)),
        help="What is pushed below the service's directory becomes a code version, which you then enable.",
    )
