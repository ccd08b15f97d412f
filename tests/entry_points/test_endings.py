"""However a server is ended, its live responses end with it: most ways are no signal."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from tests.entry_points.ending_server import LIMIT, PROGRAMS
from tests.entry_points.exchange import Exchange, live
from tests.entry_points.probed import ProbedServer, wait_until
from tests.servers import EntryPoint

READERS = 5
SECONDS = 2.0
LATE = 3.0
"""What a loaded machine may add to that."""

CUTS_OFF = {"daphne-reactor"}
"""It cancels every response."""


class EndingServer(ProbedServer):
    """The example project under a program that ends its server once it is told to."""

    def __init__(self, program: str, entry_point: EntryPoint) -> None:
        super().__init__(entry_point=entry_point)
        self.program = program

    def _command(self) -> list[str]:
        script = Path(__file__).with_name("ending_server.py")
        return [sys.executable, str(script), self.program, str(self.port), str(self.directory / "end")]

    def end(self) -> float:
        """Have the server end, and return how many seconds that took."""
        assert self.process is not None
        if self.program.endswith("max_requests"):
            for _ in range(LIMIT + 10):
                with suppress(httpx.HTTPError):
                    httpx.get(f"{self.base_url}/v1/stream/nothing", timeout=2)
        else:
            (self.directory / "end").touch()
        began = time.monotonic()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        return time.monotonic() - began


@pytest.mark.parametrize("entry_point", ["asgi", "urls"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_live_responses_end_with_a_server_that_gets_no_signal(program: str, entry_point: EntryPoint) -> None:
    is_wsgi = program.startswith("wsgiref")
    if is_wsgi and entry_point == "asgi":
        pytest.skip("WSGI has one entry point")
    with EndingServer(program, entry_point) as server, ExitStack() as stack:
        path = server.create(b"first")
        modes = ["long-poll"] * READERS + ["sse"] * (0 if is_wsgi else READERS)
        readers = [stack.enter_context(live(server.port, path, mode, "now")) for mode in modes]
        for reader, mode in zip(readers, modes, strict=True):
            if mode == "sse":
                assert next(reader.events()).kind == "control"
        time.sleep(0.3)  # long-polls say nothing while they wait, and this server has no window
        seconds = server.end()
        print(f"{program}, {entry_point}: {seconds:.2f} s")
        assert seconds < SECONDS + LATE, server.log_tail()
        if program not in CUTS_OFF:
            for reader, mode in zip(readers, modes, strict=True):
                assert_let_go(reader, mode)


def assert_let_go(reader: Exchange, mode: str) -> None:
    """An event stream ends with a control event and a last chunk, a long-poll with an answer."""
    if mode == "long-poll":
        assert reader.response.status == 204
    else:
        *_, last = reader.events()
        assert (last.kind, json.loads(last.data)["upToDate"]) == ("control", True)


def test_a_worker_that_is_replaced_lets_its_readers_go() -> None:
    """Granian does so at SIGHUP, and at the end of a worker's lifetime: its readers are not those of the new one."""
    with ProbedServer("granian", options=["--workers-kill-timeout", "60"]) as server, ExitStack() as stack:
        old = server.probe().pid
        path = server.create(b"first")
        readers = [stack.enter_context(live(server.port, path, "sse")) for _ in range(READERS)]
        waiters = [stack.enter_context(live(server.port, path, "long-poll", "now")) for _ in range(READERS)]
        wait_until(lambda: server.probe().listeners == 2 * READERS, 10, "all readers listen")
        os.kill(server.pid, signal.SIGHUP)
        began = time.monotonic()
        for reader, mode in [(reader, "sse") for reader in readers] + [(waiter, "long-poll") for waiter in waiters]:
            assert_let_go(reader, mode)
        print(f"granian, SIGHUP: {time.monotonic() - began:.2f} s")
        wait_until(lambda: not Path(f"/proc/{old}").exists(), SECONDS + LATE, "the old worker has ended")
        # Live reads of the new one are not told to end.
        with live(server.port, path, "sse", "now") as reader:
            events = reader.events()
            assert next(events).kind == "control"
            server.append(path, b"second")
            assert next(events).data == "second"
