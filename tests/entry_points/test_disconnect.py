"""A client that leaves ends its reader at once: nothing waits on for nobody."""

from collections.abc import Callable

import pytest

from tests.entry_points.exchange import Exchange, live
from tests.entry_points.probed import ProbedServer, wait_until

AT_ONCE = 5.0
"""Seconds: much less than a long-poll waits, and enough for a machine that has other things to do."""


@pytest.mark.parametrize("leave", [Exchange.close, Exchange.reset], ids=["close", "reset"])
@pytest.mark.parametrize("mode", ["sse", "long-poll"])
def test_a_reader_whose_client_leaves_ends_at_once(
    served: ProbedServer, mode: str, leave: Callable[[Exchange], None]
) -> None:
    path = served.create()
    before = served.probe()
    with live(served.port, path, mode) as reader:
        wait_until(lambda: served.probe().listeners == before.listeners + 1, 5, "the reader listens")
        if mode == "sse":
            next(reader.events())
        leave(reader)
    seconds = wait_until(lambda: served.probe().listeners == before.listeners, AT_ONCE, "the reader is gone")
    wait_until(lambda: served.probe().tasks <= before.tasks, AT_ONCE, "its tasks are gone")
    print(f"{mode}: {seconds * 1000:.0f} ms")


def test_a_reader_whose_client_leaves_in_the_middle_of_a_replay_ends_at_once(served: ProbedServer) -> None:
    path = served.create(kind="application/octet-stream")
    for _ in range(8):
        served.append(path, bytes(1_000_000), kind="application/octet-stream")
    before = served.probe()
    with live(served.port, path, "sse") as reader:
        wait_until(lambda: served.probe().listeners == before.listeners + 1, 5, "the reader listens")
        assert reader.response.status == 200
        reader.reset()
    wait_until(lambda: served.probe().listeners == before.listeners, AT_ONCE, "the reader is gone")
    wait_until(lambda: served.probe().tasks <= before.tasks, AT_ONCE, "its tasks are gone")
