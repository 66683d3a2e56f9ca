"""Endpoints for front-ends with many open pages: has anything of these users changed?"""

from __future__ import annotations

import json
from typing import Any

import flask

from conpaas.core import errors, params
from conpaas.director import auth, changes, endpoint, runtime

blueprint = flask.Blueprint("changes", __name__)

_WATCHES = params.ListOf(params.Text(max_length=changes.LONGEST), max_items=changes.MOST)


@endpoint.endpoint(blueprint, "/watch", auth="user")
def watch(*, caller: auth.Caller) -> dict[str, Any]:
    """A `watch` of the user for `/changes`, good for so many `seconds`."""
    director = runtime.current()
    assert caller.uid is not None
    made = changes.watch(director.authority.secret(changes.PURPOSE), caller.uid, director.clock())
    return {"watch": made, "seconds": int(changes.LIFETIME.total_seconds())}


@endpoint.endpoint(
    blueprint,
    "/changes",
    auth="none",
    params=[
        params.Param("watches", params.Text(max_length=changes.MOST * (changes.LONGEST + 3)), help="JSON list of at most 1000 watches.")
    ],
)
def versions(*, watches: str) -> dict[str, Any]:
    """The `versions` of the users behind the watches, in their order: texts that differ once anything of theirs changed, and null for a
    watch that is not valid, or no longer.
    """
    try:
        given = _WATCHES.check(json.loads(watches))
    except ValueError as error:
        raise errors.InvalidArgument("Parameter 'watches' should be a JSON list of texts.") from error
    except errors.InvalidArgument as error:
        raise errors.InvalidArgument(f"Parameter 'watches': {error}.") from error
    director = runtime.current()
    secret, now = director.authority.secret(changes.PURPOSE), director.clock()
    uids = [changes.user_of(secret, one, now) for one in given]
    with director.database.reader() as session:
        known = changes.versions(session, [uid for uid in uids if uid is not None])
    return {"versions": [None if uid is None else known[uid] for uid in uids]}
