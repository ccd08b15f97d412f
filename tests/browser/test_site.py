"""The site of the documentation in Chromium: it works alone, everybody can read it, and it fits a phone."""

import functools
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, Page, ViewportSize

from tests.browser.visitor import DESKTOP, MOBILE, Visitor, take_picture, violations, violations_in_schemes
from tests.docs.site import built_site
from tests.servers import HOST

pytestmark = pytest.mark.browser

# One of each kind: text, wide tables, code, docstrings, pictures. SITE_PAGES=all visits every page.
PAGES = ("index", "tutorial/chat", "settings", "protocol", "architecture", "reference/api/streams")
WIDE_TABLES = """[...document.querySelectorAll('.table-wrapper')].some(
    one => one.querySelector('table.wide') && one.scrollWidth > one.clientWidth
)"""
EVERY_PAGE = os.environ.get("SITE_PAGES") == "all"
VIEWS: tuple[tuple[str, ViewportSize, Literal["light", "dark"]], ...] = (
    ("desktop", DESKTOP, "light"),
    ("dark", DESKTOP, "dark"),
    ("phone", MOBILE, "light"),
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_site(tmp_path_factory)


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer((HOST, 0), functools.partial(Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://{HOST}:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("page", ["every page"] if EVERY_PAGE else PAGES)
def test_everybody_can_read_it(chromium: Browser, site: Path, address: str, page: str) -> None:
    visitor = Visitor(chromium, address)
    visitor.context.route("**/favicon.ico", lambda route: route.fulfill(status=204))
    problems = []
    for name in names_of_pages(site) if EVERY_PAGE else [page]:
        visitor.page.goto(f"/{name}.html")
        problems += [f"{name}: {problem}" for problem in problems_of(visitor.page, name)]
    visitor.context.close()
    assert problems == []
    assert visitor.complaints == []
    assert visitor.foreign_requests == []


def problems_of(page: Page, name: str) -> Iterator[str]:
    """Yield what is wrong with a page. It is not loaded for each view: its layout follows the window and the scheme."""
    for view, viewport, scheme in VIEWS:
        page.set_viewport_size(viewport)
        page.emulate_media(color_scheme=scheme)
        width = page.evaluate("document.scrollingElement.scrollWidth")
        if width > page.evaluate("innerWidth"):
            yield f"{view}: it is {width} pixels wide"
        if page.evaluate(WIDE_TABLES):
            yield f"{view}: a table is wider than its column"
        take_picture(page, f"site-{view}-{name.replace('/', '-')}")
    yield from (f"phone: {violation}" for violation in violations(page))
    page.set_viewport_size(DESKTOP)
    for examined_scheme, problems in violations_in_schemes(page).items():
        yield from (f"{examined_scheme}: {problem}" for problem in problems)


def names_of_pages(site: Path) -> list[str]:
    """Return the names of all pages. The search has its title with its results."""
    names = [file.relative_to(site).with_suffix("").as_posix() for file in sorted(site.rglob("*.html"))]
    return [name for name in names if not name.startswith("_static") and name != "search"]


@pytest.mark.parametrize(
    ("query", "page", "place"),
    [
        ("REAUTHORIZE_INTERVAL", "settings", 1),
        ("QUEUE_BYTES", "settings", 1),
        ("403", "howto/refused", 1),
        ("404", "howto/refused", 1),
        ("410", "browser", 99),
        ("Stream-First-Offset", "protocol", 99),
        ("The CSRF check failed", "howto/refused", 1),
        ("CSRF check failed", "howto/refused", 1),
        ("Permission denied", "howto/refused", 1),
        ("leads to no user", "howto/refused", 1),
        ("No pattern of OWNER allows this user", "howto/refused", 1),
        ("does not show a stream of this database", "howto/refused", 1),
        ("no class of PERMISSION_CLASSES reads it", "howto/refused", 1),
        ("403 forbidden", "howto/refused", 1),
        ("third-party cookies", "howto/refused", 1),
        ("incognito", "howto/refused", 1),
        ("restart without losing messages", "deployment/upgrades", 1),
        ("move to postgres", "commands", 2),
        ("sqlite to postgresql", "commands", 2),
        ("drag and drop", "tutorial/board", 3),
        ("typing indicator", "howto/moving", 1),
        ("presence", "howto/moving", 3),
        ("pagination", "python", 3),
        ("last 50 messages", "howto/rooms", 1),
        ("rooms with members", "howto/rooms", 1),
        ("docker compose", "deployment/containers", 3),
        ("kanban", "tutorial/board", 3),
        ("private room", "howto/rooms", 3),
        ("removed member", "howto/rooms", 3),
        ("add chat to existing project", "howto/rooms", 3),
        ("add to existing project", "howto/existing-rows", 3),
        ("existing rows", "howto/existing-rows", 1),
        ("migration", "howto/existing-rows", 3),
        ("backfill", "howto/existing-rows", 3),
        ("delete old streams", "howto/deleting", 1),
        ("delete old data", "howto/deleting", 1),
        ("bulk", "howto/bulk", 1),
        ("build_absolute_uri", "access", 1),
        ("signed url https", "access", 3),
        ("absolute link", "access", 1),
        ("StreamField", "howto/existing-rows", 3),
        ("Cannot assign", "howto/existing-rows", 1),
        ("bulk_create", "howto/bulk", 1),
        ("hangs", "howto/nothing-live", 1),
        ("hang", "howto/nothing-live", 1),
        ("no events arrive", "howto/nothing-live", 1),
        ("reader gets no events", "howto/nothing-live", 1),
        ("live updates are slow", "howto/nothing-live", 1),
        ("SECRET_KEY mismatch", "howto/nothing-live", 1),
    ],
)
def test_its_search_finds(chromium: Browser, address: str, query: str, page: str, place: int) -> None:
    visitor = Visitor(chromium, address)
    visitor.context.route("**/favicon.ico", lambda route: route.fulfill(status=204))
    visitor.page.goto(f"/search.html?{urlencode({'q': query})}")
    visitor.page.locator(f"#search-results a[href*='{page}.html']").first.wait_for()
    visitor.page.locator(".search-summary", has_text="Search finished").wait_for()
    links = visitor.page.locator("#search-results li a").evaluate_all("all => all.map(one => one.getAttribute('href'))")
    pages = list(dict.fromkeys(link.partition("#")[0] for link in links))
    assert any(listed.endswith(f"{page}.html") for listed in pages[:place]), pages
    visitor.context.close()
    assert visitor.foreign_requests == []
