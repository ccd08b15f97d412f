"""Streams that hold active content, opened in a real browser by somebody who is logged in: nothing of it runs."""

import functools
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from playwright.sync_api import Browser

from tests.browser.admin_pages import prepare
from tests.browser.visitor import Visitor
from tests.servers import EntryPoint, Server

pytestmark = pytest.mark.browser

PASSWORD = "as good as any"
MAKE_USER = f"""
from django.contrib.auth.models import User
User.objects.create_superuser("ada", password={PASSWORD!r})
"""

# What an attacker would do: create a stream with the rights of whoever looks, and take the token along.
ATTACK = "fetch('/v1/stream/owned/{name}', {{method: 'PUT', headers: {{'content-type': 'text/plain'}}, body: 'x'}})"

HTML = '<!doctype html><title>t</title><script>{attack}</script><img src=x onerror="{attack}"><p>loaded'
SVG = "<svg xmlns='http://www.w3.org/2000/svg'><script>{attack}</script><rect width='9' height='9'/></svg>"
XHTML = (
    "<html xmlns='http://www.w3.org/1999/xhtml'><head><title>t</title></head>"
    "<body><script>{attack}</script><p>loaded</p></body></html>"
)
# An element of another language's namespace runs in any XML.
XML = "<root><x:script xmlns:x='http://www.w3.org/1999/xhtml'>{attack}</x:script></root>"
STYLED = "<?xml version='1.0'?><?xml-stylesheet type='text/xsl' href='/v1/stream/stored/sheet'?><root/>"
SHEET = (
    "<xsl:stylesheet version='1.0' xmlns:xsl='http://www.w3.org/1999/XSL/Transform'><xsl:template match='/'>"
    "<html><body><script>{attack}</script></body></html></xsl:template></xsl:stylesheet>"
)
PDF = (
    "%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R/OpenAction 3 0 R>>endobj\n"
    "2 0 obj<</Type/Pages/Kids[]/Count 0>>endobj\n"
    "3 0 obj<</S/JavaScript/JS(app.launchURL\\('/v1/stream/owned/pdf'\\))>>endobj\ntrailer<</Root 1 0 R>>\n"
)
WORKER = "{attack}"

STORED = {
    "html": ("text/html", HTML),
    "html-in-capitals": ("TEXT/HTML; charset=utf-8", HTML),
    "svg": ("image/svg+xml", SVG),
    "xhtml": ("application/xhtml+xml", XHTML),
    "xml": ("text/xml", XML),
    "application-xml": ("application/xml", XML),
    "rss": ("application/rss+xml", XML),
    "styled": ("text/xml", STYLED),
    "sheet": ("text/xsl", SHEET),
    "pdf": ("application/pdf", PDF),
    "worker": ("text/javascript", WORKER),
}
SHOWN = ["html", "html-in-capitals", "svg", "xhtml", "xml", "application-xml", "rss", "styled"]
# That the headers are the same at both entry points, tests/server/test_browser_headers.py shows.
SERVED = [*(("asgi", name) for name in SHOWN), ("urls", "html"), ("urls", "svg")]
EACH_ENTRY_POINT = pytest.mark.parametrize("entry_point", ["asgi", "urls"])

Site = Callable[[EntryPoint], tuple[Server, Visitor]]


@contextmanager
def serving(entry_point: EntryPoint) -> Iterator[Server]:
    """A server with what is stored, and with a user."""
    with Server("uvicorn", entry_point=entry_point) as server:
        prepare(server, MAKE_USER)
        for name, (kind, body) in STORED.items():
            send(server, "PUT", f"stored/{name}", body.format(attack=ATTACK.format(name=name)), kind)
        yield server


