"""What an event loop hands over to a lane together."""

import asyncio
from collections.abc import Iterator, Sequence

import pytest

from django_durable_streams.engine import engine_for
from django_durable_streams.protocol.errors import ServiceUnavailable
from django_durable_streams.runtime.backlog import Backlog
from django_durable_streams.runtime.batch_worker import MORE_TURNS, SEVERAL, WORTH_PREPARING, BatchWorker, Reply


class Recorded(BatchWorker[int]):
    """A lane that doubles numbers, one parcel in a batch, and notes how many there were in each."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        super().__init__("test", engine_for().monitor.new_connection(), self._double, Backlog(1000, 1000), batch_size=1)

    def _double(self, numbers: Sequence[int]) -> Sequence[int]:
        self.sizes.append(len(numbers))
        return [2 * number for number in numbers]


@pytest.fixture
def lane(engines: None) -> Iterator[Recorded]:
    lane = Recorded()
    yield lane
    lane.stop()


async def sizes_of(lane: Recorded, *turns: int) -> list[int]:
    """Submit so many tasks in each turn of the loop, and return how many were in each parcel."""
    replies = []
    for count in turns:
        replies += [lane.submit(number) for number in range(count)]
        await asyncio.sleep(0)
    assert await asyncio.gather(*replies) == [2 * number for count in turns for number in range(count)]
    return lane.sizes


async def test_what_comes_in_one_turn_goes_together(lane: Recorded) -> None:
    assert await sizes_of(lane, 10 * SEVERAL) == [10 * SEVERAL]


async def test_those_who_come_right_behind_several_go_with_them(lane: Recorded) -> None:
    assert await sizes_of(lane, SEVERAL, SEVERAL, 1) == [2 * SEVERAL + 1]


async def test_few_wait_for_nobody(lane: Recorded) -> None:
    assert await sizes_of(lane, 1, SEVERAL - 1, SEVERAL - 1) == [1, SEVERAL - 1, SEVERAL - 1]


async def test_nobody_waits_for_more_than_some_turns(lane: Recorded) -> None:
    whole = (MORE_TURNS + 1) * SEVERAL
    assert await sizes_of(lane, *[SEVERAL] * 2 * (MORE_TURNS + 1)) == [whole, whole]


async def test_what_may_follow_is_prepared_for_all_at_work_or_for_nobody(lane: Recorded) -> None:
    prepared: list[tuple[int, object]] = []

    class Noting(Reply):
        number = 0

        def prepare(self, value: object) -> None:
            prepared.append((self.number, value))

    def announcing(numbers: Sequence[int]) -> Sequence[int]:
        doubled = [2 * number for number in numbers]
        lane.announce(doubled[1:])
        lane.announce(doubled)
        return doubled

    lane._work = announcing
    for count in (WORTH_PREPARING - 1, WORTH_PREPARING):
        replies = [Noting() for _ in range(count)]
        for number, reply in enumerate(replies):
            reply.number = number
            lane.post(number, reply)
        assert await asyncio.gather(*replies) == [2 * number for number in range(count)]
    assert prepared == [(number, 2 * number) for number in range(WORTH_PREPARING)]


def test_a_parcel_of_a_loop_that_has_stopped_is_not_that_of_the_next_in_its_thread(lane: Recorded) -> None:
    async def submit(count: int) -> list[Reply]:
        return [lane.submit(number) for number in range(count)]

    async def outcomes_of(replies: list[Reply]) -> list[object]:
        return [await reply for reply in replies]

    async def submit_and_wait(count: int) -> list[object]:
        return await outcomes_of(await submit(count))

    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        open_still = first.run_until_complete(submit(SEVERAL))
        assert not lane.sizes
        assert second.run_until_complete(asyncio.wait_for(submit_and_wait(2), 10)) == [0, 2]
        assert first.run_until_complete(asyncio.wait_for(outcomes_of(open_still), 10)) == [0, 2, 4, 6]
    finally:
        first.close()
        second.close()
    assert lane.sizes == [2, SEVERAL]


async def test_a_parcel_that_several_are_in_goes_when_nobody_follows(lane: Recorded) -> None:
    assert await sizes_of(lane, SEVERAL, 0, 0, 0, 1) == [SEVERAL, 1]


async def test_what_comes_after_the_end_is_refused_and_waits_for_nobody(lane: Recorded) -> None:
    await sizes_of(lane, 1)
    early = [lane.submit(number) for number in range(SEVERAL)]  # not handed over yet
    await asyncio.to_thread(lane.stop)
    late = lane.submit(1)
    for reply in (*early, late):
        with pytest.raises(ServiceUnavailable, match="about to end"):
            await reply
    with pytest.raises(ServiceUnavailable, match="about to end"):
        await asyncio.to_thread(lane.between, list)


async def test_everybody_is_answered_whenever_the_end_comes(engines: None) -> None:
    for _ in range(30):
        lane = Recorded()
        replies: list[asyncio.Future[object]] = []
        stopping = asyncio.ensure_future(asyncio.to_thread(lane.stop))
        while not stopping.done():
            if len(replies) < 900:
                replies += [lane.submit(7) for _ in range(SEVERAL)]
            await asyncio.sleep(0)
        answers = await asyncio.gather(*replies, return_exceptions=True)
        assert all(answer == 14 or isinstance(answer, ServiceUnavailable) for answer in answers)
