"""The parent of managers whose services run the user's code: upload, list, download and delete code versions, keys for git."""

from __future__ import annotations

from typing import Any

from conpaas.core import code, data_urls, errors, expose, git_keys, git_server, manager, params, rpc, service_parts
from conpaas.core.https import identity

_VERSION = params.Text(max_length=80)


class CodeManager(manager.BaseManager):
    """Adds code versions, by archive and by git, to a service manager. What enabling a version means is the service's own affair."""

    def __init__(self, context: service_parts.ManagerContext) -> None:
        super().__init__(context)
        self.git = git_server.GitServer(self.config, self.paths)
        quota = self.config.get_int(self.config.main, "CODE_QUOTA", code.QUOTA, minimum=1)
        self.code = code.CodeRepository(self.code_versions, self.code_dir, self.git.repository, str(self.service_id), quota=quota)
        self.code.clean()
        self._catch_up_with_pushes()

    def _catch_up_with_pushes(self) -> None:
        """Register what was pushed while nobody listened."""
        try:
            self.on_git_push()
        except errors.ConPaaSError as error:
            self.log.warning("the git repository cannot be read: %s", error)

    def on_git_push(self) -> str | None:
        """Make a code version of what was pushed, if the directory named after this service's id changed."""
        record = self.code.register_push()
        if record is None:
            return None
        self.log.info("code version %s was pushed: %s", record.id, record.description)
        return record.id

    @expose.expose("GET")
    def list_code_versions(self) -> dict[str, Any]:
        """List the code versions, newest first; the enabled one has the key `current`."""
        return {"codeVersions": self.code.list()}

    @expose.expose(
        "UPLOAD",
        params.Param("code", params.Upload(), help="A tar (plain or compressed) or zip archive that expands in the current directory."),
        params.Param("description", params.Text(max_length=4096), "", help="A note to recognise the version by."),
        params.Param("request", params.Text(max_length=100), None, help="A key; the same key uploads the same version once."),
    )
    def upload_code_version(self, code: params.UploadedFile, description: str, request: str | None) -> dict[str, Any]:
        """Upload an archive as a new code version; it is not enabled by that."""
        record = self.code.upload(code, description, request=request)
        self.log.info("code version %s was uploaded: %s", record.id, record.filename)
        return {"codeVersionId": record.id}

    @expose.expose("GET", params.Param("codeVersionId", _VERSION, None, help="Without it, the enabled version."))
    def download_code_version(self, code_version_id: str | None) -> rpc.FileDownload:
        """Download the archive of a code version."""
        return self.code.download(code_version_id)

    @expose.expose("POST", params.Param("codeVersionId", _VERSION, help="Any version but the enabled one."))
    def delete_code_version(self, code_version_id: str) -> None:
        """Delete a code version."""
        self.code.delete(code_version_id)

    # Manifests

    def enable_version(self, version_id: str, caller: identity.PeerIdentity | None) -> dict[str, Any]:
        """Make a code version the enabled one, as the service's own call for that does; returns that call's reply."""
        raise errors.InvalidArgument(f"Services of type '{self.type}' cannot be given code by a manifest.")

    def on_apply_manifest(self, fields: dict[str, Any], caller: identity.PeerIdentity | None) -> dict[str, Any]:
        """`Archive` holds the reply to the archive's upload."""
        uploaded = params.check_arguments((params.Param("Archive", params.Mapping()),), fields)["archive"]
        version_id = params.check_arguments((params.Param("codeVersionId", _VERSION),), uploaded)["code_version_id"]
        if self.code.current().id == version_id:
            return {}
        return self.enable_version(version_id, caller)

    def on_export_manifest(self, limit: int) -> dict[str, Any]:
        """The enabled code as an archive, unless it is the one that every service begins with."""
        record = self.code.current()
        if record.id == code.DEFAULT_ID:
            return {}
        archive = self.code.archive(record.id)
        size = archive.stat().st_size
        if size > limit:
            raise errors.TooLarge(
                f"The code version {record.id} has {size} bytes; a manifest can hold at most {limit}.",
                hint="Download the code, and put the URL of an archive into the manifest yourself.",
            )
        name = f"{record.filename}.tar" if record.kind == code.GIT else record.filename
        return {"Archive": data_urls.encode(name, archive.read_bytes())}

    @expose.expose("UPLOAD", params.Param("key", params.Upload(), help="A file of public keys, one a line."))
    def upload_authorized_key(self, key: params.UploadedFile) -> dict[str, Any]:
        """Allow the holders of these ssh keys to push code with git."""
        if key.size > git_keys.MAX_FILE:
            raise errors.TooLarge(f"A file of keys can have at most {git_keys.MAX_FILE} bytes")
        keys = git_keys.read_keys(key.path.read_bytes())
        self.git.start()
        return {"outcome": f"{self.git.keys.add(keys)} keys added to authorized_keys"}

    @expose.expose("GET")
    def list_authorized_keys(self) -> dict[str, Any]:
        """List the ssh keys that may push, and where to push to."""
        keys = self.git.keys.list()
        return {
            "authorizedKeys": [str(key) for key in keys],
            "fingerprints": [key.fingerprint for key in keys],
            "repository": self.git.url,
            "directory": str(self.service_id),
        }

    @expose.expose("POST", params.Param("key", params.Text(max_length=16384), help="Its fingerprint (SHA256:…), or the whole line."))
    def delete_authorized_key(self, key: str) -> dict[str, Any]:
        """Take away the right to push from the holder of a key."""
        return {"outcome": f"{self.git.keys.remove(key)} keys left in authorized_keys"}
