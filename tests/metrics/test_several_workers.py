"""Two workers under load: what Prometheus reads from any of them adds up to what the load generator has done."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from django_durable_streams.contrib.prometheus import multiprocess
from tests.entry_points.probed import wait_until
from tests.servers import Server

TOKEN = "a-token-of-some-length"
CLIENTS, APPENDS, READS, MISSING = 12, 25, 5, 3
BODY = b"x" * 100
GAUGES = ("durable_streams_waiting_operations", "durable_streams_cache_bytes", "durable_streams_watched_streams")

pytestmark = pytest.mark.cluster


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "metrics").mkdir()
    return tmp_path / "metrics"


@pytest.fixture
def server(directory: Path) -> Iterator[Server]:
    settings = {"DJANGO_SETTINGS_MODULE": "tests.metrics.server_settings", "PROMETHEUS_MULTIPROC_DIR": str(directory)}
    with Server("uvicorn", workers=2, env=settings) as server:
        yield server


def sums(text: str, name: str, *labels: str) -> dict[tuple[str, ...], float]:
    """The values of a metric, added up by some of its labels."""
    result: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name:
                key = tuple(sample.labels[label] for label in labels)
                result[key] = result.get(key, 0.0) + sample.value
    return result


def expected(text: str) -> bool:
    """Whether a scrape shows all that the clients have done. A worker's numbers may come a second late."""
    appends = CLIENTS * APPENDS
    operations = sums(text, "durable_streams_requests_total", "operation", "status")
    return (
        sums(text, "durable_streams_appends_total") == {(): appends}
        and sums(text, "durable_streams_append_bytes_total") == {(): appends * len(BODY)}
        and operations.get(("append", "204")) == appends
        and operations.get(("create", "201")) == CLIENTS
        and operations.get(("read", "200")) == CLIENTS * READS
        and operations.get(("read", "404")) == CLIENTS * MISSING
        and sums(text, "durable_streams_errors_total", "type").get(("stream-not-found",), 0) >= CLIENTS * MISSING
        and sums(text, "durable_streams_commit_batch_size_sum") == {(): appends + CLIENTS}
    )


def gauges(directory: Path) -> set[str]:
    """The processes that have gauges."""
    return {path.stem.split("_")[2].removesuffix("-streams") for path in directory.glob("gauge_*-streams.db")}


async def load(base_url: str, number: int) -> None:
    """Be one client, over one connection."""
    async with httpx.AsyncClient(base_url=f"{base_url}/v1/stream/", timeout=30) as client:
        path = f"load/{number}"
        assert (await client.put(path, headers={"Content-Type": "text/plain"})).status_code == 201
        for _ in range(APPENDS):
            reply = await client.post(path, headers={"Content-Type": "text/plain"}, content=BODY)
            assert reply.status_code == 204
        for _ in range(READS):
            assert len((await client.get(path)).content) == APPENDS * len(BODY)
        for _ in range(MISSING):
            assert (await client.get("missing")).status_code == 404


async def test_scrapes_add_up_to_the_load(server: Server, directory: Path) -> None:
    scraped: list[str] = []

    async def scrape() -> str:
        async with httpx.AsyncClient(timeout=30) as client:  # each connection may reach another worker
            reply = await client.get(f"{server.base_url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        assert reply.status_code == 200
        scraped.append(reply.text)
        return reply.text

    async def scrape_during_the_load() -> None:
        while True:
            await scrape()

    scraping = asyncio.ensure_future(scrape_during_the_load())
    await asyncio.gather(*(load(server.base_url, number) for number in range(CLIENTS)))
    scraping.cancel()
    while not expected(text := await scrape()):  # noqa: ASYNC110  a worker writes its numbers once a second
        await asyncio.sleep(0.1)
    totals = [sums(each, "durable_streams_appends_total").get((), 0.0) for each in scraped]
    assert totals[-1] == CLIENTS * APPENDS
    assert max(totals) == totals[-1]  # nothing counts twice
    assert sums(text, "durable_streams_waiting_operations", "database") == {("default",): 0}
    await asyncio.to_thread(server.stop)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(directory))  # type: ignore[no-untyped-call]
    after = generate_latest(registry).decode()
    assert expected(after)
    # uvicorn ends its workers by a signal, after the engines have stopped: nothing is left of what the gauges show.
    assert {value for name in GAUGES for value in sums(after, name).values()} == {0.0}


def is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def test_gauges_of_a_killed_worker_go_and_its_counts_stay(server: Server, directory: Path) -> None:
    header = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=server.base_url, timeout=30) as client:
        client.put("/v1/stream/a", headers={"Content-Type": "text/plain"}, content=b"abc")
        while not sums(client.get("/metrics", headers=header).text, "durable_streams_appends_total"):
            pass
    killed = gauges(directory)
    server.kill()
    assert killed
    assert gauges(directory) == killed
    wait_until(lambda: not any(multiprocess._is_alive(int(process)) for process in killed), 20, "they have ended")
    wait_until(lambda: is_free(server.port), 20, "no process of the server holds its port")
    server.start()
    with httpx.Client(base_url=server.base_url, timeout=30) as client:
        text = client.get("/metrics", headers=header).text
    assert sums(text, "durable_streams_appends_total") == {(): 1}
    assert not gauges(directory) & killed
