"""Pages on a network that goes silent: nothing arrives any more, and nothing is closed. They notice it, and go on."""

from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser

from tests.browser.network import Network
from tests.browser.recipe_pages import numbers, wait_for
from tests.browser.streams import Streams
from tests.browser.test_bad_gateway import ON_A_STREAM, seen
from tests.browser.visitor import Visitor
from tests.servers import Server

pytestmark = pytest.mark.browser

FIFTY_TIMES_AS_FAST = """
const [later, often] = [window.setTimeout, window.setInterval];
window.setTimeout = (call, wait) => later(call, wait === 45e3 ? 900 : wait);
window.setInterval = (call, wait) => often(call, wait === 15e3 ? 300 : wait);
"""
HEARS_A_KEEP_ALIVE = """
() => new Promise(heard => new EventSource("/kept").addEventListener("keep-alive", event => heard(event.data)))
"""


@pytest.fixture(scope="module")
def server(page_server: Server) -> Server:
    return page_server


@pytest.fixture
def network(server: Server) -> Iterator[Network]:
    with Network(server.port) as network:
        yield network


@pytest.fixture
def visitor(chromium: Browser, network: Network) -> Iterator[Visitor]:
    visitor = Visitor(chromium, network.base_url)
    visitor.context.add_init_script(FIFTY_TIMES_AS_FAST)
    yield visitor
    visitor.context.close()


@pytest.mark.parametrize("recipe", ["event-view.html", "htmx-2.html", "follow.html"])
def test_a_page_goes_on_when_the_network_has_gone_silent(
    visitor: Visitor, network: Network, server: Server, recipe: str
) -> None:
    streams, path = Streams(server.base_url), f"public/silent/{recipe}"
    streams.create(path)
    streams.append(path, {"text": "0"})
    visitor.page.goto(f"/recipes/{recipe}?{urlencode({'path': path})}")
    wait_for(visitor.page, 1)
    for written in (1, 2):
        network.silence()
        streams.append(path, {"text": str(written)})
        wait_for(visitor.page, written + 1)
    assert numbers(visitor.page) == [0, 1, 2]
    streams.close(path)


def test_an_event_source_on_a_stream_goes_on_too(visitor: Visitor, network: Network, server: Server) -> None:
    streams, path = Streams(server.base_url), "public/silent/stream"
    url = streams.create(path)
    streams.append(path, {"text": "a"})
    visitor.page.goto("/healthz")
    visitor.page.evaluate(ON_A_STREAM, f"{url}?offset=-1&live=sse")
    seen(visitor, "a")
    network.silence()
    streams.append(path, {"text": "b"})
    seen(visitor, "a", "b")


def test_a_browser_hears_the_event_that_has_no_data(visitor: Visitor) -> None:
    visitor.page.goto("/healthz")
    kept = "event:keep-alive\ndata:\n\n"
    visitor.page.route("**/kept", lambda route: route.fulfill(content_type="text/event-stream", body=kept))
    assert visitor.page.evaluate(HEARS_A_KEEP_ALIVE) == ""
