"""A job writes a token stream and is killed in the middle; a reader of another process follows it all the while."""

import asyncio
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests import preloaded
from tests.cluster.cluster import Cluster, scaled
from tests.cluster.http import Client
from tests.cluster.load import TEXT, read
from tests.cluster.readers import Follower
from tests.servers import ROOT
from tests.services import PostgreSQL, Redis, shared

TOKENS = scaled(1_200, 10_000)
PER_SECOND = 200
KILLS = scaled(4, 40)

STDERR = 2
JOB_SECONDS = 30 + 2 * TOKENS / PER_SECOND
COMMITS_PER_SECOND = 25
WITHIN = 0.150
"""Seconds from when a token is written to when a reader has it."""

MOST = scaled(95, 99)
"""Of a hundred tokens. In a short run on a busy machine, a single pause of a process is more than one in a hundred."""


def test_a_job_that_is_killed_and_started_again_writes_every_token_once(tmp_path: Path) -> None:
    commits = tmp_path / "commits"
    with Cluster(1, shared(PostgreSQL), shared(Redis)) as cluster:
        work = kill_and_restart(cluster, commits)
        follower = asyncio.run(asyncio.wait_for(work, 60 + 2 * TOKENS / PER_SECOND))
    assert numbers(follower.data) == list(range(TOKENS))
    slow = sorted(latencies(follower))
    late = slow[len(slow) * MOST // 100]
    rate = most_in_a_second([float(line) for line in commits.read_text().split()])
    print(
        f"{TOKENS} tokens: p50 {slow[len(slow) // 2]:.3f} s, p{MOST} {late:.3f} s, at most {rate} commits in a second"
    )
    assert late < WITHIN
    assert rate <= COMMITS_PER_SECOND


async def kill_and_restart(cluster: Cluster, commits: Path) -> Follower:
    url = f"{cluster.urls[0]}/answer"
    async with Client() as client, asyncio.TaskGroup() as tasks:
        assert (await client.request("PUT", url, TEXT)).status == 201
        follower = Follower(client, url, "sse")
        following = tasks.create_task(follower.follow())
        with killed_at_the_end(cluster.servers[0].env, commits) as job:
            while numbers(follower.data)[-1:] < [TOKENS // 2]:
                assert job.poll() is None, "the job has ended early"
                await asyncio.sleep(0.01)
        with killed_at_the_end(cluster.servers[0].env, commits) as job:
            assert await asyncio.to_thread(job.wait, JOB_SECONDS) == 0
        written = await read(client, cluster.urls[0], "answer")
        await follower.has(len(written))
        following.cancel()
    assert follower.data == written
    return follower


def test_wherever_a_job_is_killed_every_token_is_there_once(tmp_path: Path) -> None:
    with Cluster(1, shared(PostgreSQL)) as cluster:
        asyncio.run(asyncio.wait_for(kill_often(cluster, tmp_path / "commits"), 60 + 10 * KILLS))


async def kill_often(cluster: Cluster, commits: Path) -> None:
    url, env = f"{cluster.urls[0]}/answer", cluster.servers[0].env
    async with Client() as client:
        assert (await client.request("PUT", url, TEXT)).status == 201
        count = 0
        for _ in range(KILLS):
            # Somewhere between its first look at the stream and a few commits later; now and then two run at once.
            with ExitStack() as stack:
                jobs = [
                    stack.enter_context(killed_at_the_end(env, commits, count=10**6, per_second=2_000))
                    for _ in range(2 if random.random() < 0.3 else 1)
                ]
                while len(numbers(await read(client, cluster.urls[0], "answer"))) <= count:
                    assert any(job.poll() is None for job in jobs), "the jobs have ended early"
                    await asyncio.sleep(0.02)
                await asyncio.sleep(random.random() * 0.3)
            result = numbers(await read(client, cluster.urls[0], "answer"))
            assert result == list(range(len(result)))
            count = len(result)
        with killed_at_the_end(env, commits, count=count + 500, per_second=2_000) as job:
            assert await asyncio.to_thread(job.wait, JOB_SECONDS) == 0
        assert numbers(await read(client, cluster.urls[0], "answer")) == list(range(count + 500))


@contextmanager
def killed_at_the_end(
    env: Mapping[str, str], commits: Path, *, count: int = TOKENS, per_second: int = PER_SECOND
) -> Iterator[preloaded.Process]:
    """Start a job, which is killed at the end of this block."""
    command = [sys.executable, "-m", "tests.cluster.token_job", "answer", str(count), str(per_second), str(commits)]
    job = preloaded.start(command, cwd=ROOT, env=env, output=STDERR)
    try:
        yield job
    finally:
        job.kill()
        job.wait()


def numbers(data: bytes) -> list[int]:
    return [int(line.split()[0]) for line in data.splitlines()]


def latencies(follower: Follower) -> list[float]:
    """How long each token took from when it was written to when the reader had it."""
    result = []
    end = 0
    arrivals = iter(follower.arrivals)
    size, moment = next(arrivals)
    for line in follower.data.splitlines(keepends=True):
        end += len(line)
        while size < end:
            size, moment = next(arrivals)
        result.append(moment - float(line.split()[1]))
    return result


def most_in_a_second(moments: Sequence[float]) -> int:
    """The largest number of moments that lie within one second."""
    first = most = 0
    for last, moment in enumerate(moments):
        while moments[first] <= moment - 1:
            first += 1
        most = max(most, last - first + 1)
    return most
