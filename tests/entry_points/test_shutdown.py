"""A server that is told to end does so soon, and lets its readers go properly."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from tests.entry_points.exchange import Event, Exchange, live
from tests.entry_points.probed import CONFIGURATIONS, Configuration, ProbedServer, wait_until
from tests.servers import Kind

READERS = 20
SECONDS = 3.0

# Daphne cancels every response as soon as the signal comes; now and then one gets to its end before.
CUTS_OFF = {"daphne"}
# Hypercorn sends SIGTERM to its other workers when the first one has ended, whatever they are still sending.
ENDS_WORKERS_FOR_EACH_OTHER = {"hypercorn"}


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=str)
def test_sigterm_ends_the_server_and_every_live_response(configuration: Configuration) -> None:
    with (
        ProbedServer(configuration.kind, entry_point=configuration.entry_point, patient=True) as server,
        occupied(server) as (readers, waiters),
    ):
        wait_until(lambda: server.probe().listeners == 2 * READERS, 5, "all readers listen")
        seconds = end(server, signal.SIGTERM)
        assert seconds < SECONDS, server.log_tail()
        print(f"{configuration}: {seconds:.2f} s")
        if configuration.kind not in CUTS_OFF:
            assert_let_go(readers, waiters)


def test_sigint_ends_the_server_and_every_live_response() -> None:
    with ProbedServer(patient=True) as server, occupied(server) as (readers, waiters):
        wait_until(lambda: server.probe().listeners == 2 * READERS, 5, "all readers listen")
        assert end(server, signal.SIGINT) < SECONDS, server.log_tail()
        assert_let_go(readers, waiters)


@pytest.mark.parametrize("kind", ["uvicorn", "granian", "hypercorn"])
def test_sigterm_ends_all_workers_and_their_live_responses(kind: Kind) -> None:
    with ProbedServer(kind, workers=2, patient=True) as server, occupied(server) as (readers, waiters):
        # granian's workers pass over a signal that comes before they serve.
        pids: set[int] = set()
        wait_until(lambda: pids.add(server.probe().pid) or len(pids) == 2, 10, "both workers serve")
        seconds = end(server, signal.SIGTERM)
        assert seconds < SECONDS, server.log_tail()
        print(f"{kind}, 2 workers: {seconds:.2f} s")
        if kind not in ENDS_WORKERS_FOR_EACH_OTHER:
            assert_let_go(readers, waiters)


@contextmanager
def occupied(server: ProbedServer) -> Iterator[tuple[list[Exchange], list[Exchange]]]:
    """Keep readers of both kinds open; the event streams have had their first event."""
    path = server.create(b"first")
    with ExitStack() as stack:
        readers = [stack.enter_context(live(server.port, path, "sse")) for _ in range(READERS)]
        waiters = [stack.enter_context(live(server.port, path, "long-poll", "now")) for _ in range(READERS)]
        for reader in readers:
            events = reader.events()
            assert [next(events), next(events).kind] == [Event("data", "first"), "control"]
        yield readers, waiters


def end(server: ProbedServer, number: signal.Signals) -> float:
    """Send a signal to the server and return how many seconds it took to end."""
    assert server.process is not None
    began = time.monotonic()
    os.kill(server.pid, number)
    try:
        server.process.wait(10)
    except subprocess.TimeoutExpired:
        pass
    return time.monotonic() - began


def assert_let_go(readers: list[Exchange], waiters: list[Exchange]) -> None:
    """Every event stream ends with a control event and a last chunk, every long-poll with an answer."""
    for reader in readers:
        last = list(reader.events())[-1]
        assert last.kind == "control"
        assert json.loads(last.data)["upToDate"] is True
    with ThreadPoolExecutor() as pool:
        assert set(pool.map(lambda waiter: waiter.response.status, waiters)) == {204}
