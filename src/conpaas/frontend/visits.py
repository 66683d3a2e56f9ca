"""One request, as the functions that make pages see it."""

from __future__ import annotations

import collections
import dataclasses
import json
import logging
import threading
import urllib.parse
from collections.abc import Callable
from concurrent import futures
from typing import TYPE_CHECKING, Any, Final, Literal

from starlette import datastructures, requests, responses

from conpaas.client import api, replies
from conpaas.core import errors
from conpaas.frontend import rendering, sessions, settings, throttle, upstream

if TYPE_CHECKING:
    from conpaas.frontend import live

log = logging.getLogger(__name__)
Tone = Literal["done", "warning", "error"]
THEMES: Final = ("auto", "light", "dark")
_MAX_NOTICES: Final = 5
_MAX_SESSIONS: Final = 5000
"""Sessions that something is still to be told; those that ended before they heard it are the first to be forgotten."""
_PATIENCE: Final = 1.0
"""Seconds that a browser waits for what the Director answers when it is done; what takes longer goes on without it."""


@dataclasses.dataclass(frozen=True)
class Notice:
    """Something to tell a person on the next page."""

    text: str
    tone: Tone = "done"
    hint: str = ""


class Notices:
    """What is still to be told, by session. Thread-safe; lost when the front-end restarts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: collections.OrderedDict[str, collections.deque[Notice]] = collections.OrderedDict()

    def put(self, session_id: str, notice: Notice) -> None:
        """Tell this on the session's next page."""
        with self._lock:
            self._waiting.setdefault(session_id, collections.deque(maxlen=_MAX_NOTICES)).append(notice)
            self._waiting.move_to_end(session_id)
            if len(self._waiting) > _MAX_SESSIONS:
                self._waiting.popitem(last=False)

    def take(self, session_id: str) -> list[Notice]:
        """What was to be told; it is told once."""
        with self._lock:
            return list(self._waiting.pop(session_id, ()))


@dataclasses.dataclass
class Frontend:
    """What one front-end process is made of."""

    settings: settings.Settings
    sessions: sessions.Store
    upstreams: upstream.Upstreams
    renderer: rendering.Renderer
    notices: Notices
    hub: live.Hub
    throttle: throttle.Throttle = dataclasses.field(default_factory=throttle.Throttle)
    workers: futures.ThreadPoolExecutor = dataclasses.field(
        default_factory=lambda: futures.ThreadPoolExecutor(16, thread_name_prefix="slow")
    )


