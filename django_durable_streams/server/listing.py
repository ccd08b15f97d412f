"""The listing of streams by HTTP, at `__ds/streams` in the root of the streams. Who may list is `can_list`.

A thread of its own reads the pages, so that a listing delays no read of a stream. Knows no SQL.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

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

_TIMES = ("expires_at", "created_at", "appended_at")

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


class Description(msgspec.Struct, gc=False):
    """A stream of a listing as clients get it. The fields are the first ones of `ListedStream`.

    A time without microseconds is its text, so that the texts of all times have the same length.
    """

    path: str
    content_type: str
    next_offset: str
    size: int
    closed: bool
    ttl: int | None
    expires_at: datetime | str | None
    created_at: datetime | str
    appended_at: datetime | str | None


class _Page(msgspec.Struct):
    streams: list[Description]
    cursor: str | None


def _page(query: ListingQuery, using: str) -> bytes:
    values, cursor = listing.page_values(query, using)
    return msgspec.json.encode(_Page([*map(describe, values)], cursor))


def describe(values: Sequence[Any]) -> Description:
    """Return a stream of a listing as clients get it, from the values of a `ListedStream`."""
    description = Description(*values[:-1])
    for name in _TIMES:
        moment = getattr(description, name)
        if moment is not None and not moment.microsecond:
            setattr(description, name, moment.isoformat(timespec="microseconds").replace("+00:00", "Z"))
    return description


_workers = ProcessObjects[CallWorker]()


def _worker_for(using: str) -> CallWorker:
    engine_for(using)  # which ends with the threads
    return _workers.get(using, lambda: CallWorker("durable-streams-listing", monitor_for(using), MAX_WAITING))
