"""Processes that write answers are killed at random moments. Another process continues or closes each answer, once."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from django_durable_streams.contrib.ai import rows
from django_durable_streams.contrib.ai.events import encode
from tests.ai.sources import events
from tests.servers import Server
from tests.services import PostgreSQL, Redis, shared

pytestmark = pytest.mark.cluster

COUNT = 100
SECONDS = 0.01
"""An answer takes about a second."""

LEASE = 2.0
SLACK = 20.0
"""On a busy machine, beyond the lease and the time of the answer."""

ANSWERS: list[dict[str, Any]] = [
    {"on_lost": "continue", "arguments": {"count": COUNT, "seconds": SECONDS}},
    {"on_lost": "fail", "arguments": {"count": COUNT, "seconds": SECONDS}},
]


KILLS = {"sqlite": 20, "postgresql and redis": 5}


@pytest.fixture(params=KILLS)
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    """The process that stays."""
    env = {"DJANGO_SETTINGS_MODULE": "tests.ai.serving", "AI_LEASE": str(LEASE)}
    url = f"sqlite:///{tmp_path / 'db.sqlite3'}"
    with ExitStack() as stack:
        if request.param != "sqlite":
            url = shared(PostgreSQL).new_database()
            env["REDIS_URL"] = shared(Redis).url
        yield stack.enter_context(Server(database_url=url, env=env))


@pytest.fixture
def jobs(server: Server) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tests.ai.jobs"]
    process = subprocess.Popen(command, env=server.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0)
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


async def test_readers_of_killed_answers_get_each_text_once_or_a_failure(
    server: Server, jobs: subprocess.Popen[bytes], request: pytest.FixtureRequest
) -> None:
    kills = KILLS[request.node.callspec.params["server"]]
    started = asyncio.get_running_loop().run_in_executor
    async with httpx.AsyncClient(base_url=server.base_url, timeout=30) as client, asyncio.TaskGroup() as tasks:
        reading = []
        for number in range(kills):
            job = await started(None, begin, jobs, f"chats/{number}", ANSWERS[number % 2])
            tasks.create_task(kill(job["pid"]))
            reading.append(tasks.create_task(read(client, str(number))))
        await asyncio.wait(reading)
    expected = [encode(event) for event in events(COUNT)]
    outcomes = []
    for number in range(kills):
        start, *middle, end = await stored(server, number)
        outcomes.append(end["type"])
        assert start["type"] == "start"
        if end["type"] == "finish":
            assert middle == expected
        else:
            assert number % 2 == 1, "an answer that is to be continued has failed"
            assert (end["type"], end["error"]) == ("failed", rows.LOST)
            assert middle == expected[: len(middle)]
        # Readers have seen what is stored: the last chunk, and each text once.
        chunks, seconds = reading[number].result()
        assert chunks[-1]["type"] == ("finish" if end["type"] == "finish" else "error")
        words = [value["text"] for value in middle if value["type"] == "text"]
        assert [chunk["delta"] for chunk in chunks if chunk["type"] == "text-delta"] == words
        assert seconds < LEASE + (COUNT + 8) * SECONDS + SLACK
    assert "failed" in outcomes


def begin(jobs: subprocess.Popen[bytes], path: str, answer: dict[str, Any]) -> dict[str, Any]:
    assert jobs.stdin is not None
    assert jobs.stdout is not None
    jobs.stdin.write(json.dumps({"path": path, "answer": answer}).encode() + b"\n")
    jobs.stdin.flush()
    job: dict[str, Any] = json.loads(jobs.stdout.readline())
    return job


async def kill(pid: int) -> None:
    await asyncio.sleep(random.random() * COUNT * SECONDS)
    os.kill(pid, signal.SIGKILL)


async def read(client: httpx.AsyncClient, chat: str) -> tuple[list[dict[str, Any]], float]:
    """Read an answer as a page does that was reloaded, and return its chunks and how long that took."""
    began = time.monotonic()
    async with client.stream("GET", f"/api/chat/{chat}/stream") as response:
        assert response.status_code == 200
        lines = [line async for line in response.aiter_lines() if line.startswith("data: ")]
    assert lines.pop() == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines], time.monotonic() - began


async def stored(server: Server, number: int) -> list[dict[str, Any]]:
    async with httpx.AsyncClient(base_url=server.base_url) as client:
        values: list[dict[str, Any]] = (await client.get(f"/v1/stream/chats/{number}?offset=-1")).json()
    return values
