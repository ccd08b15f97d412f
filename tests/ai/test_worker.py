"""Answers of `streams_worker`: another process takes them from the queue, and a stop reaches it there."""

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests import preloaded
from tests.servers import EXAMPLE, Server

pytestmark = pytest.mark.cluster

STDERR = 2


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    url = f"sqlite:///{tmp_path_factory.mktemp('ai') / 'db.sqlite3'}"
    env = {"DJANGO_SETTINGS_MODULE": "tests.ai.serving", "AI_RUNS_IN": "worker"}
    with Server(database_url=url, env=env) as server:
        command = [sys.executable, str(EXAMPLE / "manage.py"), "streams_worker"]
        reading, writing = os.pipe()
        with open(reading, "rb") as output:
            worker = preloaded.start(command, cwd=EXAMPLE, env=server.env, output=writing, errors=STDERR)
            os.close(writing)
            try:
                assert b"writing ai answers" in output.readline()
                yield server
            finally:
                worker.terminate()
                assert worker.wait(30) == 0


def body(chat: str, **script: Any) -> dict[str, Any]:
    message = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}
    return {"id": chat, "messages": [message], "script": script}


async def lines(response: httpx.Response) -> list[Any]:
    return [json.loads(line[6:]) async for line in response.aiter_lines() if line.startswith("data: {")]


async def test_a_worker_writes_the_answer(server: Server) -> None:
    async with (
        httpx.AsyncClient(base_url=server.base_url, timeout=25) as client,
        client.stream("POST", "/api/chat", json=body("c1", count=5)) as response,
    ):
        assert (await lines(response))[-1] == {"type": "finish", "finishReason": "stop"}


async def test_a_stop_reaches_the_worker(server: Server) -> None:
    async with httpx.AsyncClient(base_url=server.base_url, timeout=25) as client:
        async with client.stream("POST", "/api/chat", json=body("c2", count=10_000, seconds=0.01)) as response:
            reading = asyncio.create_task(lines(response))
            await asyncio.sleep(0)
            assert (await client.post("/api/chat/c2/stop")).status_code == 204
            assert (await reading)[-1] == {"type": "abort"}
        assert (await client.get("/api/chat/c2/stream")).status_code == 204