@dataclasses.dataclass
class Visit:
    """One request. `session` is None for a visitor; `form` is empty unless the request changes something."""

    request: requests.Request
    frontend: Frontend
    session: sessions.Session | None
    csrf: str
    secret: str = dataclasses.field(repr=False)
    form: datastructures.FormData = dataclasses.field(default_factory=datastructures.FormData)

    @property
    def came_from(self) -> str:
        """The page of ours on which the form stood that was sent; empty where that is not known."""
        parts = urllib.parse.urlsplit(self.request.headers.get("referer", ""))
        if parts.netloc not in (self.request.headers.get("host", ""), urllib.parse.urlsplit(self.frontend.settings.origin).netloc):
            return ""
        path = local_path(parts.path.removeprefix(self.frontend.settings.root_path))
        return "" if path == "/" else path

    # -- who

    @property
    def user(self) -> sessions.Session:
        """The session of a page that only signed-in people see."""
        if self.session is None:
            raise errors.Unauthenticated("You are not signed in.")
        return self.session

    @property
    def upstream(self) -> upstream.Upstream:
        """The way to the Director and the managers as this user."""
        return self.frontend.upstreams.of(self.user)

    @property
    def director(self) -> api.Director:
        """The Director, called as this user."""
        return self.upstream.director

    def application(self) -> replies.Application:
        """The application that the address names by `aid`. Raises NotFound."""
        return self.upstream.application(self.number("aid"))

    def manager(self, application: replies.Application) -> api.Manager:
        """The manager of a started application, called as this user."""
        return self.upstream.manager(application)

    # -- what was asked

    def number(self, name: str) -> int:
        """A number of the address's path. Raises NotFound."""
        text = str(self.request.path_params[name])
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise errors.NotFound("There is no such page.")
        return int(text)

    def field(self, name: str, default: str = "") -> str:
        """A text field of the form, without spaces around it."""
        value = self.form.get(name)
        return value.strip() if isinstance(value, str) else default

    def raw_field(self, name: str) -> str:
        """A text field of the form exactly as it was typed (passwords, scripts)."""
        value = self.form.get(name)
        return value if isinstance(value, str) else ""

    def file(self, name: str) -> datastructures.UploadFile | None:
        """An uploaded file; `.file` is a binary file object, `.filename` what the sender calls it. None if none was chosen."""
        value = self.form.get(name)
        return value if isinstance(value, datastructures.UploadFile) and value.filename else None

    def query(self, name: str, default: str = "") -> str:
        """A parameter of the address."""
        return self.request.query_params.get(name, default)

    @property
    def address(self) -> str:
        """Where the request comes from; a reverse proxy's word counts only where PUBLIC_URL says that there is one."""
        return self.request.client.host if self.request.client else ""

    @property
    def scripted(self) -> bool:
        """Whether a script sent this and wants JSON instead of a page."""
        return self.request.headers.get("accept", "").startswith("application/json")

    # -- what is answered

    def tell(self, text: str, tone: Tone = "done", hint: str = "") -> None:
        """Tell the user something on the next page."""
        self.frontend.notices.put(self.user.id, Notice(text, tone, hint))

    def set_off(self, call: Callable[[], object]) -> None:
        """Make a call that the Director answers only when all is done. What it raises soon is raised; later, the next page tells."""
        begun = self.frontend.workers.submit(call)
        try:
            begun.result(_PATIENCE)
        except TimeoutError:
            session_id, notices = self.user.id, self.frontend.notices

            def tell(ended: futures.Future[object]) -> None:
                error = ended.exception()
                if error is not None:
                    log.warning("what user %s began failed later: %s", self.user.username, error)
                    notices.put(session_id, Notice(str(error), "error"))

            begun.add_done_callback(tell)

    def render(self, template: str, status: int = 200, **values: Any) -> responses.Response:
        """A page. Templates see what base.html needs and `values`."""
        told = self.frontend.notices.take(self.session.id) if self.session is not None else []
        text = self.frontend.renderer.render(template, **self.common(), notices=told, **values)
        return responses.HTMLResponse(text, status)

    def fragment(self, template: str, **values: Any) -> str:
        """A part of a page."""
        return self.frontend.renderer.render(template, **self.common(), **values)

    def common(self) -> dict[str, Any]:
        """What every template sees."""
        theme = self.request.cookies.get("conpaas-theme", "auto")
        return {
            "session": self.session,
            "csrf": self.csrf,
            "theme": theme if theme in THEMES else "auto",
            "path": self.request.scope["path"],
            "version": self.frontend.upstreams.version(),
        }

    def redirect(self, path: str) -> responses.Response:
        """Send the browser to one of our pages (a path without the root path); a script is told where to go."""
        target = self.frontend.renderer.url(path)
        if self.scripted:
            return responses.JSONResponse({"go": target})
        return responses.RedirectResponse(target, 303)

    def json(self, value: Any, status: int = 200) -> responses.Response:
        """A JSON reply to a script."""
        return responses.Response(json.dumps(value), status, media_type="application/json")

    def download(self, body: bytes | str, filename: str, media_type: str) -> responses.Response:
        """A file for the browser to keep. The name may be any text."""
        return responses.Response(body, media_type=media_type, headers={"Content-Disposition": disposition(filename)})


def disposition(filename: str) -> str:
    """The header that has a browser keep a reply as a file of this name."""
    clean = "".join("_" if letter in '/\\"' or not letter.isprintable() else letter for letter in filename)[:150] or "file"
    plain = clean.encode("ascii", "replace").decode().replace("?", "_")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{urllib.parse.quote(clean, safe='')}"


def local_path(text: str) -> str:
    """A path of ours to go on to after sign-in, or `/` for anything that could lead elsewhere."""
    if not text.startswith("/") or text.startswith("//") or "\\" in text or not text.isprintable() or len(text) > 500:
        return "/"
    parts = urllib.parse.urlsplit(text)
    return "/" if parts.scheme or parts.netloc or parts.path in ("/sign-in", "/sign-out") else text
