"""From values to HTML: one Jinja2 environment, its filters, and the addresses of static files."""

from __future__ import annotations

import datetime
import functools
import hashlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import jinja2
import markupsafe

HERE: Final = pathlib.Path(__file__).parent
STATIC: Final = HERE / "static"
TEMPLATES: Final = HERE / "templates"

_LABELS: Final = {
    "INIT": "Not started",
    "PREINIT": "Not started",
    "PROLOGUE": "Starting",
    "RUNNING": "Running",
    "ADAPTING": "Changing",
    "EPILOGUE": "Stopping",
    "STOPPED": "Stopped",
    "ERROR": "Error",
    "UNREACHABLE": "Unreachable",
}
_ICONS: Final = {
    "INIT": "circle",
    "PREINIT": "circle",
    "PROLOGUE": "spinner",
    "RUNNING": "check",
    "ADAPTING": "spinner",
    "EPILOGUE": "spinner",
    "STOPPED": "stop",
    "ERROR": "warning",
    "UNREACHABLE": "offline",
}
TRANSIENT: Final = frozenset({"PREINIT", "PROLOGUE", "ADAPTING", "EPILOGUE"})


@functools.cache
def static_hash() -> str:
    """A hash over all static files: part of their addresses, so that browsers may keep them for good."""
    digest = hashlib.sha256()
    for path in sorted(STATIC.iterdir()):
        if path.is_file():
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def moment(value: object) -> markupsafe.Markup:
    """A time (seconds since the epoch, ISO text or datetime) as a `time` element; scripts make it local, with the exact time on hover."""
    at = as_datetime(value)
    if at is None:
        return markupsafe.Markup('<span class="faint">–</span>')
    exact = at.astimezone(datetime.UTC)
    shown = exact.strftime("%Y-%m-%d %H:%M UTC")
    return markupsafe.Markup('<time datetime="{}" title="{}">{}</time>').format(
        exact.strftime("%Y-%m-%dT%H:%M:%SZ"), exact.strftime("%Y-%m-%d %H:%M:%S UTC"), shown
    )


def as_datetime(value: object) -> datetime.datetime | None:
    """The time behind a number, a text or a datetime; None for what is none."""
    if isinstance(value, datetime.datetime):
        return value if value.tzinfo else value.replace(tzinfo=datetime.UTC)
    try:
        if isinstance(value, str) and not value.replace(".", "", 1).isdigit():
            parsed = datetime.datetime.fromisoformat(value)
            return parsed if parsed.tzinfo else parsed.replace(tzinfo=datetime.UTC)
        seconds = float(value)  # type: ignore[arg-type]
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC) if seconds > 0 else None
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def size(value: object, unit: int = 1) -> str:
    """Bytes (or, with `unit`, multiples of so many) for people: 1.5 MB."""
    try:
        amount = float(value) * unit  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return "–"
    for name in ("B", "KB", "MB", "GB"):
        if abs(amount) < 1024 or name == "GB":
            break
        amount /= 1024
    if name == "GB" and amount >= 1024:
        amount, name = amount / 1024, "TB"
    return f"{amount:.0f} {name}" if name == "B" or amount >= 100 or amount == int(amount) else f"{amount:.1f} {name}"


def megabytes(value: object) -> str:
    """MB for people."""
    return size(value, 1024 * 1024)


def duration(value: object) -> str:
    """Seconds for people: 45 s, 3 min 20 s, 5 h 10 min, 3 d 4 h."""
    try:
        seconds = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return "–"
    if seconds < 10 and seconds != int(seconds):
        return f"{seconds:.1f} s"
    left = round(seconds)
    for name, length, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if left >= length:
            whole, rest = divmod(left, length)
            return f"{whole} {name}" + (f" {rest // part} {smaller}" if rest // part else "")
    return f"{left} s"


def words(value: object) -> str:
    """A name of the code for people: create_nodes → Create nodes."""
    text = str(value).replace("_", " ").replace("-", " ").strip()
    return text[:1].upper() + text[1:]


def state_label(state: object) -> str:
    """What a state is called on screen."""
    return _LABELS.get(str(state), words(str(state).lower()))


def state_icon(state: object) -> str:
    """The icon of a state, a symbol of icons.svg."""
    return _ICONS.get(str(state), "circle")


def state_class(state: object) -> str:
    """The CSS class that colours a state."""
    name = str(state).lower()
    return f"state-{name}" if str(state) in _LABELS else "state-init"


class Renderer:
    """Makes pages and fragments. `root` is what stands before every path; `common` gives values that all templates see."""

    def __init__(self, root: str, common: Mapping[str, Any]) -> None:
        self._root = root
        self.environment = jinja2.Environment(
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            loader=jinja2.FileSystemLoader(TEMPLATES),
            trim_blocks=True,
            lstrip_blocks=True,
        )
        filters: dict[str, Callable[..., Any]] = {
            "moment": moment,
            "size": size,
            "megabytes": megabytes,
            "duration": duration,
            "words": words,
            "state_label": state_label,
            "state_icon": state_icon,
            "state_class": state_class,
        }
        self.environment.filters.update(filters)
        self.environment.tests["transient"] = lambda state: str(state) in TRANSIENT
        self.environment.globals.update(url=self.url, static=self.static, **common)

    def url(self, path: str) -> str:
        """The address of one of our pages."""
        return f"{self._root}{path}"

    def static(self, name: str) -> str:
        """The address of a static file."""
        return f"{self._root}/static/{static_hash()}/{name}"

    def render(self, template: str, **values: Any) -> str:
        """The text of a template. A name it does not know is an error."""
        return self.environment.get_template(template).render(**values)
