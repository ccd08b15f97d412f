"""What is pending for a subscription: links whose streams have data after the cursor.

An append to a linked stream marks the stream UNSEEN, in its own statement. `look_at_unseen` turns these marks into
pending links, and makes their subscriptions due. So nothing is lost however a process ends, and the cost does not grow
with the number of links.

The locks are taken in one order: streams, then subscriptions, then links. A function that begins with a subscription
locks no stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from django.db.models import Exists, F, OuterRef, QuerySet
from django.db.models.functions import Coalesce

from .. import clock
from ..models import Stream, Subscription, SubscriptionLink
from ..models.stream import LinkState
from ..protocol import offsets
from ..runtime.caller_transaction import atomic
from ..store.read import lineage, log_reader
from ..store.stream_info import StreamInfo
from .rows import links, locked, subscriptions

UNSEEN_PER_STEP = 500
"""Streams that one transaction looks at."""

LINKS_PER_WAKE = 1000
"""Streams that one wake names at most. The others are still pending after it."""


class PendingLink(NamedTuple):
    """A link whose stream has data after the cursor, with the offsets of both as clients see them."""

    link_id: int
    path: str
    is_explicit: bool
    acked_offset: str
    tail_offset: str
    tail: int


def look_at_unseen(using: str) -> bool:
    """Make subscriptions due whose streams have new appends. Return whether there may be more such streams."""
    unseen = Stream.objects.using(using).filter(link_state=LinkState.UNSEEN).order_by("id")
    if not unseen.exists():  # without a transaction, which would take the write lock on SQLite
        return False
    with atomic(using):
        stream_ids = list(locked(unseen, using, skip=True).values_list("id", flat=True)[:UNSEEN_PER_STEP])
        if not stream_ids:
            return False
        follower_ids = set(links(using, stream_id__in=stream_ids).values_list("subscription_id", flat=True))
        if follower_ids:
            # All of them: the wake of one that is not idle may end in a transaction that is not committed yet.
            followers = list(locked(subscriptions(using).filter(pk__in=follower_ids).order_by("id"), using))
            _with_data(links(using, stream_id__in=stream_ids, is_pending=False)).update(is_pending=True)
            pending = links(using, subscription_id=OuterRef("pk"), stream_id__in=stream_ids, is_pending=True)
            idle_ids = [one.pk for one in followers if one.is_idle]
            subscriptions(using).filter(Exists(pending), pk__in=idle_ids).update(due_at=clock.now())
        rows = Stream.objects.using(using).unguarded().filter(pk__in=stream_ids)
        has_link = Exists(links(using, stream_id=OuterRef("pk")))
        rows.filter(has_link).update(link_state=LinkState.SEEN)
        rows.filter(~has_link).update(link_state=None)
    return len(stream_ids) == UNSEEN_PER_STEP


def _with_data(query: QuerySet[SubscriptionLink]) -> QuerySet[SubscriptionLink]:
    return query.filter(stream__tail_position__gt=Coalesce(F("acked_position"), 0))


def pending_links(subscription: Subscription, using: str, limit: int = LINKS_PER_WAKE) -> list[PendingLink]:
    """Return pending links of a subscription whose row is locked, also of streams that were not looked at yet.

    Clears the mark of links that have nothing pending any more.
    """
    marked = list(links(using, subscription=subscription, is_pending=True).order_by("id")[: 2 * limit])
    new = links(using, stream__link_state=LinkState.UNSEEN, subscription=subscription, is_pending=False)
    new = _with_data(new).order_by("id")[:limit]
    candidates = [*marked, *new]
    infos = _existing_streams({link.stream_id for link in candidates}, using)
    has_data = [
        link
        for link in candidates
        if (info := infos.get(link.stream_id)) is not None and info.tail > (link.acked_position or 0)
    ]
    pending_ids = {link.pk for link in has_data}
    done = [link.pk for link in marked if link.pk not in pending_ids]
    if done:
        _clear(done, using)
    return [describe(link, infos[link.stream_id], using) for link in has_data[:limit] if link.stream_id is not None]


def _clear(link_ids: Sequence[int], using: str) -> None:
    """Clear marks, if they are still wrong once the rows are locked: an append may have been looked at meanwhile."""
    rows = locked(links(using, pk__in=link_ids).order_by("id"), using)
    locked_links = {link.pk: link for link in rows}
    infos = _existing_streams({link.stream_id for link in locked_links.values()}, using)
    wrong = [
        link.pk
        for link in locked_links.values()
        if (info := infos.get(link.stream_id)) is None or info.tail <= (link.acked_position or 0)
    ]
    links(using, pk__in=wrong).update(is_pending=False)


def _existing_streams(stream_ids: Iterable[int | None], using: str) -> dict[int | None, StreamInfo]:
    """Return the streams with these ids that can be read now."""
    wanted = [stream_id for stream_id in stream_ids if stream_id is not None]
    return dict(log_reader.find_ids(wanted, using).items()) if wanted else {}


def describe(link: SubscriptionLink, info: StreamInfo, using: str) -> PendingLink:
    """Return a link with its offsets."""
    return PendingLink(
        link.pk,
        link.path,
        link.is_explicit,
        offset_at(info, link.acked_position, using),
        offset_at(info, info.tail, using),
        info.tail,
    )


def offset_at(info: StreamInfo, position: int | None, using: str) -> str:
    """Return the offset of a position. None: before the first byte, as nothing was acknowledged."""
    if position is None:
        return offsets.Sentinel.START.value
    return lineage.around(info, using, position, position).token(position)
