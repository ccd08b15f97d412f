"""The recipes of docs/browser.md, with clients as npm has them: they lose and double nothing, and know when to stop."""

import contextlib
import time
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.network import Network
from tests.browser.recipe_pages import numbers, wait_for
from tests.browser.streams import Streams
from tests.browser.visitor import Visitor, violations
from tests.servers import Server

pytestmark = pytest.mark.browser

ENVIRONMENT = {"DJANGO_SETTINGS_MODULE": "tests.browser.page_settings"}
OF_STREAMS = ("event-source.html", "eventsource.html", "follow.html", "react.html", "vue.html", "client.html")
OF_EVENT_VIEWS = ("event-view.html", "htmx-2.html", "htmx-4.html")
RECIPES = OF_STREAMS + OF_EVENT_VIEWS
DATASTAR = "datastar-beta.html"
"""It does not ask again after a response that ends, so no server can be stopped under it."""

EVENT_SOURCE_RETRY = 3.0
"""Seconds after which Chromium's `EventSource` asks again, and so does the package."""


class Reader(NamedTuple):
    """A page with one recipe, and the network between it and the server."""

    recipe: str
    page: Page
    network: Network

    @property
    def path(self) -> str:
        return f"public/relay/{self.recipe}"

    def show(self, path: str, **options: str) -> None:
        """Open the page for a stream."""
        self.page.goto(f"{self.network.base_url}/recipes/{self.recipe}?{urlencode({'path': path, **options})}")

    def count_requests(self, path: str) -> int:
        """How many requests for the stream there were, apart from that for the page."""
        return sum("/recipes/" not in asked.url for asked in self.network.requests(path))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server("uvicorn", entry_point="asgi", env=ENVIRONMENT) as server:
        yield server


@pytest.fixture(scope="module")
def readers(chromium: Browser, server: Server) -> Iterator[list[Reader]]:
    """A reader for each recipe. Each has an origin of its own: browsers open six connections to an origin."""
    visitor = Visitor(chromium, server.base_url)
    with contextlib.ExitStack() as networks:
        yield [
            Reader(recipe, visitor.context.new_page(), networks.enter_context(Network(server.port)))
            for recipe in RECIPES
        ]
        visitor.context.close()


class Course(NamedTuple):
    """What each page has shown, and the requests it made after the stream was closed."""

    written: int
    numbers: dict[str, list[int]]
    requests_after_close: dict[str, int]


@pytest.fixture(scope="module")
def course(readers: list[Reader], server: Server) -> Course:
    """All pages read while the server is restarted twice and their networks are cut three times."""
    streams = Streams(server.base_url)
    written = 0

    def write(*counts: int) -> None:
        nonlocal written
        for count in counts:
            for reader in readers:
                streams.append(reader.path, *({"text": str(written + n)} for n in range(count)))
            written += count
        for reader in readers:
            wait_for(reader.page, written)

    for reader in readers:
        streams.create(reader.path)
        reader.show(reader.path)
    write(1, 3, 1)

    # Of an append of ten messages, five arrive.
    for reader in readers:
        sixth = f"<li>{written + 5}" if reader.recipe in OF_EVENT_VIEWS else f'"{written + 4}"}},'
        reader.network.cut_behind(sixth.encode())
    write(10)
    for reader in readers:
        reader.network.wait_until_cut()

    server.stop()
    server.start()
    write(1)
    for reader in readers:
        reader.network.cut()
    write(2)
    server.kill()
    server.start()
    for reader in readers:
        reader.network.cut()
    write(1, 1)

    before = {reader.recipe: reader.count_requests(reader.path) for reader in readers}
    for reader in readers:
        streams.close(reader.path)
    # Long enough for two more requests of those who ask again.
    time.sleep(2 * EVENT_SOURCE_RETRY + 1)
    after = {reader.recipe: reader.count_requests(reader.path) - before[reader.recipe] for reader in readers}
    return Course(written, {reader.recipe: numbers(reader.page) for reader in readers}, after)


@pytest.mark.parametrize("recipe", RECIPES)
def test_each_message_is_shown_once_and_in_order(course: Course, recipe: str) -> None:
    assert course.numbers[recipe] == list(range(course.written))


@pytest.mark.parametrize("recipe", RECIPES)
def test_nothing_is_asked_for_after_the_end(course: Course, recipe: str) -> None:
    # Of the recipes, only the one that has no handler for the end asks once more: it gets a 204.
    assert course.requests_after_close[recipe] == (1 if recipe == "eventsource.html" else 0)


def test_the_datastar_of_npm_goes_on_after_a_lost_network(chromium: Browser, server: Server) -> None:
    streams = Streams(server.base_url)
    path = f"public/{DATASTAR}"
    streams.create(path)
    streams.append(path, *({"text": str(n)} for n in range(3)))
    visitor = Visitor(chromium, server.base_url)
    with Network(server.port) as network:
        reader = Reader(DATASTAR, visitor.page, network)
        reader.show(path)
        wait_for(reader.page, 3)
        network.cut_behind(b"<li>8")
        streams.append(path, *({"text": str(n)} for n in range(3, 13)))
        network.wait_until_cut()
        wait_for(reader.page, 13)
        network.cut()
        streams.append(path, {"text": "13"})
        wait_for(reader.page, 14)
        assert numbers(reader.page) == list(range(14))
        before = reader.count_requests(path)
        streams.close(path)
        network.wait_until_open(path, 0)
        assert reader.count_requests(path) == before
        visitor.context.close()


@pytest.fixture(scope="module")
def requests_of_refused(course: Course, readers: list[Reader], server: Server) -> dict[tuple[str, int], int]:
    """How many requests each page makes for a stream that it may not read, and for one that does not exist."""
    paths = {401: "secret/without-login", 404: "public/missing", 403: "secret/with-login"}
    counts = {}
    for status, path in paths.items():
        if status == 403:
            readers[0].page.goto(f"{server.base_url}/login")  # ports of a host share their cookies
        for reader in readers:
            reader.show(path)
        time.sleep(EVENT_SOURCE_RETRY + 1)
        for reader in readers:
            counts[reader.recipe, status] = reader.count_requests(path)
        assert status_of(readers[0].page, path) == status
    return counts


def status_of(page: Page, path: str) -> int:
    """What the server answers to the page for a stream."""
    return page.evaluate("url => fetch(url).then(response => response.status)", f"/v1/stream/{path}")


@pytest.mark.parametrize("status", [401, 403, 404])
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_refusal_is_final(requests_of_refused: dict[tuple[str, int], int], recipe: str, status: int) -> None:
    assert 1 <= requests_of_refused[recipe, status] <= 2


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_leaves_nothing_in_the_console_and_everybody_can_use_it(
    chromium: Browser, server: Server, recipe: str
) -> None:
    streams = Streams(server.base_url)
    path = f"public/console/{recipe}"
    streams.create(path)
    streams.append(path, {"text": "0"}, {"text": "1"})
    visitor = Visitor(chromium, server.base_url)
    visitor.page.goto(f"/recipes/{recipe}?path={path}")
    expect(visitor.page.locator("#messages li")).to_have_text(["0", "1"])
    assert violations(visitor.page) == []
    streams.close(path)
    visitor.context.close()
    assert visitor.complaints == []
    assert visitor.foreign_requests == []


def test_everybody_can_use_the_example(chromium: Browser, server: Server) -> None:
    visitor = Visitor(chromium, server.base_url)
    visitor.page.goto("/")
    assert violations(visitor.page) == []
    visitor.context.close()
    assert visitor.complaints == []
