"""The leases and cursors of consumers: one row for each stream, which one worker at a time holds.

A claim is a random token in the row. Each statement names the token, so a worker whose lease has ended changes nothing.
No statement waits for a handler: the cursor is moved by the last statement of the handler's transaction. Only a
transaction that creates a stream again at its path holds a link for longer. Claims skip such links, the last statement
of a handler's transaction waits for `ADVANCE_LOCK_MS`, and the other statements wait for a second. MySQL and MariaDB
have a limit of the connection instead.

A link is live while the pattern of its consumer matches its path. The others keep their cursors, and nobody handles
them: another version of the code may have changed the pattern, and change it back.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import Error, connections
from django.db.models import Exists, F, Func, OuterRef, Q, QuerySet, Sum, TextField, Value
from django.db.models.functions import Coalesce, Greatest
from django.db.models.lookups import GreaterThan

from ... import clock
from ...models import SubscriptionLink
from ...runtime.caller_transaction import in_callers_transaction
from ...runtime.database_errors import FailureKind, diagnose
from ...store.read import log_reader
from ...store.stream_info import StreamInfo
from ..rows import links, locked, subscriptions, transaction
from .isolation import read_committed

MAX_ERROR_LENGTH = 20_000
"""Characters of a stored error, from its end."""

ADVANCE_LOCK_MS = 5000
"""How long the last statement of a handler's transaction waits for a lock, in milliseconds."""

WORKER_VANISHED = "The worker ended, or could not reach the database, while the handler ran."


class ClaimLost(Exception):
    """Another worker has the stream, the cursor was reset, or the stream is another one now. Roll back."""


@dataclass(slots=True)
class Claim:
    """The right to handle the messages of a stream."""

    link_id: int
    subscription_id: int
    path: str
    stream_id: int | None
    position: int | None
    """The cursor, as the database has it."""
    failures: int
    holder: str
    lease: float
    """In seconds."""
    has_vanished: bool = False
    """Whether the worker before it has neither finished nor failed."""

    def rows(self, using: str) -> QuerySet[SubscriptionLink]:
        """Return the row of the link, if this claim still holds it for the same stream."""
        return links(using, pk=self.link_id, holder=self.holder, stream_id=self.stream_id)


def _lease_end(seconds: float) -> Any:
    return clock.now() + timedelta(seconds=seconds)


IS_LIVE = Q(is_glob=True)


def live_links(using: str, **conditions: Any) -> QuerySet[SubscriptionLink]:
    """Return links of consumers whose pattern matches the path."""
    return links(using, **conditions).filter(IS_LIVE)


def _pending(using: str, **conditions: Any) -> QuerySet[SubscriptionLink]:
    query = live_links(using, is_pending=True, is_stopped=False, **conditions)
    # A replay is the holder of the whole subscription.
    query = query.filter(subscription__is_paused=False, subscription__holder="", subscription__name__isnull=False)
    return query.filter(stream__path__isnull=False)  # a transaction may hold links of removed streams


def with_pending(subscription_ids: Collection[int], using: str) -> list[int]:
    """Return those of some subscriptions that have pending links, in one query."""
    pending = Exists(_pending(using, subscription_id=OuterRef("pk")))
    return list(subscriptions(using).filter(pending, pk__in=subscription_ids).values_list("pk", flat=True))


def claimable(subscription_id: int, using: str, after: int, limit: int) -> list[SubscriptionLink]:
    """Return links with pending messages that no worker holds, in the order of their ids, after the id `after`.

    One subscription at a time, because the index has its links in this order.
    """
    now = clock.now()
    is_free = Q(lease_expires_at__isnull=True) | Q(lease_expires_at__lte=now)
    is_due = Q(next_attempt_at__isnull=True) | Q(next_attempt_at__lte=now)
    return list(
        _pending(using, subscription_id=subscription_id).filter(is_free, is_due, pk__gt=after).order_by("pk")[:limit]
    )


def seconds_until_due(subscription_ids: Collection[int], using: str) -> float | None:
    """Return the seconds until an attempt is due or a lease ends. None: neither is ahead."""
    now = clock.now()
    pending = _pending(using, subscription_id__in=subscription_ids)
    times = [
        pending.filter(**{f"{column}__gt": now}).order_by(column).values_list(column, flat=True)
        for column in ("next_attempt_at", "lease_expires_at")
    ]
    first = [clock.from_project(moment) for moment in (query.first() for query in times) if moment is not None]
    return (min(first) - now).total_seconds() if first else None


def claim(link: SubscriptionLink, lease: float, using: str) -> Claim | None:
    """Take a link that was free, if nothing has changed it since, and no transaction holds it."""
    holder = secrets.token_hex(16)
    same = links(
        using,
        pk=link.pk,
        holder=link.holder,
        stream_id=link.stream_id,
        acked_position=link.acked_position,
        failures=link.failures,
        is_pending=True,
        is_stopped=False,
    )
    if link.holder:
        same = same.filter(lease_expires_at__lte=clock.now())
    values: dict[str, Any] = {"holder": holder, "lease_expires_at": _lease_end(lease)}
    failures = link.failures
    if link.holder:  # the worker that had it may have ended by what the handler does
        failures += 1
        values |= {"failures": failures, "last_error": WORKER_VANISHED}
    with transaction(using):
        is_held = connections[using].features.has_select_for_update and not locked(same, using, skip=True).exists()
        if is_held or not same.update(**values):
            return None
    return Claim(
        link.pk,
        link.subscription_id,
        link.path,
        link.stream_id,
        link.acked_position,
        failures,
        holder,
        lease,
        has_vanished=bool(link.holder),
    )


