"""A course that pages with recipes run: restarts of the server, cuts of the network, the end, and refusals."""

import itertools
import time
from typing import Any, ClassVar, NamedTuple, Protocol
from urllib.parse import urlencode

from tests.browser.network import Network
from tests.browser.recipe_pages import numbers, wait_for
from tests.browser.streams import Streams
from tests.servers import Server

OF_STREAMS = ("event-source.html", "eventsource.html", "follow.html", "react.html", "vue.html", "client.html")
OF_EVENT_VIEWS = ("event-view.html", "htmx-2.html", "htmx-4.html")
RECIPES = OF_STREAMS + OF_EVENT_VIEWS
REFUSED = {401: "secret/without-login", 404: "public/missing", 403: "secret/with-login"}
"""Paths of streams that a page may not read, by the status of the refusal."""


class BrowserPage(Protocol):
    """A page of any browser."""

    def goto(self, url: str, /) -> Any:
        """Open a URL."""

    def evaluate(self, expression: str, arg: Any = None, /) -> Any:
        """Return the value of an expression in JavaScript."""

    def wait_for_function(self, expression: str, *, arg: Any, timeout: float, polling: float) -> Any:
        """Wait until a function returns true. Times are in milliseconds."""


class Reader(NamedTuple):
    """A page with one recipe, and the network between it and the server."""

    recipe: str
    page: BrowserPage
    network: Network

    @property
    def path(self) -> str:
        return f"public/relay/{self.network.port}/{self.recipe}"

    def show(self, path: str, **options: str) -> None:
        """Open the page for a stream."""
        self.page.goto(f"{self.network.base_url}/recipes/{self.recipe}?{urlencode({'path': path, **options})}")

    def count_requests(self, path: str) -> int:
        """How many requests for the stream there were, apart from that for the page."""
        return sum("/recipes/" not in asked.url for asked in self.network.requests(path))


class Course(NamedTuple):
    """What each page has shown, and the requests it made after the stream was closed."""

    written: int
    numbers: dict[str, list[int]]
    requests_after_close: dict[str, int]


def run_course(readers: list[Reader], server: Server, retry_seconds: float) -> Course:
    """Let all pages read while the server is restarted twice and their networks are cut three times.

    Args:
        readers: the pages.
        server: restarted on its port.
        retry_seconds: the time after which the browser's `EventSource` asks again.
    """
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
    time.sleep(2 * retry_seconds + 1)
    after = {reader.recipe: reader.count_requests(reader.path) - before[reader.recipe] for reader in readers}
    return Course(written, {reader.recipe: numbers(reader.page) for reader in readers}, after)


def requests_after_close(recipe: str) -> int:
    """How many requests a recipe makes after the end: the one that has no handler for it asks again, and gets a 204."""
    return 1 if recipe == "eventsource.html" else 0


def count_refused_requests(readers: list[Reader], server: Server, retry_seconds: float) -> dict[tuple[str, int], int]:
    """Return how many requests each page makes for streams that are refused, by the recipe and the status."""
    counts = {}
    for status, path in REFUSED.items():
        if status == 403:
            readers[0].page.goto(f"{server.base_url}/login")  # ports of a host share their cookies
        for reader in readers:
            reader.show(path)
        time.sleep(retry_seconds + 1)
        for reader in readers:
            counts[reader.recipe, status] = reader.count_requests(path)
        assert status_of(readers[0].page, path) == status
    return counts


def status_of(page: BrowserPage, path: str) -> int:
    """Return the status that a page gets for a stream."""
    status: int = page.evaluate("url => fetch(url).then(response => response.status)", f"/v1/stream/{path}")
    return status


class RecipeTests:
    """The test of all recipes in one browser. Its module has the fixtures `server` and `readers`.

    One test, because a course takes a minute: a run in several processes would repeat it in each.
    """

    retry_seconds: ClassVar[float]
    """The time after which the browser's `EventSource` asks again."""

    def test_each_message_is_shown_once_and_in_order_and_ends_and_refusals_are_final(
        self, readers: list[Reader], server: Server
    ) -> None:
        course = run_course(readers, server, self.retry_seconds)
        assert course.numbers == {recipe: list(range(course.written)) for recipe in RECIPES}
        assert course.requests_after_close == {recipe: requests_after_close(recipe) for recipe in RECIPES}
        refused = count_refused_requests(readers, server, self.retry_seconds)
        assert refused.keys() == set(itertools.product(RECIPES, REFUSED))
        assert {asked: count for asked, count in refused.items() if not 1 <= count <= 2} == {}
