"""Whether news can be relied on, as a process knows of its Redis: killed, frozen and back again."""

import asyncio

import pytest

from django_durable_streams.engine.wakeup.redis import RedisWakeup
from tests.cluster.test_wakeups import Listener
from tests.services import Redis

pytestmark = [pytest.mark.cluster, pytest.mark.django_db]

SECONDS = 60.0


@pytest.mark.parametrize("harm", ["kill", "freeze"])
async def test_a_subscriber_says_that_it_hears_while_it_does(harm: str) -> None:
    with Redis() as server:
        wakeup = RedisWakeup("default", url=server.url)
        subscriber = wakeup.subscriber(Listener())
        try:
            assert not subscriber.is_receiving  # nothing is confirmed yet

            async def until(hears: bool) -> None:
                async with asyncio.timeout(SECONDS):
                    while subscriber.is_receiving != hears:  # noqa: ASYNC110  there is no event for it
                        await asyncio.sleep(0.02)

            await until(True)
            await subscriber.subscribe(7)
            assert subscriber.is_receiving
            getattr(server, harm)()
            await until(False)
            server.start() if harm == "kill" else server.thaw()
            await until(True)
        finally:
            subscriber.close()
            wakeup.stop()
