"""Pages behind a proxy that answers with 502 while its server restarts: they go on, and lose and double nothing."""

from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser

from tests.browser.network import Network
from tests.browser.recipe_pages import numbers, wait_for
from tests.browser.streams import Streams
from tests.browser.visitor import Visitor
from tests.servers import Server

pytestmark = pytest.mark.browser

RECIPES = ("event-view.html", "htmx-2.html", "htmx-4.html", "follow.html")

ON_A_STREAM = """async url => {
    const {ReconnectingEventSource} = await import("/static/durable_streams/event-source.js");
    window.seen = [];
    window.source = new ReconnectingEventSource(url);
    source.addEventListener("data", event => seen.push(...JSON.parse(event.data).map(message => message.text)));
    source.addEventListener("over", () => seen.push("over"));
    source.onerror = ({status}) => status && seen.push(status);
}"""


@pytest.fixture(scope="module")
def server(page_server: Server) -> Server:
    return page_server


@pytest.fixture
def visitor(chromium: Browser, server: Server) -> Iterator[Visitor]:
    visitor = Visitor(chromium, server.base_url)
    yield visitor
    visitor.context.close()


@pytest.fixture
def network(server: Server) -> Iterator[Network]:
    with Network(server.port) as network:
        yield network


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_page_goes_on_after_bad_gateways(visitor: Visitor, network: Network, server: Server, recipe: str) -> None:
    streams, path, written = Streams(server.base_url), f"public/gateway/{recipe}", 0
    streams.create(path)
    visitor.page.goto(f"{network.base_url}/recipes/{recipe}?{urlencode({'path': path})}")

    def write(count: int) -> None:
        nonlocal written
        streams.append(path, *({"text": str(written + n)} for n in range(count)))
        written += count

    write(3)
    wait_for(visitor.page, written)
    for times in (2, 3):
        network.refuse()
        network.cut()
        network.wait_until_refused(times)
        write(2)
        network.refuse(False)
        wait_for(visitor.page, written)
        write(1)
        wait_for(visitor.page, written)
    assert numbers(visitor.page) == list(range(written))
    streams.close(path)
    network.wait_until_open(path, 0)


def seen(visitor: Visitor, *expected: object) -> None:
    visitor.page.wait_for_function(
        "expected => JSON.stringify(window.seen) === JSON.stringify(expected)", arg=list(expected), timeout=30_000
    )


def test_a_stream_is_read_by_the_same_class(visitor: Visitor, network: Network, server: Server) -> None:
    streams, path = Streams(server.base_url), "public/gateway/stream"
    url = streams.create(path)
    visitor.page.goto(f"{network.base_url}/recipes/follow.html?{urlencode({'path': 'public/gateway/nothing'})}")
    streams.append(path, {"text": "a"}, {"text": "b"})
    visitor.page.evaluate(ON_A_STREAM, f"{url}?offset=-1&live=sse")
    seen(visitor, "a", "b")
    network.refuse()
    network.cut()
    network.wait_until_refused(2)
    assert visitor.page.evaluate("source.readyState") == 0
    streams.append(path, {"text": "c"})
    network.refuse(False)
    seen(visitor, "a", "b", "c")
    # The stream is gone: a refusal, for good.
    streams.delete(path)
    network.cut()
    seen(visitor, "a", "b", "c", 404)
    assert visitor.page.evaluate("source.readyState") == 2


def test_nothing_is_asked_for_after_a_close(visitor: Visitor, network: Network, server: Server) -> None:
    path = "public/gateway/closed"
    url = Streams(server.base_url).create(path)
    visitor.page.goto(f"{network.base_url}/recipes/follow.html?{urlencode({'path': 'public/gateway/nothing'})}")
    visitor.page.evaluate(ON_A_STREAM, f"{url}?offset=-1&live=sse")
    network.wait_until_open(path, 1)
    network.refuse()
    network.cut()
    network.wait_until_refused(1)
    visitor.page.evaluate("source.close()")
    network.refuse(False)
    # Longer than its longest first waits: a timer of the page, in which another request would have come.
    visitor.page.evaluate("new Promise(go => setTimeout(go, 2500))")
    assert visitor.page.evaluate("source.readyState") == 2
    assert network.open(path) == 0
