"""What a person does in the web front-end of ConPaaS 2: each button and form, with the calls behind it and what is made of the replies.

Waiting is the front-end's polling without its pauses. Whatever starts a change has to leave a passing state behind before it is answered,
or the first poll takes the old state for the new one, and the page is loaded too early.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any

from tests.support import php_frontend, php_pages
from tests.support import platform as platforms

NONE = "<none>"


class Browser(php_pages.Pages):
    """One person's session; `files` is a directory of the web server for what the browser uploads."""

    def __init__(self, front: php_frontend.FrontEnd, files: pathlib.Path) -> None:
        super().__init__(front)
        self.files = files

    # --- accounts ----------------------------------------------------------------------------------------------------

    def register(self, username: str, password: str, **more: str) -> dict[str, Any]:
        """The form of new users: is the name free, make the account, sign in."""
        if self.front.login(username, password) is not False:
            raise php_frontend.Shown("User already exists")
        form = {"username": username, "email": f"{username}@example.org", "fname": "Ada", "lname": "Lovelace", "affiliation": "VU"}
        asked = {**form, "password": password, "credit": "50", "openid": NONE, "uuid": NONE, **more}
        reply = json.loads(self.front.send_as_site("/new_user", asked))
        if "error" in reply:
            raise php_frontend.Shown(reply["error"])
        assert php_pages.integer(reply["uid"])
        assert self.authenticate(username, password)
        return dict(reply)

    def authenticate(self, username: str, password: str) -> bool:
        """The form of users: whether they are in now."""
        found = self.front.login(username, password)
        if found is False:
            return False
        self.front.uid = php_pages.user(found, password)["uid"]
        self.front.username, self.front.password = username, password
        assert self.front.fetch_certificates(username, password)
        return True

    # --- applications ------------------------------------------------------------------------------------------------

    def create_application(self, name: str) -> int:
        before = set(self.applications())
        assert self.front.ask("/createapp", {"name": name}), "taken for a session that ended"
        (aid,) = set(self.applications()) - before
        return aid

    def rename_application(self, aid: int, name: str) -> None:
        assert isinstance(self.front.ask(f"/renameapp/{aid}", {"name": name}), dict)

    def start_application(self, aid: int, cloud: str = "default") -> None:
        reply = self.front.ask(f"/startapp/{aid}/{cloud}")
        assert isinstance(reply, dict), "anything else signs the person out"
        assert self.applications()[aid]["status"] in ("PROLOGUE", "RUNNING"), "the first poll ends the waiting"
        self.wait_for_application(aid, "RUNNING")

    def wait_for_application(self, aid: int, *wanted: str) -> None:
        """The application page's first phase: until the state is no passing one. ADAPTING is none here."""

        def reached() -> dict[str, Any] | None:
            found = self.applications()[aid]
            return None if found["status"] in ("PROLOGUE", "EPILOGUE") else found

        found = platforms.until(reached, f"application {aid} is {wanted}")
        assert found["status"] in wanted, found

    def wait_for_services(self, aid: int) -> dict[int, php_pages.Service]:
        """Its second phase: until all services are reachable and stable, and the application does not change."""

        def reached() -> dict[int, php_pages.Service] | None:
            rows = self.check_services(aid)
            done = self.applications()[aid]["status"] != "ADAPTING" and not any(row.polling for row in rows.values())
            return rows if done else None

        rows: dict[int, php_pages.Service] = platforms.until(reached, f"all of application {aid} is stable")
        return rows

    def stop_application(self, aid: int) -> None:
        reply = self.front.send(f"/stopapp/{aid}")
        assert isinstance(reply, dict) and "error" not in reply, "the front-end would call that a success"
        assert self.applications()[aid]["status"] in ("EPILOGUE", "STOPPED")
        self.wait_for_application(aid, "STOPPED")
        assert self.applications()[aid]["manager"] is None

    def delete_application(self, aid: int) -> None:
        reply = self.front.send(f"/deleteapp/{aid}")
        assert isinstance(reply, dict) and "error" not in reply
        platforms.until(lambda: aid not in self.applications(), "the application is gone")

    def upload_manifest(self, manifest: dict[str, Any], cloud: str = "default") -> int:
        """The file's text without line ends and tabs; the id of the application at once, the rest by polling."""
        flat = json.dumps(manifest, indent="\t").replace("\n", "").replace("\t", "")
        reply = self.front.ask("/upload_manifest", {"manifest": flat, "cloud": cloud, "thread": 1})
        assert isinstance(reply, dict) and reply
        return php_pages.integer(reply["aid"])

    def download_manifest(self, aid: int) -> dict[str, Any]:
        return dict(self.front.ask(f"/download_manifest/{aid}"))

    # --- services ----------------------------------------------------------------------------------------------------

    def add_service(self, aid: int, kind: str) -> int:
        reply = self.front.ask(f"/add/{kind}", {"appid": aid})
        assert isinstance(reply, dict), "falsy signs the person out"
        sid = php_pages.integer(reply["service"]["sid"])
        self.settle(aid, sid, "INIT")
        return sid

    def rename_service(self, aid: int, sid: int, name: str) -> None:
        reply = self.front.send("/rename", {"name": name, "app_id": aid, "service_id": sid})
        if reply is not True:
            raise php_frontend.Shown(f"cannot rename the service: {reply}")

    def remove_service(self, aid: int, sid: int) -> None:
        reply = self.front.send("/remove", {"app_id": aid, "service_id": sid}, ping=True)
        assert isinstance(reply, dict) and "error" not in reply, "the front-end would call that a success"
        platforms.until(lambda: sid not in self._own(aid), "the service is gone")

    def settle(self, aid: int, sid: int, state: str) -> php_pages.Service:
        """Poll until the service is reachable and in a stable state, which is the one that was wanted."""
        built = platforms.until(lambda: None if (now := self.get_service(aid, sid)).polling else now, f"service {sid} is {state}")
        assert built.state == state
        return built

    def change(self, aid: int, sid: int, passing: str, call: Callable[[str], Any], ends: str = "RUNNING") -> php_pages.Service:
        """Do what changes a service: `call(manager)`; then poll. When the reply is there, the state has passed through `passing`."""
        manager = self._own(aid)[sid]["application"]["manager"]
        before = len(php_pages.history(self.front.get(manager, sid, "get_service_history")))
        reply = call(manager)
        assert isinstance(reply, dict)
        after = php_pages.history(self.front.get(manager, sid, "get_service_history"))[before:]
        assert after[:1] == [passing], f"answered before the state was {passing}: {after}"
        self.service_page(aid, sid)
        return self.settle(aid, sid, ends)

    def start_service(self, aid: int, sid: int, cloud: str = "default") -> php_pages.Service:
        asked = {"service_id": sid, "cloud": cloud}
        return self.change(aid, sid, "PROLOGUE", lambda manager: self.front.post(manager, 0, "start_service", asked))

    def stop_service(self, aid: int, sid: int) -> php_pages.Service:
        return self.change(
            aid, sid, "EPILOGUE", lambda manager: self.front.post(manager, 0, "stop_service", {"service_id": sid}), "STOPPED"
        )

    def add_nodes(self, aid: int, sid: int, nodes: dict[str, int], cloud: str = "default") -> php_pages.Service:
        asked = {"service_id": sid, "nodes": nodes, "cloud": cloud}
        return self.change(aid, sid, "ADAPTING", lambda manager: self.front.post(manager, 0, "add_nodes", asked))

    def remove_nodes(self, aid: int, sid: int, nodes: dict[str, int]) -> php_pages.Service:
        asked = {"service_id": sid, "nodes": nodes}
        return self.change(aid, sid, "ADAPTING", lambda manager: self.front.post(manager, 0, "remove_nodes", asked))

    # --- the parts of service pages ----------------------------------------------------------------------------------

    def file(self, name: str, content: bytes) -> php_frontend.Upload:
        """A file as the browser brought it to the web server's directory for such."""
        path = self.files / name
        path.write_bytes(content)
        return php_frontend.Upload(path)

    def versions(self, service: php_pages.Service) -> dict[str, dict[str, Any]]:
        return php_pages.versions(self.front.get(service.manager, service.sid, "list_code_versions"))

    def upload_code(self, service: php_pages.Service, name: str, content: bytes, description: str = "") -> str:
        """The id of the version that is new in the list; the reply itself is not read."""
        before = set(self.versions(service))
        code = self.file(name, content)
        self.front.upload(service.manager, service.sid, "upload_code_version", {"code": code, "description": description})
        (new,) = set(self.versions(service)) - before
        assert next(iter(self.versions(service))) == new, "newest first"
        assert self.versions(service)[new]["filename"] == name
        return new

    def enable_code(self, aid: int, service: php_pages.Service, version: str, ends: str = "RUNNING") -> None:
        method = "enable_code" if service.type == "generic" else f"update_{service.type}_configuration"
        asked = {"codeVersionId": version}
        if ends == "RUNNING":
            self.change(aid, service.sid, "ADAPTING", lambda manager: self.front.post(manager, service.sid, method, asked), ends)
        else:
            self.front.post(service.manager, service.sid, method, asked)
            self.settle(aid, service.sid, ends)
        assert [key for key, one in self.versions(service).items() if "current" in one] == [version]

    def download_code(self, service: php_pages.Service, version: str) -> bytes:
        assert version in self.versions(service)
        return self.front.get_raw(service.manager, service.sid, "download_code_version", {"codeVersionId": version})

    def delete_code(self, service: php_pages.Service, version: str) -> None:
        self.front.post(service.manager, str(service.sid), "delete_code_version", {"codeVersionId": version})
        assert version not in self.versions(service)

    def upload_key(self, service: php_pages.Service, key: str) -> None:
        self.front.upload(service.manager, service.sid, "upload_authorized_key", {"key": self.file("phpkey", key.encode())})

    def startup_script(self, service: php_pages.Service) -> str:
        return php_pages.text(self.front.get(service.manager, 0, "get_startup_script", {"sid": service.sid}))

    def upload_startup_script(self, service: php_pages.Service, script: str) -> None:
        path = self.file("phpscript", script.encode())
        self.front.upload(service.manager, 0, "upload_startup_script", {"script": path, "sid": str(service.sid)})
        assert self.startup_script(service) == script

    def logs(self, service: php_pages.Service) -> None:
        """Every link to a log on the page."""
        front, manager = self.front, service.manager
        for sid in (0, service.sid):
            assert php_pages.text(front.get(manager, sid, "get_manager_log")["log"])
        for one in service.node_ids:
            found = php_pages.node(front.get(manager, service.sid, "get_node_info", {"serviceNodeId": one}), one)
            for entry in found["logs"]:
                asked = {"agentId": one, "filename": entry["filename"]}
                php_pages.text(front.get(manager, service.sid, "get_agent_log", asked)["log"])
