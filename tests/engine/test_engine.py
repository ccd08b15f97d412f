"""The creation of an engine."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from django_durable_streams.engine import Engine


async def make() -> Engine:
    return Engine("default")


def test_an_event_loop_makes_an_engine_without_a_query(engines: None) -> None:
    with ThreadPoolExecutor() as pool:  # whose connection knows nothing of the server yet
        engine = pool.submit(asyncio.run, make()).result()
    engine.stop()
