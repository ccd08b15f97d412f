"""The site of the documentation in Chromium: it works alone, everybody can read it, and it fits a phone."""

import functools
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser

from tests.browser.visitor import DESKTOP, MOBILE, Visitor, take_picture, violations
from tests.docs.site import built_site
from tests.servers import HOST

pytestmark = pytest.mark.browser

# One of each kind: text, wide tables, code, docstrings, pictures. SITE_PAGES=all visits every page.
PAGES = ("index", "tutorial/chat", "settings", "protocol", "architecture", "reference/api/streams")
VIEWS = {
    "desktop": {"viewport": DESKTOP, "color_scheme": "light"},
    "dark": {"viewport": DESKTOP, "color_scheme": "dark"},
    "phone": {"viewport": MOBILE, "color_scheme": "light"},
}


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


@pytest.mark.parametrize("view", VIEWS)
def test_everybody_can_read_it(chromium: Browser, site: Path, address: str, view: str) -> None:
    visitor = Visitor(chromium, address, **VIEWS[view])
    visitor.context.route("**/favicon.ico", lambda route: route.fulfill(status=204))
    names = [file.relative_to(site).with_suffix("").as_posix() for file in sorted(site.rglob("*.html"))]
    problems = []
    for name in names if os.environ.get("SITE_PAGES") == "all" else PAGES:
        if name.startswith("_static") or name == "search":  # the search has its title with its results
            continue
        visitor.page.goto(f"/{name}.html")
        problems += [f"{name}: {violation}" for violation in violations(visitor.page)]
        width = visitor.page.evaluate("document.scrollingElement.scrollWidth")
        if width > visitor.page.evaluate("innerWidth"):
            problems.append(f"{name}: it is {width} pixels wide")
        take_picture(visitor.page, f"site-{view}-{name.replace('/', '-')}")
    visitor.context.close()
    assert problems == []
    assert visitor.complaints == []
    assert visitor.foreign_requests == []


@pytest.mark.parametrize(
    ("query", "page", "place"),
    [
        ("REAUTHORIZE_INTERVAL", "settings", 1),
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
        ("delete old streams", "howto/deleting", 1),
        ("delete old data", "howto/deleting", 1),
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
