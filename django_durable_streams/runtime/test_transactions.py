"""Refusal of work that cannot see the transaction of a running `TestCase`, which never commits.

The transaction belongs to the connection of the test's thread. Other threads, such as the engine's, do not see its
data, write outside of it, or wait for its locks until they give up. Without tests this module does nothing.
"""

from __future__ import annotations

import sys
from threading import Lock
from typing import Any
from weakref import WeakSet

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from . import execution

_test_connections: WeakSet[BaseDatabaseWrapper] = WeakSet()
_lock = Lock()


class InvisibleTransaction(RuntimeError):
    """Work was requested in a TestCase from a thread that cannot see the test's transaction."""

    def __init__(self, who: str) -> None:
        super().__init__(
            f"A TestCase is running, and {who} cannot see its transaction. Add StreamsMixin to the test case (from "
            "django_durable_streams.testing import StreamsMixin), take the fixture stream_client in a test of pytest, "
            "or use a TransactionTestCase, above all where threads of your own use streams. See docs/testing.md."
        )


def is_under_test() -> bool:
    """Whether Django's test environment is set up."""
    utils = sys.modules.get("django.test.utils")
    return utils is not None and hasattr(utils._TestState, "saved_data")


def check_engine(using: str) -> None:
    """Check that the threads of an engine see the data of a running test.

    Raises:
        InvisibleTransaction: a TestCase is running, and the engine has connections of its own.
    """
    if _test_connections and not execution.is_inline() and any(map(_is_in_test_case, _connections_to(using))):
        raise InvisibleTransaction("the engine, which serves requests, live readers and writers in threads of its own,")


def check_thread(using: str) -> None:
    """Check that this thread's connection sees the data of a running test.

    Raises:
        InvisibleTransaction: a TestCase is running in another thread.
    """
    if not _test_connections:
        return
    own = connections[using]
    others = (connection for connection in _connections_to(using) if connection is not own)
    if not _is_in_test_case(own) and any(map(_is_in_test_case, others)):
        raise InvisibleTransaction("this thread, which has a connection of its own,")


def _connections_to(using: str) -> list[BaseDatabaseWrapper]:
    with _lock:
        return [connection for connection in _test_connections if connection.alias == using]


def _is_in_test_case(connection: BaseDatabaseWrapper) -> bool:
    return any(getattr(block, "_from_testcase", False) for block in connection.atomic_blocks)


def _remember(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    if is_under_test():
        with _lock:
            _test_connections.add(connection)


connection_created.connect(_remember, dispatch_uid="durable_streams.under_test")
