"""Live readers are told of news in turns, after the answers, and none is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_durable_streams.engine import fan_out
from django_durable_streams.engine.fan_out import FanOut


class Reader:
    """A listener that says when it is notified."""

    def __init__(self, notified: Callable[[Reader], object]) -> None:
        self._notified = notified

    def notify(self) -> None:
        self._notified(self)

    def tick(self, now: float) -> None: ...

    def stop(self) -> None: ...


class Audience:
    """A watch with a version of its news. Its readers note the version that they see."""

    def __init__(self, name: str, order: list[str], count: int) -> None:
        self.listeners: list[Reader] = [Reader(self._note) for _ in range(count)]
        self.version = 0
        self.seen: dict[Reader, int] = {}
        self.finished: list[int] = []
        self.following: list[Callable[[], object]] = []
        self._name, self._order = name, order

    def _note(self, reader: Reader) -> None:
        self.seen[reader] = self.version
        self._order.append(self._name)

    def finish_notifying(self) -> list[Callable[[], object]]:
        self.finished.append(self.version)
        following, self.following = self.following, []
        return following


async def turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


@pytest.fixture
def one_in_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """One listener is notified in each turn of the loop."""
    monkeypatch.setattr(fan_out, "MAX_NOTIFIED", 1)


async def test_the_first_listener_is_notified_after_what_a_task_has_to_send() -> None:
    order: list[str] = []
    audience, fans = Audience("reader", order, 1), FanOut()

    async def answer(outcome: asyncio.Future[None]) -> None:
        await outcome
        order.append("answer")

    outcome = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(answer(outcome))
    await turns(1)
    outcome.set_result(None)  # the outcome comes first, as from a committer
    fans.notify(audience)
    await task
    await turns(5)
    assert order == ["answer", "reader"]


@pytest.mark.usefixtures("one_in_a_turn")
async def test_others_run_while_many_listeners_are_notified() -> None:
    order: list[str] = []
    audience, fans = Audience("reader", order, 5), FanOut()
    fans.notify(audience)
    while len(order) < 10:
        order.append("other")
        await turns(1)
    assert order.count("reader") <= 5
    assert "other" in order[order.index("reader") : -1]
    assert all(not order[first] == order[first + 1] == "reader" for first in range(len(order) - 1))


@pytest.mark.usefixtures("one_in_a_turn")
async def test_audiences_take_turns() -> None:
    order: list[str] = []
    large, small, fans = Audience("large", order, 50), Audience("small", order, 2), FanOut()
    fans.notify(large)
    fans.notify(small)
    await turns(10)
    assert order[:4] == ["large", "small", "large", "small"]
    assert small.finished == [0]


async def test_many_small_audiences_share_a_turn() -> None:
    order: list[str] = []
    audiences, fans = [Audience(str(number), order, 1) for number in range(200)], FanOut()
    for audience in audiences:
        fans.notify(audience)
    while (count := len(order)) < len(audiences):
        await turns(1)
        assert len(order) - count <= fan_out.MAX_NOTIFIED
    assert order == [str(number) for number in range(200)]


@pytest.mark.usefixtures("one_in_a_turn")
async def test_news_during_a_round_reach_those_that_were_notified_before() -> None:
    audience, fans = Audience("reader", [], 3), FanOut()
    fans.notify(audience)
    while len(audience.seen) < 2:
        await turns(1)
    audience.version = 1
    for _ in range(5):
        fans.notify(audience)
    await turns(20)
    assert list(audience.seen.values()) == [1, 1, 1]
    assert audience.finished == [1, 1]


@pytest.mark.usefixtures("one_in_a_turn")
async def test_work_that_follows_is_done_in_turns_however_soon_more_news_come() -> None:
    order: list[str] = []
    audience, fans = Audience("reader", order, 3), FanOut()
    audience.following = [lambda: order.append("work")] * 3
    fans.notify(audience)
    for _ in range(20):
        await turns(1)
        fans.notify(audience)
    assert order[:3] == ["reader"] * 3
    assert order.count("work") == 3
    assert "work work" not in " ".join(order)  # the next round goes on in between


@pytest.mark.usefixtures("one_in_a_turn")
async def test_the_rest_of_a_round_is_for_all_listeners_if_there_were_more_news() -> None:
    audience, fans = Audience("reader", [], 4), FanOut()
    fans.notify(audience)
    while len(audience.seen) < 2:
        await turns(1)
    audience.version = 1
    fans.notify(audience)
    fans.finish_round(audience)  # the stream is removed now
    assert list(audience.seen.values()) == [1, 1, 1, 1]


async def test_no_error_of_a_listener_ends_the_turns() -> None:
    audience, fans = Audience("reader", [], 2), FanOut()

    def fail(reader: Reader) -> None:
        raise asyncio.CancelledError

    reported: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: reported.append(context))
    audience.listeners.insert(0, Reader(fail))
    fans.notify(audience)
    await turns(5)
    assert (len(audience.seen), len(reported)) == (2, 1)
    audience.version = 1
    fans.notify(audience)
    await turns(5)
    assert list(audience.seen.values()) == [1, 1]


@pytest.mark.usefixtures("one_in_a_turn")
async def test_a_round_can_be_finished_at_once() -> None:
    order: list[str] = []
    audience, fans = Audience("reader", order, 5), FanOut()
    fans.finish_round(audience)
    assert order == []
    fans.notify(audience)
    fans.finish_round(audience)
    assert order == ["reader"] * 5
    audience.version = 1
    fans.notify(audience)
    await turns(20)
    assert order == ["reader"] * 10
    assert audience.finished == [1, 1]


async def test_without_listeners_the_work_after_them_is_done_at_once() -> None:
    audience, fans = Audience("nobody", [], 0), FanOut()
    fans.notify(audience)
    assert audience.finished == [0]


actions = st.lists(
    st.one_of(
        st.tuples(st.just("news"), st.integers(0, 2)),
        st.tuples(st.just("join"), st.integers(0, 2)),
        st.tuples(st.just("leave"), st.integers(0, 2)),
        st.tuples(st.just("turn"), st.integers(1, 4)),
        st.tuples(st.just("finish"), st.integers(0, 2)),
    ),
    max_size=40,
)


@given(actions, st.integers(1, 4))
@settings(deadline=None)
def test_everybody_who_stays_sees_the_last_news(steps: list[tuple[str, int]], most: int) -> None:
    async def run() -> None:
        audiences, fans = [Audience(str(number), [], number) for number in range(3)], FanOut()
        for action, number in steps:
            audience = audiences[min(number, 2)]
            if action == "news":
                audience.version += 1
                fans.notify(audience)
            elif action == "join":
                reader = Reader(audience._note)
                audience.listeners.append(reader)
                audience.seen[reader] = audience.version  # it looks at the watch itself
            elif action == "leave" and audience.listeners:
                audience.listeners.pop(0)
            elif action == "turn":
                await turns(number)
            elif action == "finish":
                fans.finish_round(audience)
                assert all(audience.seen.get(reader, 0) == audience.version for reader in audience.listeners)
        for _ in range(10_000):  # a turn notifies as many as its time allows
            if fans._rounds:
                await turns(1)
        await turns(1)
        for audience in audiences:
            assert all(audience.seen.get(reader, 0) == audience.version for reader in audience.listeners)
            assert not audience.version or audience.finished[-1] == audience.version
        assert not fans._rounds
        assert not fans._by_audience

    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(fan_out, "MAX_NOTIFIED", most)
        asyncio.run(run())
