"""The queue of commits for a slow Redis is bounded by number and by bytes."""

from threading import Event

import pytest

pytest.importorskip("redis")

from django_durable_streams.engine.wakeup import redis as backend
from django_durable_streams.engine.wakeup.redis import RedisWakeup
from django_durable_streams.store.operations import Commit


def commit(start: int, size: int) -> Commit:
    return Commit(1, "a", "text/plain", start, start + size, False, appends=[bytes(size)], ends=[start + size])


@pytest.mark.parametrize(("size", "most"), [(8 * 1024 * 1024, 2), (1024 * 1024, 16), (100, backend.MAX_QUEUED)])
@pytest.mark.parametrize("together", [1, 3])
@pytest.mark.slow
def test_the_queue_for_redis_is_bounded(size: int, most: int, together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    began, go_on, published = Event(), Event(), []

    def slow(commits: list[Commit]) -> None:
        published.append(len(commits))
        began.set()
        assert go_on.wait(20)

    wakeup = RedisWakeup("default", url="redis://127.0.0.1:1")
    monkeypatch.setattr(wakeup, "publish_now", slow)
    try:
        wakeup.publish([commit(0, size)])
        assert began.wait(20)
        for number in range(1, 2000):
            wakeup.publish([commit(size * number, size)] * together)
        assert len(wakeup._thread) <= most
    finally:
        go_on.set()
        wakeup.stop()
    assert sum(published) <= 1 + most * together
    assert wakeup._unsent == wakeup._unsent_bytes == 0


def test_one_batch_may_be_larger_than_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    published: list[int] = []
    wakeup = RedisWakeup("default", url="redis://127.0.0.1:1")
    monkeypatch.setattr(wakeup, "publish_now", lambda commits: published.extend(each.tail for each in commits))
    wakeup.publish([commit(0, 2 * backend.MAX_QUEUED_BYTES)])
    wakeup.stop()
    assert published == [2 * backend.MAX_QUEUED_BYTES]
