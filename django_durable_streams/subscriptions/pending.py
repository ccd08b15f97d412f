"""What is pending for a subscription: links whose streams have data after the cursor.

An append to a linked stream marks the stream UNSEEN, in its own statement. `look_at_unseen` turns these marks into
pending links, and makes their subscriptions due. So nothing is lost however a process ends, and the cost does not grow
with the number of links.

The locks are taken in one order: streams, then subscriptions, then links. A function that begins with a subscription
locks no stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from django.db.models import Exists, F, OuterRef, QuerySet
from django.db.models.functions import Coalesce

from .. import clock
from ..models import Stream, Subscription, SubscriptionLink
from ..models.stream import LinkState
from ..protocol import offsets
from ..store.read import lineage, log_reader
from ..store.sql import statements
from ..store.sql.rows import slices
from ..store.stream_info import StreamInfo
from .rows import links, locked, subscriptions, transaction, update

UNSEEN_PER_STEP = 500
"""Streams that one transaction looks at."""

LINKS_PER_LOOK = 2000
"""Links to such streams that one transaction marks. Appends to the streams wait for it, unless it is about one stream
with more links."""

LINKS_PER_WAKE = 1000
"""Streams that one wake names at most. The others are still pending after it, and the next wake begins with them."""

LINKS_PER_STEP = 5000
"""Links that one transaction compares with their streams at most, until it finds what is pending."""

SPARE_LINKS = 100
"""Links that one query reads beyond the wanted ones, as some may have nothing pending any more."""


class PendingLink(NamedTuple):
    """A link whose stream has data after the cursor, with the offsets of both as clients see them."""

    link_id: int
    stream_id: int
    path: str
    is_explicit: bool
    acked_offset: str
    tail_offset: str
    tail: int


class Pending(NamedTuple):
    """What is pending for a subscription."""

    links: list[PendingLink]
    is_complete: bool
    """False if nothing pending was found yet, but not all links were compared."""


class LookResult(NamedTuple):
    """What became of a look at streams with new appends."""

    through: int
    """The id of the last stream if there may be more such streams, otherwise 0."""
    is_held_up: bool = False
    """Whether another transaction held the row of such a stream. No message tells when it is over: look again soon."""


def look_at_unseen(using: str, after: int = 0) -> LookResult:
    """Make subscriptions due whose streams have new appends.

    Args:
        using: alias of the database.
        after: look only at streams with greater ids.
    """
    unseen = Stream.objects.using(using).filter(link_state=LinkState.UNSEEN, id__gt=after).order_by("id")
    ids = unseen.values_list("id", flat=True)
    expected_ids = {*ids[:UNSEEN_PER_STEP]}
    if not expected_ids:  # without a transaction, which would take the write lock on SQLite
        return LookResult(0)
    noted = statements(using).look_values()
    with transaction(using):
        stream_ids = list(locked(ids, using, skip=True)[:UNSEEN_PER_STEP])
        if not stream_ids:
            return LookResult(0, is_held_up=True)
        first_id: int = stream_ids[0]
        # Streams that were skipped, or that another worker has just looked at.
        is_held_up = not expected_ids.issubset(stream_ids)
        stream_ids, follower_ids, is_complete = _with_followers(stream_ids, using)
        if follower_ids:
            _mark(_present_links(stream_ids, using), follower_ids, using)
        rows = Stream.objects.using(using).unguarded().filter(pk__in=stream_ids)
        has_link = Exists(links(using, stream_id=OuterRef("pk")))
        update(rows.filter(has_link), using, link_state=LinkState.SEEN, **noted)
        update(rows.filter(~has_link), using, link_state=None)
    if not stream_ids:
        _look_in_portions(first_id, using)
        return LookResult(first_id, is_held_up)
    return LookResult(0 if is_complete else stream_ids[-1], is_held_up)


def _look_in_portions(stream_id: int, using: str) -> None:
    """Look at one stream with very many followers, in several transactions. No append waits for them.

    The stream is UNSEEN until all followers have learned of its present data. After a change meanwhile it stays so,
    because a follower that was marked before may have taken all that there was before the change.
    """
    rows = Stream.objects.using(using).unguarded().filter(pk=stream_id, link_state=LinkState.UNSEEN)
    seen = rows.values("tail_position", "closed").first()  # a close may complete a message, too
    if seen is None:
        return
    present = _present_links([stream_id], using)
    follower_ids = list(present.order_by("subscription_id").values_list("subscription_id", flat=True))
    for slice_ids in slices(follower_ids, LINKS_PER_LOOK):
        with transaction(using):
            _mark(present.filter(subscription_id__in=slice_ids), slice_ids, using)
    noted = statements(using).look_values()
    with transaction(using):
        if list(locked(rows.filter(**seen), using, skip=True).values_list("pk")):
            rows.update(link_state=LinkState.SEEN, **noted)


def _with_followers(stream_ids: list[int], using: str) -> tuple[list[int], set[int], bool]:
    """Return the first of some locked streams, the ids of the subscriptions that follow them, and whether it is all.

    Returns no stream if the first one alone has too many followers.
    """
    pairs = list(_present_links(stream_ids, using).order_by("stream_id").values_list(*_FOLLOWER)[:LINKS_PER_LOOK])
    if len(pairs) < LINKS_PER_LOOK:
        return stream_ids, {follower_id for _, follower_id in pairs}, len(stream_ids) < UNSEEN_PER_STEP
    cut = pairs[-1][0]  # not all of its links may be there
    return [one for one in stream_ids if one < cut], {follower_id for one, follower_id in pairs if one < cut}, False


_FOLLOWER = ("stream_id", "subscription_id")


def _present_links(stream_ids: Sequence[int], using: str) -> QuerySet[SubscriptionLink]:
    """Return the links to some streams, except for removed ones.

    A transaction that creates a stream at the path of a removed one may hold its links for long.
    """
    return links(using, stream_id__in=stream_ids, stream__path__isnull=False)


def _mark(present: QuerySet[SubscriptionLink], follower_ids: Iterable[int], using: str) -> None:
    """Mark links as pending, where they are, and make their subscriptions due that are idle.

    Args:
        present: the links.
        follower_ids: ids of their subscriptions.
        using: alias of the database.
    """
    # All of them: the wake of one that is not idle may end in a transaction that is not committed yet.
    followers = list(locked(subscriptions(using).filter(pk__in=follower_ids).order_by("id"), using))
    update(_with_data(present.filter(is_pending=False)), using, is_pending=True)
    pending = present.filter(subscription=OuterRef("pk"), is_pending=True)
    idle_ids = [one.pk for one in followers if one.is_idle]
    update(subscriptions(using).filter(Exists(pending), pk__in=idle_ids), using, due_at=clock.now())


def _with_data(query: QuerySet[SubscriptionLink]) -> QuerySet[SubscriptionLink]:
    # Of trimmed data there is nothing to read.
    return query.filter(
        stream__tail_position__gt=Coalesce(F("acked_position"), 0),
        stream__first_position__lt=F("stream__tail_position"),
    )


def pending_links(subscription: Subscription, using: str, limit: int | None = None) -> Pending:
    """Return pending links of a subscription whose row is locked, also of streams that were not looked at yet.

    Clears the mark of links that have nothing pending any more.

    Args:
        subscription: the subscription.
        using: alias of the database.
        limit: the largest number of links. None: as many as a wake names.
    """
    limit = LINKS_PER_WAKE if limit is None else limit
    result: list[PendingLink] = []
    wrong: list[int] = []
    compared = 0
    for slice_links in _candidates(subscription, using, limit + SPARE_LINKS):
        infos = _existing_streams({link.stream_id for link in slice_links}, using)
        for link in slice_links:
            info = infos.get(link.stream_id)
            if info is None or not _has_data(link, info):
                wrong += [link.pk] if link.is_pending else []
            elif len(result) < limit:
                result.append(describe(link, info, using))
        compared += len(slice_links)
        if len(result) == limit or (compared >= LINKS_PER_STEP and not result):
            break
    else:
        compared = 0
    if wrong:
        _clear(wrong, using)
    return Pending(result, bool(result) or not compared)


def _candidates(subscription: Subscription, using: str, size: int) -> Iterator[list[SubscriptionLink]]:
    """Yield links that may be pending, in slices. The links after those of the last wake come first."""
    marked = links(using, subscription=subscription, is_pending=True).order_by("id")
    for part in (
        marked.filter(id__gt=subscription.offered_through),
        marked.filter(id__lte=subscription.offered_through),
    ):
        rows = list(part[:size])
        while rows:
            yield rows
            rows = list(part.filter(id__gt=rows[-1].pk)[:size]) if len(rows) == size else []
    unseen_ids = Stream.objects.using(using).filter(link_state=LinkState.UNSEEN, path__isnull=False)
    stream_ids = list(unseen_ids.values_list("id", flat=True)[:size])
    if stream_ids:
        # The sum keeps the database from reading all links of the subscription.
        owned = links(using).annotate(owner=F("subscription_id") + 0).filter(owner=subscription.pk)
        yield list(_with_data(owned.filter(stream_id__in=stream_ids, is_pending=False)))


def _has_data(link: SubscriptionLink, info: StreamInfo) -> bool:
    return info.bytes_after(link.acked_position) > 0


def _clear(link_ids: Sequence[int], using: str) -> None:
    """Clear marks, if they are still wrong once the rows are locked: the stream may be another one meanwhile."""
    rows = locked(links(using, pk__in=link_ids).order_by("id"), using, skip=True)
    locked_links = {link.pk: link for link in rows}
    infos = _existing_streams({link.stream_id for link in locked_links.values()}, using)
    wrong = [
        link.pk
        for link in locked_links.values()
        if (info := infos.get(link.stream_id)) is None or not _has_data(link, info)
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
        info.id,
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
