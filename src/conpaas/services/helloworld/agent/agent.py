"""The agent of the helloworld service: answers the text it was given."""

from __future__ import annotations

from typing import Any

from conpaas.core import agent, config, expose, file, params


class HelloWorldAgent(agent.BaseAgent):
    """Answers the text of its configuration, or the one it was told since; that one survives a restart."""

    def __init__(self, configuration: config.Config) -> None:
        super().__init__(configuration)
        self._notes = file.Notes(self.paths.lib / "helloworld.json")

    @expose.expose("POST")
    def startup(self) -> None:
        """Take the node into service."""
        self.log.info("started up")

    @expose.expose("GET")
    def get_helloworld(self) -> dict[str, Any]:
        """Answer the text."""
        return {"result": self._notes.get("string") or self.config.get("agent", "STRING_TO_GENERATE")}

    @expose.expose("POST", params.Param("string", params.Text(max_length=1000, non_empty=True), help="The text."))
    def set_string(self, string: str) -> None:
        """Answer another text from now on."""
        self._notes.set(string=string)
