"""What all tests share: coroutines as tests, engines that end with their test, and how hypothesis works here."""

import asyncio
import functools
import gc
import inspect
import os
import signal
import threading
from collections.abc import Coroutine, Generator, Iterator
from itertools import count
from typing import Any

import httpx
import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from django.test import TransactionTestCase
from hypothesis import HealthCheck, settings

from tests.emptying import quick_emptying
from tests.examples import enough
from tests.referring import Make, referring_models
from tests.spreading import spread
from tests.time_limit import UNFINISHED, end_of_run, fail_if_nothing_passed, skip_if_over

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell has its background commands ignore it, and processes that tests start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile(
    "tests", deadline=None, max_examples=enough(100), suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tests")

TEST_SECONDS = 90.0
"""Within this time a test that is a coroutine has to end: one that waits for what never comes must fail."""


DATABASE_FIXTURES = {"db", "transactional_db", "django_db_setup", "live_server", "stream_engines"}
"""With one of them, a mark or a test case of Django's, a test may use the database. pytest-django keeps others off."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of these tests."""
    parser.addoption("--only-database", action="store_true", help="leave out the tests that use no database")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that are the same on every database, if that is asked for. Begin with the slow ones."""
    items[:] = spread(items, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    if config.getoption("--only-database"):
        config.hook.pytest_deselected(items=[item for item in items if not _uses_database(item)])
        items[:] = filter(_uses_database, items)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Begin no test when the time of the run is over."""
    skip_if_over(end_of_run(), UNFINISHED)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail if the time was over before the first test."""
    fail_if_nothing_passed(session, end_of_run())


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep all that is made for ten thousand tests: the garbage collector would look through it again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        # At the usual 700 objects it takes a twentieth of the time of all tests.
        gc.set_threshold(20_000, 20, 20)
        gc.enable()


def _uses_database(item: pytest.Item) -> bool:
    case = getattr(item, "cls", None)
    return (
        item.get_closest_marker("django_db") is not None
        or not DATABASE_FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))
        or (isinstance(case, type) and issubclass(case, TransactionTestCase))
    )


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


@pytest.fixture(scope="session", autouse=True)
def _quick_emptying() -> Iterator[None]:
    with quick_emptying():
        yield


@pytest.fixture(scope="session", autouse=True)
def _shared_certificates() -> Iterator[None]:
    """Let all clients share one TLS context: each would read the certificates of the system anew, for 70 ms."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("httpx._transports.default.create_ssl_context", functools.cache(httpx.create_ssl_context))
        yield


@pytest.fixture(scope="session", autouse=True)
def _forgotten_resolvers() -> Iterator[None]:
    """Let resolvers of URLs leave nothing in the context of the main thread, which no variable ever leaves.

    Each change of ROOT_URLCONF makes new ones. Each would have a variable there, and every `sync_to_async` copies all
    variables: after some thousand tests this took 40 % of the time of tests with views. Resolvers need a variable for
    each thread only, as nothing in them awaits.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("django.urls.resolvers.Local", threading.local)
        yield


@pytest.fixture(scope="module", autouse=True)
def _quick_collections(request: pytest.FixtureRequest) -> None:
    """Keep all that earlier modules have left, where tests collect garbage: each time would take 0.2 seconds."""
    if "gc" in vars(request.module):
        gc.collect()  # only garbage may not be kept
        gc.freeze()


@pytest.fixture
def engines(transactional_db: None) -> Iterator[None]:
    """A database that the engine's threads see too, and no thread of theirs after the test."""
    from django_durable_streams.testing import stop_engines

    yield
    stop_engines()


@pytest.fixture
def no_consumers() -> Iterator[None]:
    """A registry of consumers that is empty at the beginning of the test."""
    from django_durable_streams.subscriptions.consumers import declarations

    consumers, duplicates = dict(declarations._consumers), list(declarations._duplicates)
    declarations._consumers.clear()
    declarations._duplicates.clear()
    yield
    declarations._consumers.clear()
    declarations._consumers.update(consumers)
    declarations._duplicates[:] = duplicates


@pytest.fixture
def make(transactional_db: None) -> Iterator[Make]:
    """Makes a model of a project with a foreign key to streams, for one test."""
    with referring_models() as make:
        yield make


@pytest.fixture
def counted_generations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let streams have one generation after the other, and not what the clock says: a test can write their tokens."""
    from django_durable_streams.protocol import offsets
    from django_durable_streams.store.write import linking
    from tests.tokens import FIRST

    # With the rules of another test, the first create would be tried twice, and so count twice.
    monkeypatch.setattr(linking, "_cached", {})
    numbers = count(FIRST)
    monkeypatch.setattr(offsets, "new_generation", lambda after=0: max(next(numbers), after + 1))