def advance(held: Claim, position: int, using: str, *, failures: int = 0) -> None:
    """Move the cursor, as the last statement of the handler's transaction.

    The claim itself changes after the commit only (`Claim.position`).

    Raises:
        ClaimLost: the claim does not hold the link any more.
    """
    values: dict[str, Any] = {"acked_position": position, "lease_expires_at": _lease_end(held.lease)}
    if failures != held.failures:
        values["failures"] = failures
    if not failures:
        values |= {"next_attempt_at": None, "last_error": ""}
    rows = held.rows(using).filter(acked_position=held.position)
    if connections[using].vendor == "postgresql":
        # In the same statement, because another one takes a round trip for each batch.
        limit = Func(
            Value("lock_timeout"), Value(str(ADVANCE_LOCK_MS)), True, function="set_config", output_field=TextField()
        )
        rows = rows.filter(GreaterThan(limit, Value("")))
    if not rows.update(**values):
        raise ClaimLost


def renew(held: Claim, using: str) -> bool:
    """Extend the lease. Return whether the claim still holds the link. Also the first statement on SQLite."""
    # In the handler's transaction, a transaction of its own would be a savepoint, which takes two statements.
    with nullcontext() if in_callers_transaction(connections[using]) else transaction(using):
        return bool(held.rows(using).update(lease_expires_at=_lease_end(held.lease)))


def release(held: Claim, using: str) -> None:
    """Give the link back."""
    _give_back(held, using)


def release_unless_locked(held: Claim, using: str) -> bool:
    """Give the link back without a wait. Return False if another transaction holds it at the moment."""
    with transaction(using):
        if held.rows(using).exists():
            if connections[using].features.has_select_for_update and not locked(held.rows(using), using, skip=True):
                return False
            release(held, using)
        return True


def finish(
    held: Claim, tail: int, using: str, *, passed: int | None = None, goes_on: bool = False
) -> StreamInfo | None:
    """Give the link back after all messages before a position, and clear its mark unless there are more by now.

    Key compaction may have removed the last messages, so that no handler moves the cursor after them. This does.

    The lock on the subscription separates this from `pending.look_at_unseen`, which finds the mark cleared, or sets it
    before the tail is read here.

    Args:
        held: the claim.
        tail: the position up to which the stream was read.
        passed: the position before which no message is left. None: leave the cursor where it is.
        using: alias of the database.
        goes_on: whether the claim stays if there are more messages.

    Returns:
        The stream as it is now if the claim stays, otherwise None.
    """
    with read_committed(using), transaction(using):
        if connections[using].features.has_select_for_update:
            list(locked(subscriptions(using).filter(pk=held.subscription_id), using).values_list("pk"))
        info = None if held.stream_id is None else log_reader.find_ids([held.stream_id], using).get(held.stream_id)
        has_more = info is not None and info.tail > tail
        if has_more and goes_on:
            return info
        # A worker that has ended after the last message says nothing of the next one.
        kept: dict[str, Any] = {"is_pending": has_more, "failures": 0, "next_attempt_at": None, "last_error": ""}
        if passed is not None and passed > (held.position or 0):
            kept["acked_position"] = passed
        held.rows(using).update(holder="", lease_expires_at=None, **kept)
    return None


def fail(held: Claim, error: str, delay: float, using: str) -> None:
    """Give the link back after a failure, with the failures of the claim, for another attempt after some seconds."""
    _give_back(held, using, **_failure(held, error), next_attempt_at=_lease_end(delay))


def note_failures(held: Claim, error: str, using: str) -> None:
    """Store the failures of a claim that goes on."""
    _change(held, using, **_failure(held, error))


def stop(held: Claim, error: str, using: str) -> None:
    """Stop the stream: no worker takes it until somebody resumes it."""
    _give_back(held, using, **_failure(held, error), is_stopped=True)


def _failure(held: Claim, error: str) -> dict[str, Any]:
    return {"failures": held.failures, "last_error": error[-MAX_ERROR_LENGTH:]}


def _give_back(held: Claim, using: str, **values: Any) -> None:
    _change(held, using, holder="", lease_expires_at=None, **values)


def _change(held: Claim, using: str, **values: Any) -> None:
    try:
        with transaction(using):
            held.rows(using).update(**values)
    except Error as problem:  # the database's encoding may lack characters of the error, and the failure has to count
        error = values.get("last_error", "")
        if error.isascii() or diagnose(problem) is FailureKind.BUSY:
            raise
        values["last_error"] = error.encode("ascii", "backslashreplace").decode()[-MAX_ERROR_LENGTH:]
        with transaction(using):
            held.rows(using).update(**values)


def unhandled_bytes(subscription_id: int, using: str) -> int:
    """Return how many bytes of existing streams lie after the cursors of a consumer. Trimmed bytes do not count."""
    following = live_links(
        using, subscription_id=subscription_id, stream__path__isnull=False, stream__deleted_at__isnull=True
    )
    cursor = Greatest(Coalesce(F("acked_position"), 0), F("stream__first_position"))
    has_rest = following.filter(stream__tail_position__gt=cursor)
    return has_rest.aggregate(rest=Sum(F("stream__tail_position") - cursor))["rest"] or 0
