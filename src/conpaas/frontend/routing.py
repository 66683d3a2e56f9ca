"""How modules of pages declare what they have, and what happens around every page.

    ROUTES = [
        Page("/apps", show),
        Page("/apps/{aid:int}/stop", stop, methods=("POST",)),
    ]

A page is a plain function of one `Visit` that returns a response, or raises a `ConPaaSError`, which becomes a page of its own. It runs in a
thread, so it may call the Director and managers as it likes. A `Stream` is a coroutine function on the event loop.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import urllib.parse
import weakref
from collections.abc import Awaitable, Callable
from typing import Final, Literal

from starlette import concurrency, formparsers, requests, responses, routing

from conpaas.core import errors
from conpaas.frontend import problems, security, sessions, settings, upstream, visits

log = logging.getLogger(__name__)

Access = Literal["anyone", "user", "operator"]
SESSION_COOKIE: Final = "session"
VISIT_COOKIE: Final = "visit"
_ENDED, _UNDONE = "ended", "undone"
PAGES_AT_ONCE: Final = 8


class Turns:
    """How many pages of one person are made at the same time; more wait without a thread.

    So that one whose manager is silent for a minute, and who reloads, does not take the threads that others' pages need. Of one event loop.
    """

    def __init__(self) -> None:
        self._known: weakref.WeakValueDictionary[str, asyncio.Semaphore] = weakref.WeakValueDictionary()

    def of(self, visit: visits.Visit) -> asyncio.Semaphore:
        """The turn of whoever visits: a user, or an address that nobody signed in from."""
        key = f"user {visit.session.grant.uid}" if visit.session is not None else f"address {visit.address}"
        turn = self._known.get(key)
        if turn is None:
            turn = self._known[key] = asyncio.Semaphore(PAGES_AT_ONCE)
        return turn


@dataclasses.dataclass(frozen=True)
class Page:
    """One address. `access` says who may come; `upload`: bodies may be as large as the settings allow."""

    path: str
    function: Callable[[visits.Visit], responses.Response]
    methods: tuple[str, ...] = ("GET",)
    access: Access = "user"
    upload: bool = False


@dataclasses.dataclass(frozen=True)
class Stream:
    """One address whose answer takes as long as somebody listens."""

    path: str
    function: Callable[[visits.Visit], Awaitable[responses.Response]]


def cookie(request: requests.Request, configured: settings.Settings, name: str) -> str:
    """The value of one of our cookies; empty if the browser has none."""
    return request.cookies.get(configured.cookie_prefix + name, "")


def set_cookie(response: responses.Response, configured: settings.Settings, name: str, value: str, max_age: int | None = None) -> None:
    """Have the browser keep a cookie that no script and no other site gets; without `value`, forget it."""
    response.set_cookie(
        configured.cookie_prefix + name,
        value,
        max_age=max_age if value else 0,
        path=configured.root_path or "/",
        secure=configured.secure,
        httponly=True,
        samesite="lax",
    )


def open_visit(request: requests.Request, frontend: visits.Frontend) -> visits.Visit:
    """Who asks: the session of the cookie, else a visitor with a cookie of their own, so that their forms have a token, too."""
    secret = cookie(request, frontend.settings, SESSION_COOKIE)
    session = frontend.sessions.find(secret) if secret else None
    if session is not None:
        return visits.Visit(request, frontend, session, session.csrf, secret)
    secret = cookie(request, frontend.settings, VISIT_COOKIE)
    if not 20 <= len(secret) <= 200:
        secret = sessions.new_secret()
    return visits.Visit(request, frontend, None, sessions.csrf_token(secret), secret)


def end_session(visit: visits.Visit) -> None:
    """Forget a session that the Director no longer takes."""
    if visit.session is not None:
        visit.frontend.upstreams.forget(visit.session.id)
        visit.frontend.sessions.end(visit.session.id)


def to_sign_in(visit: visits.Visit, reason: str = "") -> responses.Response:
    """Send somebody who is not signed in to where that is done, and from there back to the page they wanted."""
    wanted = visit.common()["path"] if visit.request.method in security.SAFE else visit.came_from or "/"
    words = {name: value for name, value in (("next", wanted if wanted != "/" else ""), ("said", reason)) if value}
    response = visit.redirect("/sign-in" + (f"?{urllib.parse.urlencode(words)}" if words else ""))
    if visit.scripted:
        response.status_code = 401
    set_cookie(response, visit.frontend.settings, SESSION_COOKIE, "")
    return response


def _refused(visit: visits.Visit, access: Access) -> responses.Response | None:
    if access != "anyone" and visit.session is None:
        if visit.request.method not in security.SAFE:
            return to_sign_in(visit, _UNDONE)
        return to_sign_in(visit, _ENDED if cookie(visit.request, visit.frontend.settings, SESSION_COOKIE) else "")
    if access == "operator" and visit.session is not None and not visit.session.operator:
        return problems.page(visit, problems.describe(errors.Forbidden("Only an operator of this Director sees this page.")))
    return None


async def _read_form(visit: visits.Visit, limit: int) -> responses.Response | None:
    """Read the body, if it is ours to read; what is wrong with it is a page."""
    headers = visit.request.headers
    given = headers.get(security.CSRF_HEADER, "")
    if given and not security.same_token(visit.csrf, given):
        return _stale(visit)
    try:
        bounded = requests.Request(visit.request.scope, security.bounded(visit.request.receive, headers, limit))
        visit.form = await bounded.form(max_files=20, max_fields=2000, max_part_size=settings.FORM_BYTES)
    except security.BodyTooLarge as error:
        text = f"This is more than the {limit // 1024 // 1024} MB that can be sent here."
        log.info("a body of more than %d bytes was refused", error.limit)
        return problems.page(visit, problems.describe(errors.TooLarge(text)))
    except (formparsers.MultiPartException, requests.ClientDisconnect, ValueError) as error:
        return problems.page(visit, problems.describe(errors.InvalidArgument(f"The form could not be read: {error}")))
    token = given or visit.field(security.CSRF_FIELD)
    return None if security.same_token(visit.csrf, token) else _stale(visit)


def _stale(visit: visits.Visit) -> responses.Response:
    text = "This form belongs to a session that has ended, or was not made by this site; nothing was done."
    problem = problems.Problem(403, "Nothing was done", text, "Go back, reload the page and try again.")
    return problems.page(visit, problem)


def _guarded(visit: visits.Visit, function: Callable[[visits.Visit], responses.Response]) -> responses.Response:
    """Call a page; what it raises becomes one. Runs in a thread."""
    try:
        return function(visit)
    except Exception as error:  # noqa: BLE001 - whatever a page raises, the browser gets a page
        if visit.session is not None and upstream.session_ended(error):
            log.info("the session of user %s ended: %s", visit.session.username, error)
            end_session(visit)
            visit.session = None
            return to_sign_in(visit, _ENDED)
        return problems.page(visit, problems.describe(error))


def _with_visit_cookie(visit: visits.Visit, response: responses.Response) -> responses.Response:
    known = cookie(visit.request, visit.frontend.settings, VISIT_COOKIE)
    if visit.session is None and known != visit.secret and visit.secret:
        set_cookie(response, visit.frontend.settings, VISIT_COOKIE, visit.secret)
    return response


def _endpoint(frontend: visits.Frontend, page: Page, turns: Turns) -> Callable[[requests.Request], Awaitable[responses.Response]]:
    limit = frontend.settings.upload_bytes if page.upload else settings.FORM_BYTES

    async def endpoint(request: requests.Request) -> responses.Response:
        visit = open_visit(request, frontend)
        response = _refused(visit, page.access)
        if response is None and request.method not in security.SAFE:
            response = await _read_form(visit, limit)
        if response is None:
            async with turns.of(visit):
                response = await concurrency.run_in_threadpool(_guarded, visit, page.function)
        await visit.form.close()
        return _with_visit_cookie(visit, response)

    return endpoint


def _stream_endpoint(frontend: visits.Frontend, stream: Stream) -> Callable[[requests.Request], Awaitable[responses.Response]]:
    async def endpoint(request: requests.Request) -> responses.Response:
        visit = open_visit(request, frontend)
        if visit.session is None:
            return responses.PlainTextResponse("The session has ended.\n", 401)
        try:
            return await stream.function(visit)
        except errors.ConPaaSError as error:
            problem = problems.describe(error)
            return responses.PlainTextResponse(f"{problem.text}\n", problem.status)

    return endpoint


def routes(frontend: visits.Frontend, declared: list[Page | Stream]) -> list[routing.BaseRoute]:
    """Starlette's routes for declared pages."""
    made: list[routing.BaseRoute] = []
    turns = Turns()
    for one in declared:
        if isinstance(one, Stream):
            made.append(routing.Route(one.path, _stream_endpoint(frontend, one), methods=["GET"]))
        else:
            made.append(routing.Route(one.path, _endpoint(frontend, one, turns), methods=list(one.methods)))
    return made


def missing(frontend: visits.Frontend) -> Callable[[requests.Request, Exception], Awaitable[responses.Response]]:
    """The handler of addresses that do not exist."""

    async def handler(request: requests.Request, _error: Exception) -> responses.Response:
        visit = open_visit(request, frontend)
        problem = problems.Problem(
            404, "Not found", "There is no page at this address.", "The address may be mistyped, or what it showed was deleted."
        )
        return _with_visit_cookie(visit, await concurrency.run_in_threadpool(problems.page, visit, problem))

    return handler
