"""What all tests share: coroutines as tests, engines that end with their test, and how hypothesis works here."""

import asyncio
import inspect
from collections.abc import Coroutine, Iterator
from itertools import count
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from hypothesis import HealthCheck, settings

from tests.referring import Make, referring_models

settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

TEST_SECONDS = 30.0
"""Within this time a test that is a coroutine has to end: one that waits for what never comes must fail."""


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine function, in an event loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    asyncio.run(_bounded(pyfuncitem.obj(**arguments)))
    return True


async def _bounded(test: Coroutine[Any, Any, None]) -> None:
    try:
        await asyncio.wait_for(test, TEST_SECONDS)
    finally:
        # Those of the thread in which synchronous code runs: a database with open connections cannot be dropped.
        await sync_to_async(connections.close_all)()


@pytest.fixture
def engines(transactional_db: None) -> Iterator[None]:
    """A database that the engine's threads see too, and no thread of theirs after the test."""
    from django_durable_streams.testing import stop_engines

    yield
    stop_engines()


@pytest.fixture
def make(transactional_db: None) -> Iterator[Make]:
    """Makes a model of a project with a foreign key to streams, for one test."""
    with referring_models() as make:
        yield make


@pytest.fixture
def counted_generations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let streams have one generation after the other, and not what the clock says: a test can write their tokens."""
    from django_durable_streams.protocol import offsets
    from tests.tokens import FIRST

    numbers = count(FIRST)
    monkeypatch.setattr(offsets, "new_generation", lambda after=0: max(next(numbers), after + 1))
