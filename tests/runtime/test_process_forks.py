"""Forks hold the locks of the service for a moment only, also where a signal comes in between."""

from collections.abc import Callable
from functools import partial
from threading import Event, Lock, Thread
from types import ModuleType
from unittest.mock import Mock

import pytest
from django.db import connections
from django.test import RequestFactory

from django_durable_streams import health
from django_durable_streams.engine import readiness
from django_durable_streams.engine.wakeup import signing
from django_durable_streams.engine.wakeup.signing import MessageSigner, SignerLoader
from django_durable_streams.runtime import process_forks
from django_durable_streams.store.database_identity import LocatedIdentity

SECONDS = 10.0


class InterruptedLock:
    """A lock during whose wait a signal handler raises."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        raise KeyboardInterrupt

    def release(self) -> None:
        raise AssertionError("it was never acquired")


@pytest.fixture
def lock(monkeypatch: pytest.MonkeyPatch) -> Lock:
    lock = Lock()
    monkeypatch.setattr(process_forks, "_outer", [lock])
    monkeypatch.setattr(process_forks, "_inner", [])
    return lock


def test_a_fork_holds_the_locks_until_it_is_done(lock: Lock) -> None:
    process_forks._acquire_all()
    assert lock.locked()
    process_forks._release_all()
    assert not lock.locked()


def test_a_fork_that_is_interrupted_leaves_no_lock_held(lock: Lock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_forks, "_inner", [InterruptedLock()])
    with pytest.raises(KeyboardInterrupt):
        process_forks._acquire_all()
    process_forks._release_all()  # Python forks nevertheless
    assert not lock.locked()


def test_no_fork_releases_what_an_earlier_one_has_held(lock: Lock, monkeypatch: pytest.MonkeyPatch) -> None:
    process_forks._acquire_all()
    process_forks._release_all()
    monkeypatch.setattr(process_forks, "_outer", [InterruptedLock()])
    with pytest.raises(KeyboardInterrupt):
        process_forks._acquire_all()
    with lock:
        process_forks._release_all()
        assert lock.locked()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("module", "name", "begin"),
    [
        (signing, "located_identity", lambda: SignerLoader("default", partial(MessageSigner, "p", "")).get(SECONDS)),
        (readiness, "try_tables", lambda: readiness.check_setup("default", Mock())),
        (health, "try_tables", lambda: health.readyz(RequestFactory().get("/readyz"))),
    ],
    ids=["identity", "start", "readyz"],
)
def test_a_fork_waits_for_a_short_thread_that_works_in_sqlite(
    module: ModuleType, name: str, begin: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child process would wait for ever for a mutex that such a thread held."""
    if connections["default"].vendor != "sqlite":
        pytest.skip("its connections have no locks in the memory of the process")
    works, goes_on, order = Event(), Event(), list[str]()

    def work(using: str, **options: bool) -> LocatedIdentity:
        works.set()
        assert goes_on.wait(SECONDS)
        order.append("work")
        return LocatedIdentity("a database", "")

    def fork() -> None:
        process_forks._acquire_all()
        order.append("fork")
        process_forks._release_all()

    monkeypatch.setattr(process_forks, "FORK_SECONDS", SECONDS)
    monkeypatch.setattr(module, name, work)
    threads = [Thread(target=begin), Thread(target=fork)]
    threads[0].start()
    try:
        assert works.wait(SECONDS)
        threads[1].start()
        threads[1].join(0.2)
        assert not order
    finally:
        goes_on.set()
        for thread in threads:
            thread.join(SECONDS)
    assert order == ["work", "fork"]