def send(server: Server, method: str, path: str, body: str = "", kind: str = "text/plain") -> int:
    request = urllib.request.Request(
        f"{server.base_url}/v1/stream/{path}", body.encode() or None, {"Content-Type": kind}, method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@contextmanager
def logged_in(chromium: Browser, server: Server) -> Iterator[Visitor]:
    visitor = Visitor(chromium, server.base_url)
    page = visitor.page
    page.goto("/admin/login/")
    page.locator("#id_username").fill("ada")
    page.locator("#id_password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/admin/")
    page.close()
    yield visitor
    visitor.context.close()


@pytest.fixture(scope="module")
def site(chromium: Browser) -> Iterator[Site]:
    """Starts the server of an entry point and logs in, once for all tests: they name it beside other parameters."""
    with ExitStack() as stack:

        @functools.cache
        def begin(entry_point: EntryPoint) -> tuple[Server, Visitor]:
            server = stack.enter_context(serving(entry_point))
            return server, stack.enter_context(logged_in(chromium, server))

        yield begin


@pytest.fixture
def server(site: Site, entry_point: EntryPoint) -> Server:
    return site(entry_point)[0]


@pytest.fixture
def visitor(site: Site, entry_point: EntryPoint) -> Iterator[Visitor]:
    """Somebody who is logged in, with a page of this test's own."""
    _, visitor = site(entry_point)
    visitor.page = visitor.context.new_page()
    yield visitor
    visitor.page.close()


def assert_nothing_ran(server: Server, visitor: Visitor, name: str) -> None:
    # A fetch that began is over by the time that a later one of the same page and server is.
    page = visitor.context.new_page()
    page.goto("/")
    page.evaluate("fetch('/v1/stream/nowhere').then(answer => answer.text())")
    page.close()
    assert send(server, "HEAD", f"owned/{name}") == 404


@pytest.mark.parametrize(("entry_point", "name"), SERVED)
def test_what_is_opened_runs_nothing(visitor: Visitor, server: Server, name: str) -> None:
    page = visitor.page
    page.goto(f"/v1/stream/stored/{name}")
    page.wait_for_load_state("networkidle")
    assert page.evaluate("self.origin") == "null"
    assert_nothing_ran(server, visitor, name)


@pytest.mark.parametrize(("entry_point", "name"), SERVED)
def test_what_a_page_of_the_site_frames_runs_nothing(visitor: Visitor, server: Server, name: str) -> None:
    page = visitor.page
    page.goto("/")
    for element, attribute in (("iframe", "src"), ("object", "data"), ("embed", "src")):
        page.evaluate(
            """([element, attribute, url]) => new Promise(done => {
                const made = document.createElement(element);
                made.addEventListener("load", done);
                made.addEventListener("error", done);
                made.setAttribute(attribute, url);
                document.body.append(made);
                setTimeout(done, 2000);
            })""",
            [element, attribute, f"/v1/stream/stored/{name}"],
        )
    page.wait_for_load_state("networkidle")
    assert_nothing_ran(server, visitor, name)


@EACH_ENTRY_POINT
def test_a_pdf_is_saved_and_not_opened(visitor: Visitor) -> None:
    visitor.page.goto("/")
    with visitor.page.expect_download() as download:
        visitor.page.evaluate("location.href = '/v1/stream/stored/pdf'")
    assert download.value.url.endswith("/v1/stream/stored/pdf")


@EACH_ENTRY_POINT
@pytest.mark.parametrize("kind", ["Worker", "SharedWorker", "serviceWorker"])
def test_a_script_is_no_worker(visitor: Visitor, server: Server, kind: str) -> None:
    page = visitor.page
    page.goto("/")
    outcome = page.evaluate(
        """kind => new Promise(done => {
            const url = "/v1/stream/stored/worker";
            if (kind === "serviceWorker") {
                navigator.serviceWorker.register(url).then(() => done("registered"), () => done("refused"));
                return;
            }
            const made = new self[kind](url);
            made.onerror = () => done("refused");
            setTimeout(() => done("nothing was said"), 15000);
        })""",
        kind,
    )
    assert outcome == "refused"
    assert_nothing_ran(server, visitor, "worker")


@EACH_ENTRY_POINT
def test_a_script_element_does_not_run_a_stream(visitor: Visitor, server: Server) -> None:
    page = visitor.page
    page.goto("/")
    for kind in ("text/javascript", "module"):
        outcome = page.evaluate(
            """kind => new Promise(done => {
                const made = document.createElement("script");
                made.type = kind;
                made.onload = () => done("ran");
                made.onerror = () => done("refused");
                made.src = "/v1/stream/stored/worker";
                document.head.append(made);
            })""",
            kind,
        )
        assert outcome == "refused"
    assert_nothing_ran(server, visitor, "worker")
