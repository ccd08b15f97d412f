"""A server killed under load: what it acknowledged is there, once and in order; what it deleted stays deleted."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from itertools import groupby
from threading import Event

import httpx

from tests.entry_points.probed import ProbedServer, wait_until

PRODUCERS = 8
KILLS = 3
TEXT = {"Content-Type": "text/plain"}


class Producer:
    """A writer that numbers its appends and repeats each until it is acknowledged."""

    def __init__(self, url: str, name: str) -> None:
        self.name = name
        self.acknowledged = 0
        self._url = url

    def run(self, stop: Event) -> None:
        with httpx.Client(timeout=5) as client:
            while not stop.is_set():
                response = persist(lambda: client.post(self._url, content=self.line(), headers=self.headers()))
                assert response.status_code in (200, 204), response.text
                self.acknowledged += 1

    def headers(self) -> dict[str, str]:
        seq = str(self.acknowledged)
        return {**TEXT, "Producer-Id": self.name, "Producer-Epoch": "0", "Producer-Seq": seq}

    def line(self) -> bytes:
        """The next append: a line that shows whether it is whole."""
        text = f"{self.name} {self.acknowledged} {'.' * (self.acknowledged * 37 % 3000)}"
        return f"{text} {sha256(text.encode()).hexdigest()}\n".encode()


def persist(request: Callable[[], httpx.Response]) -> httpx.Response:
    """Send a request again until it is answered."""
    deadline = time.monotonic() + 20
    while True:
        try:
            response = request()
            if response.status_code != 503:
                return response
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, "the server did not come back"
        time.sleep(0.02)


def test_a_killed_server_has_every_acknowledged_append_once_and_in_order() -> None:
    stop = Event()
    with ProbedServer() as server, ThreadPoolExecutor(PRODUCERS) as pool:
        path = server.create()
        producers = [Producer(server.url(path), f"p{number}") for number in range(PRODUCERS)]
        running = [pool.submit(producer.run, stop) for producer in producers]
        try:
            for kill in range(1, KILLS + 1):
                goal = kill * 400
                wait_until(lambda goal=goal: sum(p.acknowledged for p in producers) > goal, 20, f"{goal} appends")
                server.kill()
                server.start()
        finally:
            stop.set()
        for future in running:
            future.result(timeout=30)
        lines = read_all(server, path).decode().splitlines()
    entries = sorted((check(line) for line in lines), key=lambda entry: entry[0])
    written = {name: [seq for _, seq in group] for name, group in groupby(entries, key=lambda entry: entry[0])}
    assert written == {producer.name: list(range(producer.acknowledged)) for producer in producers}


def test_an_acknowledged_delete_outlives_a_kill() -> None:
    with ProbedServer() as server:
        paths = [server.create(b"x" * 1000) for _ in range(20)]
        with httpx.Client() as client:
            for path in paths:
                assert client.delete(server.url(path)).status_code == 204
        server.kill()
        server.start()
        assert {httpx.get(server.url(path)).status_code for path in paths} == {404}


def read_all(server: ProbedServer, path: str) -> bytes:
    """The whole content of a stream, page by page."""
    content, offset = b"", "-1"
    while True:
        response = httpx.get(server.url(path), params={"offset": offset})
        content += response.content
        offset = response.headers["Stream-Next-Offset"]
        if "Stream-Up-To-Date" in response.headers:
            return content


def check(line: str) -> tuple[str, int]:
    """Whose line it is, and which. It must be whole."""
    text, _, digest = line.rpartition(" ")
    assert sha256(text.encode()).hexdigest() == digest
    name, seq, _ = text.split(" ")
    return name, int(seq)
