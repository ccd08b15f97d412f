"""Fixtures for pytest, on top of pytest-django. In the conftest.py at the root of the tests:

pytest_plugins = ["django_durable_streams.testing.plugin"]

pytest loads this module before Django is set up, so functions import the modules that need Django.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .client import StreamClient


@pytest.fixture(autouse=True)
def _engines_end_with_their_test() -> Iterator[None]:
    yield
    if "django_durable_streams.engine.engine" in sys.modules:
        from .engines import stop_engines

        stop_engines()


@pytest.fixture
def stream_engines(request: pytest.FixtureRequest) -> Iterator[None]:
    """The database, with engines for it.

    In a test with `django_db(transaction=True)` engines work as in production, and end with the test. In any other test
    they work inside the test's transaction.
    """
    from .engines import inline_engines, needs_inline_engines, stop_engines

    marker = request.node.get_closest_marker("django_db")
    in_transaction = not (
        "transactional_db" in request.fixturenames
        or (marker is not None and (marker.kwargs.get("transaction") or any(marker.args[:1])))
    )
    request.getfixturevalue("db" if in_transaction else "transactional_db")
    if needs_inline_engines(in_transaction):
        with inline_engines():
            yield
    else:
        yield
        stop_engines()


@pytest.fixture
def stream_client(stream_engines: None) -> StreamClient:
    """A client that creates streams, appends, reads and follows them live."""
    from .client import StreamClient

    return StreamClient()
