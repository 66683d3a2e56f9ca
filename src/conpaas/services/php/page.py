"""What the page of a php service shows, beyond what all services have."""

from __future__ import annotations

from conpaas.core.pages import AT_REST, Action, Field, Form
from conpaas.services.webservers import page


def _setting(name: str, label: str, help: str, input: str = "text", choices: tuple[str, ...] = ()) -> Field:
    return Field(name, label, input, help, choices=choices, present=f"phpconf.{name}")


PHP = Form(
    "PHP",
    Action(
        "update_php_configuration",
        "Save",
        fields=(
            Field(
                "max_execution_time", "Execution time", "number", minimum=0, maximum=999_999, unit="s", present="phpconf.max_execution_time"
            ),
            _setting("memory_limit", "Memory of a script", "Such as 64M or 1G."),
            _setting("upload_max_filesize", "Largest uploaded file", "Such as 16M."),
            _setting("post_max_size", "Largest request", "Such as 32M; at least that of an uploaded file."),
            _setting("disable_functions", "Disabled functions", "Names, separated by commas.", "lines"),
            _setting("display_errors", "Debug mode", "On: visitors see the errors of PHP.", "choice", ("On", "Off")),
            _setting("log_errors", "Log errors", "Into the log of the backend.", "choice", ("On", "Off")),
        ),
        group="phpconf",
        states=AT_REST,
        done="The change is being made; visitors notice nothing of it.",
    ),
    method="get_configuration",
)

PAGE = page.page(
    "update_php_configuration",
    page.settings(page.FRONT_CONTROLLER, before=(PHP,)),
    "Upload an archive with your site, enable it, and start the service.",
)
