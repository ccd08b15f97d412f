"""Reads and writes of the rows of subscriptions, which every other module of this room shares.

The queryset methods of the models refuse to write, so nothing outside this room changes these rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from django.db import Error, OperationalError, connections
from django.db.models import QuerySet

from ..models import Subscription, SubscriptionLink
from ..protocol.subscriptions import subscription_not_found
from ..runtime.caller_transaction import atomic, in_callers_transaction
from ..runtime.write_lock import write_lock
from ..store.sql import statements
from ..store.sql.rows import slices

LOCK_MS = 1000
"""How long a statement waits for a lock, in milliseconds. The thread of the subscriptions does nothing else then."""


@contextmanager
def transaction(using: str, lock_ms: int = LOCK_MS) -> Iterator[None]:
    """Run the block in a transaction whose statements wait for locks for a limited time.

    Each statement sees what was committed before it, whatever the isolation level of the project: after it has waited
    for a lock, the block decides on the rows as they are then.

    Inside the caller's transaction all is as the caller has it. MySQL has a time limit of the connection instead. On
    SQLite the block has the write lock, so it has to be short: appends wait for it.
    """
    connection = connections[using]
    is_own = not in_callers_transaction(connection)
    if is_own and connection.vendor == "mysql":
        _execute(using, _READ_COMMITTED)  # for the next transaction only
    with write_lock(using).hold() if is_own else nullcontext(), atomic(using):
        if is_own and connection.vendor == "postgresql":
            _execute(using, f"{_READ_COMMITTED}; SET LOCAL lock_timeout = {lock_ms}")
        yield


_READ_COMMITTED = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED"


def _execute(using: str, sql: str) -> None:
    with connections[using].cursor() as cursor:
        cursor.execute(sql)


@contextmanager
def brief_waits(using: str, lock_ms: int) -> Iterator[None]:
    """Let the statements of the block, which only lock, wait as long as those of `transaction(using, lock_ms)`.

    MariaDB counts its own limit in seconds, so here it has a limit for whole statements. Other databases need nothing.

    Raises:
        django.db.OperationalError: another transaction holds a lock.
    """
    connection = connections[using]
    if connection.vendor != "mysql" or not getattr(connection, "mysql_is_mariadb", False):
        yield
        return
    before = _session_limit(connection)
    _set_session_limit(connection, lock_ms / 1000)
    try:
        yield
    except BaseException as error:
        with suppress(Error):  # the connection may be lost
            _set_session_limit(connection, before)
        if isinstance(error, Error) and error.args and error.args[0] == _STATEMENT_TIMEOUT:
            raise OperationalError(*_LOCK_WAIT_TIMEOUT) from error
        raise
    _set_session_limit(connection, before)


def _session_limit(connection: Any) -> float:
    """Return how long a statement of MariaDB may take, in seconds. 0: no limit."""
    with connection.wrap_database_errors, connection.connection.cursor() as cursor:
        cursor.execute("SELECT @@SESSION.max_statement_time")
        return float(cursor.fetchone()[0])


def _set_session_limit(connection: Any, seconds: float) -> None:
    # By the driver, because Django executes nothing after an error until the transaction ends.
    with connection.wrap_database_errors, connection.connection.cursor() as cursor:
        cursor.execute(f"SET SESSION max_statement_time = {seconds}")


_STATEMENT_TIMEOUT = 1969
_LOCK_WAIT_TIMEOUT = (1205, "Another transaction holds a lock for longer than the statement may wait.")
"""Number and text of an error of MariaDB."""


def subscriptions(using: str) -> QuerySet[Subscription]:
    """Return the subscriptions that exist, as a queryset that can write."""
    return Subscription.objects.using(using).unguarded().filter(name__isnull=False)


def links(using: str, **conditions: Any) -> QuerySet[SubscriptionLink]:
    """Return links, as a queryset that can write."""
    return SubscriptionLink.objects.using(using).unguarded().filter(**conditions)


def find(name: str, using: str, *, lock: bool = False) -> Subscription:
    """Return a subscription.

    Args:
        name: its id in URLs.
        using: alias of the database.
        lock: whether to lock its row until the end of the transaction.

    Raises:
        SubscriptionError: there is none of this name (404).
    """
    query = subscriptions(using).filter(name=name)
    subscription = (locked(query, using) if lock else query).first()
    if subscription is None:
        raise subscription_not_found()
    return subscription


def locked(query: QuerySet[Any], using: str, *, skip: bool = False, waits: bool = True) -> QuerySet[Any]:
    """Return a query that locks its rows, where the database has row locks.

    Args:
        query: the query.
        using: alias of the database.
        skip: whether to leave out the rows that other transactions hold.
        waits: whether to wait for such rows, or to fail at once.
    """
    features = connections[using].features
    if not features.has_select_for_update:
        return query
    if skip and features.has_select_for_update_skip_locked:
        return query.select_for_update(skip_locked=True)
    return query.select_for_update(nowait=not (waits or skip) and features.has_select_for_update_nowait)


def update(query: QuerySet[Any], using: str, **values: Any) -> None:
    """Update the rows of a query over several tables. No other transaction changes meanwhile what it selects by.

    For a subquery MariaDB and MySQL read the whole table, lock all rows that they read, and wait for transactions that
    hold one of them. So they get the ids.
    """
    if connections[using].vendor != "mysql":
        query.update(**values)
        return
    ids = list(query.values_list("pk", flat=True))
    for slice_ids in slices(ids):
        query.model._base_manager.using(using).unguarded().filter(pk__in=slice_ids).update(**values)


def move_cursors(moves: Iterable[tuple[SubscriptionLink, int | None, bool]], using: str) -> None:
    """Move the cursors of links whose rows are locked, with one statement for many.

    Args:
        moves: link, acknowledged position or None for nothing, and whether something is pending after it.
        using: alias of the database.
    """
    rows = [
        (link.subscription_id, link.path, link.stream_id, link.is_explicit, link.is_glob, position, is_pending)
        for link, position, is_pending in moves
    ]
    if rows:
        with connections[using].cursor() as cursor:
            statements(using).insert_links(cursor, rows)


def change(subscription: Subscription, using: str, **values: Any) -> None:
    """Write some columns of a subscription whose row is locked, and set them in the instance."""
    for name, value in values.items():
        setattr(subscription, name, value)
    Subscription.objects.using(using).unguarded().filter(pk=subscription.pk).update(**values)
