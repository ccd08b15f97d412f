"""nginx, Caddy and HAProxy as their pages have them, in front of two servers."""

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.http import Client, Response, Unreachable
from tests.cluster.load import TEXT
from tests.cluster.readers import Follower
from tests.deployment.proxies import PAGES, Caddy, HAProxy, configuration, nginx, replaced
from tests.deployment.upstream import Upstream
from tests.docs.pages import Block, blocks
from tests.servers import HOST, free_port
from tests.service import Service
from tests.services import Nginx
from tools.ensure_system import locate

SECONDS = 60.0
LARGE = 2_000_000
REQUESTS = 20
ATTEMPTS = 100

FEW = 4
"""Connections of a proxy to its servers, for requests that come one after the other."""

Make = Callable[[int, int], Service]
PROXIES: dict[str, Make] = {"nginx": nginx, "caddy": Caddy, "haproxy": HAProxy}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(2) as running:
        yield running


@pytest.fixture(params=PROXIES)
def make(request: pytest.FixtureRequest) -> Make:
    """Starts a proxy in front of two ports."""
    return PROXIES[request.param]


@pytest.fixture
def root(cluster: Cluster, make: Make) -> Iterator[str]:
    """The root of the streams, behind a proxy."""
    first, second = (server.port for server in cluster.servers)
    with make(first, second) as proxy:
        yield f"{proxy.url}/v1/stream/{proxy.port}"


def test_live_reads_and_large_appends_go_through(root: str) -> None:
    asyncio.run(asyncio.wait_for(read_live(root), SECONDS))


async def read_live(root: str) -> None:
    url = f"{root}/live"
    async with Client() as client, asyncio.TaskGroup() as tasks:
        assert (await client.request("PUT", url, TEXT)).status == 201
        followers = [Follower(client, url, mode) for mode in ("sse", "long-poll")]
        following = [tasks.create_task(follower.follow()) for follower in followers]
        size = 0
        for content in (b"first\n", b"second\n", b"x" * LARGE + b"\n"):
            await append(client, url, content)
            size += len(content)
            for follower in followers:
                await follower.has(size)  # while the response goes on
        assert followers[0].connections == 1
        for task in following:
            task.cancel()


async def append(client: Client, url: str, content: bytes) -> None:
    """Append, and repeat it as clients do: Caddy 2.6 does not repeat a POST that a server has refused."""
    for _ in range(ATTEMPTS):
        answer = await client.request("POST", url, TEXT, content)
        if answer.status not in (502, 503):
            break
        await asyncio.sleep(0.1)
    assert answer.status == 204


def test_an_append_that_is_too_large_is_refused(root: str) -> None:
    asyncio.run(asyncio.wait_for(append_too_much(root), SECONDS))


async def append_too_much(root: str) -> None:
    async with Client() as client:
        assert (await client.request("PUT", f"{root}/large", TEXT)).status == 201
        try:
            assert (await client.request("POST", f"{root}/large", TEXT, b"x" * (17 << 20))).status == 413
        except Unreachable:  # it is refused while it is sent
            pass
        assert (await client.request("GET", f"{root}/large?offset=-1")).content == b""


def test_requests_go_to_the_server_that_is_there(cluster: Cluster, make: Make) -> None:
    with make(cluster.servers[0].port, free_port()) as proxy:
        asyncio.run(asyncio.wait_for(append_often(f"{proxy.url}/v1/stream/alone/{proxy.port}"), SECONDS))


async def append_often(url: str) -> None:
    async with Client() as client:
        assert (await client.request("PUT", url, TEXT)).status == 201
        for number in range(REQUESTS):
            await append(client, url, b"%d\n" % number)
        content = (await client.request("GET", f"{url}?offset=-1")).content
        assert content == b"".join(b"%d\n" % number for number in range(REQUESTS))


def test_the_servers_learn_who_asks_over_few_connections(make: Make) -> None:
    asyncio.run(asyncio.wait_for(look(make), SECONDS))


async def look(make: Make) -> None:
    async with Upstream() as upstream, Client() as client:
        proxy = make(upstream.port, upstream.port)
        with ExitStack() as stack:
            await asyncio.to_thread(stack.enter_context, proxy)
            forged = {"x-forwarded-for": "192.0.2.1", "x-forwarded-proto": "gopher"}
            answers: list[Response] = []
            for _ in range(REQUESTS):
                answers.append(await client.request("GET", f"{proxy.url}/v1/stream/a", forged))
            assert {answer.status for answer in answers} == {200}
        assert len(upstream.heads) == REQUESTS
        for head in upstream.heads:
            assert head["x-forwarded-for"] == [HOST]
            assert head["host"] == [f"{HOST}:{proxy.port}"]
            assert head.get("x-forwarded-proto", ["http"]) != ["gopher"]
        assert upstream.connections <= FEW


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and its certificate, in one file."""
    folder = tmp_path_factory.mktemp("certificate")
    key, certificate, both = folder / "key", folder / "certificate", folder / "both.pem"
    options = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=localhost"]
    command = ["openssl", "req", *options, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    return both


NGINX = [block for page in sorted(PAGES.glob("*.md")) for block in blocks(page, "nginx")]


@pytest.mark.parametrize("block", NGINX, ids=str)
def test_nginx_accepts_all_of_its_configurations(block: Block, certificate: Path) -> None:
    text = block.text
    for old, new in (
        ("/etc/ssl/example.org.pem", "{folder}/certificate.pem"),
        ("/etc/ssl/example.org.key", "{folder}/certificate.pem"),
        ("/var/cache/nginx", "{folder}"),
        ("listen 443", "listen {port}"),
        ("listen 80", "listen {port}"),
    ):
        text = text.replace(old, new)
    with Nginx(text, certificate):
        pass


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program that examines a configuration, with that folder as its home."""
    env = {"HOME": str(folder), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_caddy_accepts_its_configuration(tmp_path: Path) -> None:
    caddy = locate("caddy")
    assert caddy is not None, "caddy is not installed"
    (tmp_path / "Caddyfile").write_text(configuration("caddy", "caddyfile"))
    command = [str(caddy), "validate", "--adapter", "caddyfile", "--config", "Caddyfile"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, env={"HOME": str(tmp_path)}
    )
    assert done.returncode == 0, done.stderr
    assert "not formatted" not in done.stderr


def test_haproxy_accepts_its_configuration(tmp_path: Path, certificate: Path) -> None:
    haproxy = locate("haproxy")
    assert haproxy is not None, "haproxy is not installed"
    text = replaced(configuration("haproxy", "haproxy"), [("/etc/ssl/example.org.pem", str(certificate))])
    (tmp_path / "haproxy.cfg").write_text(text)
    done = subprocess.run(
        [str(haproxy), "-c", "-f", "haproxy.cfg"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
