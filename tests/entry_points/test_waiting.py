"""A reader that waits holds no thread, no file and no database connection."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.entry_points.exchange import Exchange, live
from tests.entry_points.probed import Probe, ProbedServer, wait_until
from tests.servers import EntryPoint

READERS = 100
SLACK = 3


@pytest.mark.parametrize("entry_point", ["asgi", "urls"])
def test_two_hundred_waiting_readers_hold_nothing_but_their_sockets(entry_point: EntryPoint) -> None:
    with ProbedServer(entry_point=entry_point) as server:
        path = server.create(b"first")
        with waiting(server, path, 2):
            before = server.probe()
        wait_until(lambda: server.probe().listeners == 0, 5, "the first readers are gone")
        tasks = server.probe().tasks
        with waiting(server, path, READERS):
            # Django gives a request a thread for what is synchronous; it ends a little after the request needs it.
            wait_until(lambda: not grown(before, server.probe()), 10, f"nothing has grown since {before}")
        wait_until(lambda: server.probe().listeners == 0, 5, "all readers are gone")
        wait_until(lambda: server.probe().tasks <= tasks, 5, "their tasks are gone")


@contextmanager
def waiting(server: ProbedServer, path: str, count: int) -> Iterator[list[Exchange]]:
    """Keep so many readers of each kind waiting."""
    with ExitStack() as stack:
        readers = [stack.enter_context(live(server.port, path, "sse")) for _ in range(count)]
        readers += [stack.enter_context(live(server.port, path, "long-poll", "now")) for _ in range(count)]
        wait_until(lambda: server.probe().listeners == 2 * count, 20, f"{2 * count} readers listen")
        yield readers


def grown(before: Probe, now: Probe) -> bool:
    """Whether a server holds more than it did, but for sockets, tasks and what its housekeeping opens for a moment."""
    return (
        now.threads > before.threads + SLACK
        or now.files > before.files + SLACK
        or now.databases > before.databases + SLACK
    )
