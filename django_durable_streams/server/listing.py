"""The listing of streams by HTTP, at `__ds/streams` in the root of the streams. Who may list is `can_list`.

A thread of its own reads the pages, so that a listing delays no read of a stream. Knows no SQL.
"""

from __future__ import annotations

import re
from datetime import datetime

import msgspec
from django.db import router

from ..access.base import Action
from ..access.guard import current_guard
from ..engine import engine_for
from ..models import Stream
from ..protocol import headers
from ..protocol.listings import DEFAULT_LIMIT, ListingQuery
from ..protocol.messages import Request, Response
from ..protocol.paths import CONTROL_ROOT
from ..runtime.call_worker import CallWorker
from ..runtime.monitor import monitor_for
from ..runtime.process_objects import ProcessObjects
from ..store.read import listing
from .control import choose_method, not_found

PATH = CONTROL_ROOT + "streams"

MAX_WAITING = 100
"""Listings of one process that wait for the thread."""

_DIGITS = re.compile("[0-9]{1,6}")


async def respond_listing(request: Request) -> Response:
    """Return a page of the streams whose paths begin with a prefix, as JSON.

    Raises:
        DurableStreamsError: the request is refused.
    """
    if request.path != PATH:
        raise not_found()
    choose_method(request, {"GET": None})
    query = _query(request)
    if (guard := current_guard()) is not None:
        await guard.admit_control(request, query.prefix, Action.LIST)
    using = router.db_for_write(Stream)
    body = await _worker_for(using).call(_page, query, using)
    content = [(headers.CONTENT_TYPE, b"application/json"), (headers.CONTENT_LENGTH, b"%d" % len(body))]
    return Response(200, content, body)


def _query(request: Request) -> ListingQuery:
    text = request.parameter("limit") or str(DEFAULT_LIMIT)
    limit = int(text) if _DIGITS.fullmatch(text) is not None else 0
    prefix, pattern, cursor = (request.parameter(name) or "" for name in ("prefix", "pattern", "cursor"))
    return ListingQuery.of(prefix, pattern, cursor, limit)


def _page(query: ListingQuery, using: str) -> bytes:
    streams, cursor = listing.page(query, using)
    return msgspec.json.encode({"streams": [describe(stream) for stream in streams], "cursor": cursor})


def describe(stream: listing.ListedStream) -> dict[str, object]:
    """Return a stream of a listing as the object that clients get."""
    return {
        "path": stream.path,
        "content_type": stream.content_type,
        "next_offset": stream.next_offset,
        "size": stream.size,
        "closed": stream.closed,
        "ttl": stream.ttl,
        "expires_at": _text(stream.expires_at),
        "created_at": _text(stream.created_at),
        "appended_at": _text(stream.appended_at),
    }


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


_workers = ProcessObjects[CallWorker]()


def _worker_for(using: str) -> CallWorker:
    engine_for(using)  # which ends with the threads
    return _workers.get(using, lambda: CallWorker("durable-streams-listing", monitor_for(using), MAX_WAITING))
