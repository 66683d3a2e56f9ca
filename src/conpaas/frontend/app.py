"""The ASGI application: what is behind every address, and what one process is made of."""

from __future__ import annotations

import contextlib
import mimetypes
from collections.abc import AsyncIterator
from typing import Any, Final

from anyio import to_thread
from starlette import applications, concurrency, middleware, requests, responses, routing

import conpaas
from conpaas.frontend import live, pages, rendering, security, sessions, settings, upstream, visits
from conpaas.frontend import routing as our_routing

THREADS: Final = 80
"""Pages that are made at the same time."""


def make(configured: settings.Settings) -> applications.Starlette:
    """The application of one front-end process. Raises ConfigurationError."""
    frontend = assemble(configured)
    missing = our_routing.missing(frontend)

    @contextlib.asynccontextmanager
    async def lifespan(_app: applications.Starlette) -> AsyncIterator[None]:
        to_thread.current_default_thread_limiter().total_tokens = THREADS
        yield
        await frontend.hub.close()
        frontend.workers.shutdown(wait=False, cancel_futures=True)
        await concurrency.run_in_threadpool(frontend.upstreams.close)
        frontend.sessions.close()

    made = applications.Starlette(
        routes=[
            routing.Route("/health", _health),
            routing.Route("/static/{version}/{name}", _static),
            *our_routing.routes(frontend, pages.declared()),
        ],
        middleware=[middleware.Middleware(security.Guard, configured=configured)],
        exception_handlers={404: missing, 405: missing},
        lifespan=lifespan,
    )
    made.router.redirect_slashes = False  # what it would redirect to does not know about reverse proxies
    made.state.frontend = frontend
    return made


def assemble(configured: settings.Settings) -> visits.Frontend:
    """What one process is made of."""
    common: dict[str, Any] = {"release": conpaas.__version__}
    hub = live.Hub()
    return visits.Frontend(
        settings=configured,
        sessions=sessions.Store(configured.state_dir, configured.idle_seconds),
        upstreams=upstream.Upstreams(configured, hub.nudge),
        renderer=rendering.Renderer(configured.root_path, common),
        notices=visits.Notices(),
        hub=hub,
    )


async def _health(_request: requests.Request) -> responses.Response:
    return responses.JSONResponse({"status": "ok", "version": conpaas.__version__})


_FILES = {path.name: path for path in rendering.STATIC.iterdir() if path.is_file()}


def _static(request: requests.Request) -> responses.Response:
    """A static file; browsers keep it for good when the address has the hash of what is there now."""
    path = _FILES.get(request.path_params["name"])
    if path is None:
        return responses.PlainTextResponse("There is no such file.\n", 404)
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    current = request.path_params["version"] == rendering.static_hash()
    return responses.FileResponse(path, media_type=kind, headers={"Cache-Control": security.LONG if current else "no-store"})
