"""Telling a test at once that nobody else sees what it does: a `TestCase` never commits.

Its transaction is that of one connection, its thread's. Other threads, such as the engine's, see nothing of it, write
past it, or wait for it until they give up. Nothing here does anything where no tests run.
"""

from __future__ import annotations

import sys
from threading import Lock
from typing import Any
from weakref import WeakSet

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

_known: WeakSet[BaseDatabaseWrapper] = WeakSet()
_lock = Lock()

engines_join = False
"""Whether engines work inside the test's transaction (`testing.inline_engines`)."""


class InvisibleTransaction(RuntimeError):
    """Something was asked for in a TestCase that cannot see the test's transaction."""

    def __init__(self, who: str) -> None:
        super().__init__(
            f"A TestCase is running, and {who} cannot see its transaction. Add StreamsMixin to the test case (from "
            "django_durable_streams.testing import StreamsMixin), take the fixture stream_client in a test of pytest, "
            "or use a TransactionTestCase, above all where threads of your own use streams. docs/testing.md has more."
        )


def is_under_test() -> bool:
    """Whether Django's test environment is set up."""
    utils = sys.modules.get("django.test.utils")
    return utils is not None and hasattr(utils._TestState, "saved_data")


def check_engine(using: str) -> None:
    """See that the threads of an engine can do what a test wants.

    Raises:
        InvisibleTransaction: a TestCase is running, and they have connections of their own.
    """
    if not engines_join and any(map(_is_in_test_case, _of(using))):
        raise InvisibleTransaction("the engine, which serves requests, live readers and writers in threads of its own,")


def check_thread(using: str) -> None:
    """See that this thread's connection can do what a test wants.

    Raises:
        InvisibleTransaction: a TestCase is running in another thread.
    """
    if not _known:
        return
    own = connections[using]
    if not _is_in_test_case(own) and any(_is_in_test_case(other) for other in _of(using) if other is not own):
        raise InvisibleTransaction("this thread, which has a connection of its own,")


def _of(using: str) -> list[BaseDatabaseWrapper]:
    with _lock:
        return [connection for connection in _known if connection.alias == using]


def _is_in_test_case(connection: BaseDatabaseWrapper) -> bool:
    return any(getattr(block, "_from_testcase", False) for block in connection.atomic_blocks)


def _note(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    if is_under_test():
        with _lock:
            _known.add(connection)


connection_created.connect(_note, dispatch_uid="durable_streams.under_test")
