"""Forks hold the locks of the service for a moment only, also where a signal comes in between."""

from threading import Lock

import pytest

from django_durable_streams.runtime import process_forks


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
