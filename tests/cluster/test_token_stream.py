"""A job writes a token stream and is killed in the middle; a reader of another process follows it all the while."""

import asyncio
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.cluster.cluster import Cluster, scaled
from tests.cluster.http import Client
from tests.cluster.load import TEXT, read
from tests.cluster.readers import Follower
from tests.services import PostgreSQL, Redis, shared

TOKENS = scaled(1_200, 10_000)
PER_SECOND = 200

COMMITS_PER_SECOND = 25
WITHIN = 0.150
"""Seconds, of 99 tokens in 100."""


def test_a_job_that_is_killed_and_started_again_writes_every_token_once(tmp_path: Path) -> None:
    commits = tmp_path / "commits"
    with Cluster(1, shared(PostgreSQL), shared(Redis)) as cluster:
        work = kill_and_restart(cluster, commits)
        follower = asyncio.run(asyncio.wait_for(work, 60 + 2 * TOKENS / PER_SECOND))
    assert numbers(follower.data) == list(range(TOKENS))
    slow = sorted(latencies(follower))
    late = slow[len(slow) * 99 // 100]
    rate = most_in_a_second([float(line) for line in commits.read_text().split()])
    print(f"{TOKENS} tokens: p50 {slow[len(slow) // 2]:.3f} s, p99 {late:.3f} s, at most {rate} commits in a second")
    assert late < WITHIN
    assert rate <= COMMITS_PER_SECOND


async def kill_and_restart(cluster: Cluster, commits: Path) -> Follower:
    url = f"{cluster.urls[0]}/answer"
    async with Client() as client, asyncio.TaskGroup() as tasks:
        assert (await client.request("PUT", url, TEXT)).status == 201
        follower = Follower(client, url, "sse")
        following = tasks.create_task(follower.follow())
        job = await start_job(cluster.servers[0].env, commits)
        while numbers(follower.data)[-1:] < [TOKENS // 2]:
            assert job.returncode is None, "the job has ended early"
            await asyncio.sleep(0.01)
        job.kill()
        await job.wait()
        job = await start_job(cluster.servers[0].env, commits)
        assert await job.wait() == 0
        written = await read(client, cluster.urls[0], "answer")
        await follower.has(len(written))
        following.cancel()
    assert follower.data == written
    return follower


async def start_job(env: Mapping[str, str], commits: Path) -> asyncio.subprocess.Process:
    command = [sys.executable, "-m", "tests.cluster.token_job", "answer", str(TOKENS), str(PER_SECOND), str(commits)]
    return await asyncio.create_subprocess_exec(*command, env=env, stdin=subprocess.DEVNULL)


def numbers(data: bytes) -> list[int]:
    return [int(line.split()[0]) for line in data.splitlines()]


def latencies(follower: Follower) -> list[float]:
    """How long each token took from when it was written to when the reader had it."""
    found = []
    end = 0
    arrivals = iter(follower.arrivals)
    size, moment = next(arrivals)
    for line in follower.data.splitlines(keepends=True):
        end += len(line)
        while size < end:
            size, moment = next(arrivals)
        found.append(moment - float(line.split()[1]))
    return found


def most_in_a_second(moments: Sequence[float]) -> int:
    """The largest number of moments that lie within one second."""
    first = most = 0
    for last, moment in enumerate(moments):
        while moments[first] <= moment - 1:
            first += 1
        most = max(most, last - first + 1)
    return most
