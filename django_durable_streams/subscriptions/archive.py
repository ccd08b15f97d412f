"""Restores the subscriptions, consumers and cursors of an archive, after its streams.

A cursor goes on where it was, and never back: one that is further already stays. So an import can be repeated. A
subscription that is here already must have the same configuration. The pattern links streams that the archive does not
have, as for every new subscription (`backfill`), but only after all cursors of the archive. That sets them to the ends
of their streams, so with patterns the other cursors are restored as well, on streams that are here without a link.

Leases and wakes are not restored. The next look finds what is pending.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from .. import clock
from ..models import Stream, Subscription, SubscriptionLink
from ..models.stream import LinkState
from ..protocol.errors import DurableStreamsError
from ..protocol.globs import Glob, glob
from ..store.archive.directory import ArchiveReader
from ..store.archive.lines import ArchiveError
from ..store.archive.records import StreamRecord
from ..store.archive.subscription_records import LinkRecord, SubscriptionReader, SubscriptionRecord
from .addresses import receiver_of
from .operating import perform
from .registry import check_wake_stream
from .rows import change, find, links, locked, move_cursors, subscriptions
from .rules import changing_link_rules

LINKS_PER_STEP = 200
"""Cursors that one transaction restores. Appends to their streams wait for it."""


class Restored(NamedTuple):
    """What was restored so far."""

    subscriptions: int = 0
    cursors: int = 0


class _Furthest(NamedTuple):
    """The furthest cursor on a stream, and the place of its record, for messages."""

    position: int
    place: int


class SubscriptionImport:
    """Restores what an archive has of subscriptions.

    Args:
        reader: the archive.
        using: alias of the database.
        patterns: restore only subscriptions with a cursor on a stream that matches one of these, and these cursors.
            None of them: all.

    Raises:
        InvalidPath: a pattern is invalid.
    """

    def __init__(self, reader: ArchiveReader, using: str, patterns: Sequence[str] = ()) -> None:
        self._reader = reader
        self._using = using
        self._globs: list[Glob] = [glob(pattern) for pattern in patterns]
        self._furthest: dict[tuple[str, int], _Furthest] = {}
        self._chosen_names: set[str] = set()

    def check(self) -> None:
        """Check all records, and that they fit the database. Changes nothing.

        Raises:
            ArchiveError: a record is damaged or foreign, or a subscription here has another configuration.
        """
        name = ""
        for record, reader in self._reader.subscriptions():
            if isinstance(record, SubscriptionRecord):
                name = record.name
                self._check_subscription(record, reader)
                continue
            if self._is_chosen(record.path):
                self._chosen_names.add(name)
            if record.generation is not None and record.position is not None:
                key = record.path, record.generation
                furthest = self._furthest.get(key)
                if furthest is None or record.position > furthest.position:
                    self._furthest[key] = _Furthest(record.position, reader.position)

    def _check_subscription(self, record: SubscriptionRecord, reader: SubscriptionReader) -> None:
        try:
            if record.webhook_url:
                receiver_of(record.webhook_url)
            check_wake_stream(record.wake_stream)
        except DurableStreamsError as error:
            raise reader.error(f"{record.shown_name}: {error.detail}") from error
        existing = subscriptions(self._using).filter(name=record.name).first()
        if existing is not None and not _is_same(existing, record):
            raise reader.error(
                f"{record.shown_name} is here already, with another configuration. Delete it, or leave the cursors out."
            )

    def check_stream(self, stream: StreamRecord) -> None:
        """Check that no cursor is past the end of a stream of the archive. Called after `check`.

        Raises:
            ArchiveError: one is.
        """
        furthest = self._furthest.get((stream.path, stream.generation))
        if furthest is not None and furthest.position > stream.tail:
            place = f"{self._reader.subscriptions_name}, byte {furthest.place}"
            raise ArchiveError(f"{place}: the cursor on {stream.path} is past its end.")

    def restore(self) -> Iterator[Restored]:
        """Restore all, in short transactions, and yield how far it is. Called after `check` and after the streams.

        Raises:
            ServiceUnavailable: another transaction holds a lock for long. Repeat the import: it goes on.
        """
        done = Restored()
        for subscription, records in self._subscriptions():
            if self._globs and subscription.name not in self._chosen_names:
                for _ in records:
                    pass
                continue
            present = perform(self._using, _create, subscription, self._using)
            wanted = (record for record in records if record.is_glob or self._is_chosen(record.path))
            for portion in _portions(wanted):
                count = perform(self._using, _restore_links, present.pk, portion, self._is_chosen, self._using)
                done = done._replace(cursors=done.cursors + count)
                yield done
            perform(self._using, _finish, subscription, self._using)
            done = done._replace(subscriptions=done.subscriptions + 1)
            yield done

    def _is_chosen(self, path: str) -> bool:
        return not self._globs or any(pattern.matches(path) for pattern in self._globs)

    def _subscriptions(self) -> Iterator[tuple[SubscriptionRecord, Iterator[LinkRecord]]]:
        """Yield each subscription with its links, which have to be consumed."""
        following: SubscriptionRecord | None = None
        records = (record for record, _ in self._reader.subscriptions())

        def links_of() -> Iterator[LinkRecord]:
            nonlocal following
            for record in records:
                if isinstance(record, SubscriptionRecord):
                    following = record
                    return
                yield record

        for _ in links_of():  # none: the file begins with a subscription
            pass
        while following is not None:
            present, following = following, None
            yield present, links_of()


def _portions(records: Iterable[LinkRecord]) -> Iterator[list[LinkRecord]]:
    portion: list[LinkRecord] = []
    for record in records:
        portion.append(record)
        if len(portion) == LINKS_PER_STEP:
            yield portion
            portion = []
    if portion:
        yield portion


def _is_same(existing: Subscription, record: SubscriptionRecord) -> bool:
    # The hash of a consumer is empty while its pattern changes.
    is_consumer = record.kind == Subscription.Kind.CONSUMER
    same_configuration = is_consumer or existing.config_hash == record.config_hash
    return (existing.kind, existing.pattern) == (record.kind, record.pattern) and same_configuration


def _create(record: SubscriptionRecord, using: str) -> Subscription:
    """Create a subscription that is not here yet, and return it. Its pattern counts for new streams from now on."""
    existing = subscriptions(using).filter(name=record.name).first()
    if existing is not None:
        return existing
    with changing_link_rules(using):
        subscription = Subscription(
            name=record.name,
            kind=record.kind,
            pattern=record.pattern,
            webhook_url=record.webhook_url,
            receiver=receiver_of(record.webhook_url) if record.webhook_url else "",
            wake_stream=record.wake_stream,
            lease_ms=record.lease_ms,
            description=record.description,
            config_hash=record.config_hash,
            base_url=record.base_url,
            from_beginning=record.from_beginning,
            is_paused=record.is_paused,
            generation=record.generation,
            created_at=clock.to_project(clock.from_microseconds(record.created_at)),
        )
        (created,) = subscriptions(using).bulk_create([subscription])
        return created


def _restore_links(
    subscription_id: int, records: Sequence[LinkRecord], is_chosen: Callable[[str], bool], using: str
) -> int:
    """Restore some cursors in one transaction, and return how many there are now.

    Those on paths that are not chosen are restored where a stream has no link yet.
    """
    if any(record.is_explicit for record in records):
        with changing_link_rules(using):
            return _write_links(subscription_id, records, is_chosen, using)
    return _write_links(subscription_id, records, is_chosen, using)


def _write_links(
    subscription_id: int, records: Sequence[LinkRecord], is_chosen: Callable[[str], bool], using: str
) -> int:
    by_path = {record.path: record for record in records}
    rows = Stream.objects.using(using).alive().filter(path__in=by_path).order_by("id")
    streams = {stream.path: stream for stream in locked(rows.defer("lineage"), using)}
    if locked(subscriptions(using).filter(pk=subscription_id), using).first() is None:
        raise ArchiveError("A subscription of the archive was deleted during the import. Repeat the import.")
    here = links(using, subscription_id=subscription_id, path__in=by_path)
    existing = {link.path: link for link in locked(here.order_by("id"), using)}
    moves: list[tuple[SubscriptionLink, int | None, bool]] = []
    restored: dict[str, LinkRecord] = {}
    for path, record in by_path.items():
        stream, present = streams.get(path), existing.get(path)
        if (None if stream is None else stream.generation) != record.generation:
            continue  # the stream has ended since, or another one is at its path
        if not is_chosen(path) and (stream is None or present is not None):
            continue
        tail = 0 if stream is None else stream.tail_position
        position = None if record.position is None else min(record.position, tail)
        link = SubscriptionLink(
            subscription_id=subscription_id,
            path=path,
            stream=stream,
            is_explicit=record.is_explicit,
            is_glob=record.is_glob,
        )
        if present is None or present.stream_id != link.stream_id or _acked(present) < (position or 0):
            moves.append((link, position, False))
            restored[path] = record
        elif _acked(present) == (position or 0) and not present.holder:
            restored[path] = record
    move_cursors(moves, using)
    restored_links = links(using, subscription_id=subscription_id)
    stopped = [path for path, record in restored.items() if record.is_stopped]
    restored_links.filter(path__in=stopped).update(is_stopped=True)
    explicit = [path for path, record in restored.items() if record.is_explicit]
    restored_links.filter(path__in=explicit).update(is_explicit=True)
    _mark(moves, using)
    return len(moves)


def _acked(link: SubscriptionLink) -> int:
    return link.acked_position or 0


def _mark(moves: Sequence[tuple[SubscriptionLink, int | None, bool]], using: str) -> None:
    """Let appends mark the streams from now on, and let the next look find what is pending already."""
    stream_ids = [link.stream_id for link, _, _ in moves if link.stream_id is not None]
    rows = Stream.objects.using(using).unguarded().filter(pk__in=stream_ids)
    rows.filter(link_state__isnull=True).update(link_state=LinkState.SEEN)
    # One look reads streams without news as well, and finds nothing there.
    rows.filter(tail_position__gt=0, link_state=LinkState.SEEN).update(link_state=LinkState.UNSEEN)


def _finish(record: SubscriptionRecord, using: str) -> None:
    """Have the streams linked that match the pattern and were not in the archive."""
    subscription = find(record.name, using, lock=True)
    if subscription.pattern and subscription.linked_through is None:
        change(subscription, using, linked_through=0)
