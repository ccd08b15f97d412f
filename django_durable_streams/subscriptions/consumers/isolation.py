"""A worker's connection, and the isolation level of its own transactions: READ COMMITTED, whatever the project has.

The rows of subscriptions are separated by locks. A transaction that waits for a lock must then see what the others have
committed meanwhile. With an older snapshot it could clear the mark of a new message.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.db import Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from ...runtime.caller_transaction import in_callers_transaction
from ...runtime.connection import notice_vanished_server

logger = logging.getLogger(__name__)


def prepare_connection(using: str) -> None:
    """Connect, if this thread has no connection, and make the connection fit for a worker.

    Its transactions end by themselves, also with `"AUTOCOMMIT": False` in DATABASES, and also after it was lost in the
    middle of a turn. It fails soon if the server has vanished.
    """
    connection = connections[using]
    if not connection.settings_dict["AUTOCOMMIT"]:
        connection.settings_dict = {**connection.settings_dict, "AUTOCOMMIT": True}  # the other threads share the dict
    if not connection.get_autocommit():  # a receiver of `connection_created` may have switched it off
        connection.set_autocommit(True)
    notice_vanished_server(connection)


@contextmanager
def own_connection(using: str) -> Iterator[None]:
    """Let the block work on a connection that is fit for a worker, in a thread that is not ours.

    That is the connection of the thread, unless the project manages its transactions with autocommit off. It may then
    be in a transaction of other code, and must come back as it was. So the block gets another one meanwhile.
    """
    theirs = connections[using]
    if theirs.in_atomic_block or theirs.get_autocommit():
        prepare_connection(using)
        yield
        return
    connections[using] = connections.create_connection(using)
    try:
        prepare_connection(using)
        yield
    finally:
        try:
            connections[using].close()
        finally:
            connections[using] = theirs


def forget_connections() -> None:
    """Close this thread's connections. Called outside of all transactions.

    A connection to MySQL that is lost right after COMMIT leaves Django's object inside of a transaction for ever, as it
    could not switch autocommit on. So new objects take the places of all.
    """
    for connection in connections.all(initialized_only=True):
        try:
            connection.close()
        except Exception as error:  # of the driver
            logger.debug("A connection could not be closed: %s", error)
        del connections[connection.alias]


@contextmanager
def read_committed(using: str) -> Iterator[None]:
    """Let transactions that begin in the block run at READ COMMITTED. Does nothing inside a transaction."""
    connection = connections[using]
    if connection.vendor not in _SWITCHES or in_callers_transaction(connection):
        yield
        return
    restore = _SWITCHES[connection.vendor](connection)
    driver_connection = connection.connection
    try:
        yield
    finally:
        if restore is not None and connection.connection is driver_connection:
            try:
                with connection.wrap_database_errors:
                    restore()
            except Error:  # the connection was lost; a new one has the level of the project
                connection.close()


def _switch_postgresql(connection: BaseDatabaseWrapper) -> Callable[[], None]:
    """Switch the level that the driver puts into BEGIN, which takes no query. Return the function that restores it."""
    from psycopg import IsolationLevel

    driver_connection = connection.connection
    previous = driver_connection.isolation_level

    def set_level(level: IsolationLevel | None) -> None:
        driver_connection.isolation_level = level

    with connection.wrap_database_errors:
        set_level(IsolationLevel.READ_COMMITTED)
    return lambda: set_level(previous)


def _switch_mysql(connection: BaseDatabaseWrapper) -> Callable[[], None] | None:
    """Switch the level of the session, unless it is Django's default already. Return the function that restores it."""
    level: str | None = connection.isolation_level  # type: ignore[attr-defined]
    if level == "read committed":
        return None

    def set_level(name: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET SESSION TRANSACTION ISOLATION LEVEL {name}")

    if level is None:  # that of the server
        with connection.cursor() as cursor:
            cursor.execute("SHOW VARIABLES WHERE Variable_name IN ('transaction_isolation', 'tx_isolation')")
            level = str(cursor.fetchall()[0][1]).replace("-", " ")
    previous = level
    set_level("READ COMMITTED")
    return lambda: set_level(previous)


_SWITCHES: dict[str, Callable[[BaseDatabaseWrapper], Callable[[], None] | None]] = {
    "postgresql": _switch_postgresql,
    "mysql": _switch_mysql,
}
