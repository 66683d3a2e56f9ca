"""One service's life in the web front-end of ConPaaS 2, as far as all types share it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import php_browser, php_frontend, php_pages

STARTUP = "#!/bin/bash\necho 'für \"alle\"' > $VM_ROOT/root/by-hand\n"


def shown(text: str) -> Any:
    return pytest.raises(php_frontend.Shown, match=text)


class Walk:
    """One service's life in the front-end; each page is opened in each of its states."""

    def __init__(self, browser: php_browser.Browser, aid: int, kind: str) -> None:
        self.browser = browser
        self.front = browser.front
        self.aid = aid
        self.kind = kind
        self.sid = browser.add_service(aid, kind)

    @property
    def service(self) -> php_pages.Service:
        return self.browser.get_service(self.aid, self.sid)

    def page(self, state: str) -> php_pages.Service:
        """The application's list and the service's page, in a state."""
        row, built = self.browser.check_services(self.aid)[self.sid], self.browser.service_page(self.aid, self.sid)
        assert row.state == built.state == state
        return built

    def begins(self) -> php_pages.Service:
        self.page("INIT")
        self.browser.rename_service(self.aid, self.sid, f"mein {self.kind} <b>")
        with shown("cannot rename"):
            self.browser.rename_service(self.aid, self.sid, " ")
        assert self.browser._own(self.aid)[self.sid]["name"] == f"mein {self.kind} <b>"
        self.browser.start_service(self.aid, self.sid)
        with shown("Wrong service state"):
            self.front.post(self.service.manager, 0, "start_service", {"service_id": self.sid, "cloud": "default"})
        return self.page("RUNNING")

    def prepares(self, name: str, content: bytes) -> None:
        """Code can be chosen before the service has ever run."""
        version = self.browser.upload_code(self.service, name, content)
        self.browser.enable_code(self.aid, self.service, version, "INIT")
        self.page("INIT")

    def code(self, name: str, content: bytes, key: str) -> None:
        first = next(iter(self.browser.versions(self.service)))
        with shown("Invalid archive"):
            self.browser.upload_code(self.service, f"bad {name}", b"no archive")
        version = self.browser.upload_code(self.service, name, content, "mine")
        self.browser.enable_code(self.aid, self.service, version)
        assert self.browser.download_code(self.service, version) == content
        assert self.browser.download_code(self.service, first)
        self.browser.delete_code(self.service, first)
        with shown("key"):
            self.browser.upload_key(self.service, "ssh-rsa nonsense")
        self.browser.upload_key(self.service, f"{key}\n")
        self.page("RUNNING")

    def startup_script(self) -> None:
        with shown("No startup script"):
            self.browser.startup_script(self.service)
        self.browser.upload_startup_script(self.service, STARTUP)

    def counts(self) -> dict[str, int]:
        return {role: len(ids) for role, ids in self.service.nodes.items()}

    def scales(self, role: str, impossible: dict[str, int], cloud: str = "default") -> None:
        """One node more and one less of a role; what the page offers and the manager cannot do is told in words."""
        before = self.counts()
        grown = self.browser.add_nodes(self.aid, self.sid, {role: 1}, cloud)
        self.page("RUNNING")
        new = php_pages.node(
            self.front.get(grown.manager, self.sid, "get_node_info", {"serviceNodeId": grown.nodes[role][-1]}), grown.nodes[role][-1]
        )
        assert new["cloud"] == ("iaas" if cloud == "default" else cloud), "iaas is shown as default"
        if self.kind not in ("php", "java"):  # there, one node of the three roles gives one of them away
            assert self.counts() == {**before, role: before[role] + 1}
        self.browser.logs(self.service)
        self.browser.remove_nodes(self.aid, self.sid, {role: 1})
        assert self.counts() == before
        with shown("."):
            self.front.post(self.service.manager, 0, "remove_nodes", {"service_id": self.sid, "nodes": impossible})
        with shown("."):
            self.front.post(self.service.manager, 0, "add_nodes", {"service_id": self.sid, "nodes": {}, "cloud": "default"})

    def ends(self) -> None:
        self.browser.logs(self.service)
        self.browser.stop_service(self.aid, self.sid)
        self.page("STOPPED")
        self.browser.start_service(self.aid, self.sid)
        self.page("RUNNING")
        self.browser.stop_service(self.aid, self.sid)
        self.browser.remove_service(self.aid, self.sid)
        assert self.sid not in self.browser.check_services(self.aid)
