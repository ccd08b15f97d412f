"""Bodies that are hard to take: what they cost others while they are appended, and while they are read."""

import functools
import os
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.entry_points.probed import MIB, memory_of
from tests.hostile.bystander import Bystander
from tests.hostile.entry_points import EntryPoint
from tests.nasty import Nasty, json_bodies, texts

SIZE = 15 * MIB
P99_SECONDS = 0.1
ATTEMPTS = 4

GROWTH = 250 * MIB  # what a body of 15 MB is copied to, several times, and no object for each of its messages

HARD = {
    "many-digits",
    "many-digits-and-no-end",
    "many-lone-surrogates",
    "many-commas",
    "many-nested",
    "one-with-many-digits",
    "long-lone-surrogates",
    "long-unicode-escapes",
    "integer",
    "keys",
    "line-breaks",
    "deep-array",
    "bad-utf-8-at-the-end",
}
TEXTS = [name for name, _ in texts(16)]


@functools.cache
def bodies() -> dict[str, Nasty]:
    """The hard bodies by name: hundreds of megabytes, for those who need them."""
    return {nasty.name: nasty for nasty in json_bodies(SIZE, HARD)}


@pytest.fixture(scope="module", params=["uvicorn-direct", "uvicorn-h11"])
def server(request: pytest.FixtureRequest) -> Iterator[EntryPoint]:
    with EntryPoint(request.param) as server:
        yield server


def longest_wait() -> float:
    """How long others may wait, in seconds: longer where the processors are shared with much else."""
    return P99_SECONDS * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def costs_others_little(server: EntryPoint, work: Callable[[], object]) -> None:
    """Do something several times, at most, until others are seen to be served in the meantime."""
    path = server.create(b"x")
    delays = []
    for _ in range(ATTEMPTS):
        with Bystander(server, path) as bystander:
            work()
        delays.append(bystander.p99)
        if delays[-1] < longest_wait():
            return
    raise AssertionError(f"others wait for {delays} s")


@pytest.mark.parametrize("name", sorted(HARD))
def test_a_body_is_appended_and_read_while_others_are_served(server: EntryPoint, name: str) -> None:
    nasty = bodies()[name]
    pid = server.probe().pid
    before = memory_of(pid, "VmRSS")
    path = server.create(kind="application/json")
    url = server.url(path)

    def append() -> None:
        response = httpx.post(url, content=nasty.body, headers={"Content-Type": "application/json"}, timeout=60)
        assert response.status_code == (400 if nasty.messages is None else 204)

    costs_others_little(server, append)
    if nasty.messages is not None:
        costs_others_little(server, lambda: read_back(url))
        read_back_events(server, path)
    httpx.delete(url)
    assert memory_of(pid, "VmRSS") - before < GROWTH


def read_back(url: str) -> None:
    """Read the first page, which is one append."""
    response = httpx.get(url, params={"offset": "-1"}, timeout=60)
    assert response.status_code == 200
    assert response.content[:1] == b"["


def read_back_events(server: EntryPoint, path: str) -> None:
    """Follow from the start until the first append is there."""
    with httpx.stream("GET", server.url(path), params={"offset": "-1", "live": "sse"}, timeout=60) as response:
        assert response.status_code == 200
        last = b""
        for piece in response.iter_raw():
            last = last[-100:] + piece
            if b"event: control" in last:
                return
    raise AssertionError("the response ended without a control event")


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_is_followed_while_others_are_served(server: EntryPoint, name: str) -> None:
    path = server.create(kind="text/plain")
    server.append(path, dict(texts(SIZE))[name])
    costs_others_little(server, lambda: read_back_events(server, path))
    httpx.delete(server.url(path))
