"""Existing streams are linked in portions that leave appends their turn."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event
from types import SimpleNamespace

import pytest

from django_durable_streams.models import Subscription, SubscriptionLink
from django_durable_streams.subscriptions import backfill
from tests.subscriptions.steps import USING, one_at_a_time, stream, subscribe


@pytest.fixture
def unlinked(db: None, monkeypatch: pytest.MonkeyPatch) -> int:
    """A subscription with three streams to link, one in each portion."""
    for name in "abc":
        stream(f"events/{name}")
    subscribe("s")
    SubscriptionLink.objects.unguarded().delete()
    Subscription.objects.unguarded().update(linked_through=0)
    one_at_a_time(monkeypatch)
    return Subscription.objects.get().pk


def test_a_portion_is_followed_by_a_rest_of_the_same_length(unlinked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    moments, used = iter([10.0, 10.1, 10.4, 10.5, 10.6, 10.9, 10.9, 10.9, 11.0]), iter([1.0, 1.3, 1.4, 1.5])
    clock = SimpleNamespace(monotonic=lambda: next(moments), thread_time=lambda: next(used))
    monkeypatch.setattr(backfill, "time", clock)
    assert backfill.link_portion(unlinked, USING).pause == pytest.approx(0.3)
    assert backfill.link_portion(unlinked, USING).pause == pytest.approx(0.2)
    assert SubscriptionLink.objects.count() == 1
    assert backfill.link_portion(unlinked, USING).pause == pytest.approx(0.1)
    assert SubscriptionLink.objects.count() == 2


def test_a_portion_is_as_large_as_its_time_allows() -> None:
    pace = backfill._Pace()
    assert pace.streams == backfill.MIN_STREAMS
    sizes = []
    for seconds_each in [0.00002, 0.00002, 0.00005, 0.00008, 1.0]:
        pace.adapt(pace.streams * seconds_each)
        sizes.append(pace.streams)
    assert sizes[:2] == [400, 500], "at most twice as many as before, so that none takes long"
    assert sizes[2:4] == [400, 250]
    assert sizes[4] == backfill.MIN_STREAMS
    for _ in range(20):
        pace.adapt(0.0)
    assert pace.streams == backfill.MAX_STREAMS


def test_one_thread_links_at_a_time(unlinked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, may_end = Event(), Event()

    def slow(*args: object) -> backfill.Progress:
        begun.set()
        may_end.wait()
        return backfill.Progress(is_done=False, is_held_up=False)

    with ThreadPoolExecutor(1) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(backfill, "_link_next", slow)
            first = pool.submit(backfill.link_portion, unlinked, USING)
            begun.wait()
        try:
            second = backfill.link_portion(unlinked, USING)
        finally:
            may_end.set()
        assert second == backfill.Progress(is_done=False, is_held_up=True, pause=backfill.HELD_UP_PAUSE)
        assert not first.result().is_held_up
    assert SubscriptionLink.objects.count() == 0


def test_streams_that_another_process_links_meanwhile_are_linked_once(
    unlinked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = backfill._next_matching

    def beside_another(text: str, after: int, using: str, limit: int) -> tuple[dict[int, str], int | None]:
        matching = compare(text, after, using, limit)
        with monkeypatch.context() as patch:
            patch.setattr(backfill, "_next_matching", compare)
            assert not backfill._link_next(unlinked, USING, backfill._Pace()).is_held_up
        return matching

    with monkeypatch.context() as patch:
        patch.setattr(backfill, "_next_matching", beside_another)
        assert not backfill._link_next(unlinked, USING, backfill._Pace()).is_done
    assert SubscriptionLink.objects.count() == 1
    while not backfill._link_next(unlinked, USING, backfill._Pace()).is_done:
        pass
    assert SubscriptionLink.objects.count() == 3


def test_a_subscription_that_is_deleted_meanwhile_gets_no_links(unlinked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    compare = backfill._next_matching

    def then_delete(text: str, after: int, using: str, limit: int) -> tuple[dict[int, str], int | None]:
        matching = compare(text, after, using, limit)
        Subscription.objects.unguarded().update(name=None, pattern="", linked_through=None)
        return matching

    monkeypatch.setattr(backfill, "_next_matching", then_delete)
    backfill._link_next(unlinked, USING, backfill._Pace())
    assert SubscriptionLink.objects.count() == 0
    assert backfill._link_next(unlinked, USING, backfill._Pace()).is_done


def test_paths_are_read_in_portions_and_those_that_do_not_match_are_passed(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c", "d/x", "e", "f/x", "g/x"):
        stream(f"events/{name}")
    subscribe("s", "events/*/x")
    SubscriptionLink.objects.unguarded().delete()
    Subscription.objects.unguarded().update(linked_through=0)
    monkeypatch.setattr(backfill, "PORTION_READ", 2)
    subscription_id = Subscription.objects.get().pk
    linked = []
    while not backfill._link_next(subscription_id, USING, backfill._Pace()).is_done:
        linked.append(SubscriptionLink.objects.count())
    assert linked == [0, 1, 2, 3]
    assert set(SubscriptionLink.objects.values_list("path", "is_glob", "is_explicit", "acked_position")) == {
        (f"events/{name}/x", True, False, 1) for name in "dfg"
    }
