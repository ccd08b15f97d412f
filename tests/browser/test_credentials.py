"""The recipes of docs/browser.md for those who may read: with a session, a token, a signed URL, on another origin."""

import urllib.request
from collections.abc import Callable, Iterator
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.network import Network
from tests.browser.streams import Streams, token
from tests.browser.visitor import Visitor
from tests.servers import HOST, Server, free_port

pytestmark = pytest.mark.browser

PATH = "users/ada/notes"
URL = f"/v1/stream/{PATH}"
RECIPES = ("event-source.html", "event-view.html", "follow.html", "htmx-2.html", "htmx-4.html", "client.html")
OF_STREAMS = ("event-source.html", "follow.html", "client.html")
OTHER_ORIGIN = f"http://{HOST}:{free_port()}"
ENVIRONMENT = {"DJANGO_SETTINGS_MODULE": "tests.browser.page_settings", "PAGE_ORIGINS": OTHER_ORIGIN}

Show = Callable[..., Page]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server("uvicorn", entry_point="asgi", env=ENVIRONMENT) as server:
        streams = Streams(server.base_url)
        streams.create(PATH)
        streams.append(PATH, {"text": "one"}, {"text": "two"})
        yield server


@pytest.fixture(scope="module")
def elsewhere(server: Server) -> Iterator[Network]:
    """The same server at another origin."""
    with Network(server.port, int(OTHER_ORIGIN.rpartition(":")[2])) as network:
        yield network


@pytest.fixture
def show(chromium: Browser, server: Server) -> Iterator[Show]:
    """Opens a recipe at an origin."""
    visitor = Visitor(chromium, server.base_url)

    def show(recipe: str, origin: str = "", **options: str) -> Page:
        visitor.page.goto(f"{origin}/recipes/{recipe}?{urlencode({'path': PATH, **options})}")
        return visitor.page

    yield show
    visitor.context.close()
    assert visitor.complaints == []


def assert_shown(page: Page) -> None:
    expect(page.locator("#messages li")).to_have_text(["one", "two"])


def bearer() -> str:
    return token(read=["users/ada/*"])


def test_a_session(chromium: Browser, server: Server) -> None:
    visitor = Visitor(chromium, server.base_url)
    visitor.page.goto("/login")
    for recipe in RECIPES:
        visitor.page.goto(f"/recipes/{recipe}?path={PATH}")
        assert_shown(visitor.page)
    visitor.context.close()
    assert visitor.complaints == []


@pytest.mark.parametrize("recipe", OF_STREAMS)
def test_a_signed_url(show: Show, server: Server, recipe: str) -> None:
    with urllib.request.urlopen(f"{server.base_url}/signed/{PATH}", timeout=20) as response:
        url = response.read().decode()
    assert_shown(show(recipe, url=url))


def test_a_token_in_the_url(show: Show) -> None:
    assert_shown(show("event-source.html", url=f"{URL}?access_token={bearer()}"))
    assert_shown(show("event-view.html", events=f"/events/{PATH}?access_token={bearer()}"))


def test_a_token_in_a_header(show: Show) -> None:
    options = f"headers: {{get Authorization() {{ return 'Bearer {bearer()}' }}}},"
    assert_shown(show("follow.html", options=options))


def test_another_origin_with_a_token(show: Show, server: Server, elsewhere: Network) -> None:
    options = f"headers: {{Authorization: 'Bearer {bearer()}'}},"
    assert_shown(show("follow.html", OTHER_ORIGIN, url=server.base_url + URL, options=options))
    url = f"{server.base_url}{URL}?access_token={bearer()}"
    for recipe in OF_STREAMS:
        assert_shown(show(recipe, OTHER_ORIGIN, url=url))


def test_another_origin_with_a_session(chromium: Browser, server: Server, elsewhere: Network) -> None:
    visitor = Visitor(chromium, server.base_url)
    visitor.page.goto("/login")
    options = urlencode({"path": PATH, "url": server.base_url + URL, "options": 'credentials: "include",'})
    visitor.page.goto(f"{OTHER_ORIGIN}/recipes/follow.html?{options}")
    assert_shown(visitor.page)
    visitor.context.close()
    assert visitor.complaints == []
