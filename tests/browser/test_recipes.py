"""The recipes of docs/browser.md, with clients as npm has them: they lose and double nothing, and know when to stop."""

import contextlib
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.course import RECIPES, Reader, RecipeTests
from tests.browser.network import Network
from tests.browser.recipe_pages import numbers, wait_for
from tests.browser.streams import Streams
from tests.browser.visitor import Visitor, violations
from tests.servers import Server

pytestmark = pytest.mark.browser

DATASTAR = "datastar-beta.html"
"""It does not ask again after a response that ends, so no server can be stopped under it."""


@pytest.fixture(scope="module")
def server(page_server: Server) -> Server:
    return page_server


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


class TestRecipes(RecipeTests):
    retry_seconds = 3.0


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


STARTS_OVER = {"follow.html", "react.html", "vue.html", "client.html"}
"""Recipes that show the messages of a new stream at the path. The others say that the server refuses."""


@pytest.mark.parametrize("recipe", sorted({*STARTS_OVER, "event-view.html"}))
def test_a_page_that_has_lost_its_place_shows_no_stale_messages_in_silence(
    chromium: Browser, server: Server, recipe: str
) -> None:
    streams, path = Streams(server.base_url), f"public/replaced/{recipe}"
    streams.create(path)
    streams.append(path, {"text": "0"}, {"text": "1"})
    visitor = Visitor(chromium, server.base_url)
    with Network(server.port) as network:
        reader = Reader(recipe, visitor.page, network)
        reader.show(path)
        wait_for(reader.page, 2)
        network.wait_until_open("live=sse" if recipe in STARTS_OVER else "/events/", 1)
        network.refuse()
        network.cut()
        network.wait_until_refused(1)
        streams.delete(path)
        streams.create(path)
        streams.append(path, {"text": "7"})
        network.refuse(False)
        if recipe in STARTS_OVER:
            expect(visitor.page.locator("#messages li")).to_have_text(["7"], timeout=20_000)
        else:
            expect(visitor.page.locator("#state")).to_have_text("The server refuses with 410.", timeout=20_000)
        visitor.context.close()


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
