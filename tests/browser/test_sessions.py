"""Sessions in a real browser: pages of other origins, and one user of a browser after another."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.admin_pages import prepare
from tests.browser.visitor import Visitor
from tests.servers import HOST, Server

pytestmark = pytest.mark.browser

PASSWORD = "as good as any"
MAKE_USERS = f"""
from django.contrib.auth.models import User
User.objects.create_superuser("ada", password={PASSWORD!r})
User.objects.create_user("bob", password={PASSWORD!r}, is_staff=True)
"""

SEND = """
async ([method, url, headers, body]) => {
    const token = document.cookie.split("; ").find(cookie => cookie.startsWith("csrftoken="))?.slice(10);
    if (headers["X-CSRFToken"] === "") headers["X-CSRFToken"] = token;
    try {
        const answer = await fetch(url, {method, headers, body, credentials: "include"});
        return [answer.status, answer.headers.get("stream-next-offset"), await answer.text()];
    } catch (error) {
        return [0, null, String(error)];
    }
}
"""
TRACING = {
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "a=1",
    "baggage": "a=1",
    "sentry-trace": "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
    "x-own": "1",
}


class Blank(BaseHTTPRequestHandler):
    """A page with nothing on it."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>page</title><link rel=icon href=data:,>")

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def origins() -> Iterator[tuple[str, str]]:
    """Two origins of pages: the server knows the first."""
    servers = [ThreadingHTTPServer((HOST, 0), Blank) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    ours, other = (f"http://{HOST}:{server.server_port}" for server in servers)
    yield ours, other
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module", params=["asgi", "urls"])
def server(request: pytest.FixtureRequest, origins: tuple[str, str]) -> Iterator[Server]:
    env = {"DJANGO_SETTINGS_MODULE": "tests.browser.cross_origin_settings", "PAGE_ORIGINS": origins[0]}
    with Server("uvicorn", entry_point=request.param, env=env) as server:
        prepare(server, MAKE_USERS)
        yield server


@pytest.fixture
def page(chromium: Browser, server: Server) -> Iterator[Page]:
    visitor = Visitor(chromium, server.base_url)
    log_in(visitor.page, "ada")
    yield visitor.page
    visitor.context.close()


def log_in(page: Page, name: str) -> None:
    page.goto("/admin/login/")
    page.locator("#id_username").fill(name)
    page.locator("#id_password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/admin/")


def send(page: Page, method: str, url: str, body: str | None = None, **headers: str) -> tuple[int, str | None, str]:
    status, offset, text = page.evaluate(SEND, [method, url, headers, body])
    return status, offset, text


def test_a_page_of_a_listed_origin_writes_and_reads_with_the_session(
    page: Page, server: Server, origins: tuple[str, str]
) -> None:
    url = f"{server.base_url}/v1/stream/from-elsewhere"
    text = {"content-type": "text/plain"}
    page.goto(origins[0])
    assert send(page, "PUT", url, **text)[0] == 403  # without the token
    token = {"X-CSRFToken": ""}
    assert send(page, "PUT", url, **text, **token, **TRACING)[0] == 201
    status, offset, _ = send(page, "POST", url, "hello", **text, **token, **TRACING, **{"stream-seq": "1"})
    assert (status, offset.partition("_")[2]) == (204, "0000000000000005")  # type: ignore[union-attr]
    status, offset, body = send(page, "GET", url, **TRACING, **{"if-none-match": '"x"', "last-event-id": "1"})
    assert (status, offset.partition("_")[2], body) == (200, "0000000000000005", "hello")  # type: ignore[union-attr]
    event = page.evaluate(
        """url => new Promise(done => {
            const events = new EventSource(url + "?offset=-1&live=sse", {withCredentials: true});
            events.addEventListener("data", event => { events.close(); done(event.data); });
        })""",
        url,
    )
    assert event == "hello"
    assert send(page, "DELETE", url, **token)[0] == 204


def test_a_page_of_another_origin_does_nothing(page: Page, server: Server, origins: tuple[str, str]) -> None:
    url = f"{server.base_url}/v1/stream/owned"
    page.goto(origins[1])
    token = {"X-CSRFToken": ""}
    assert send(page, "PUT", url, **{"content-type": "text/plain"}, **token)[0] == 0
    assert send(page, "POST", url, "hello", **{"content-type": "text/plain"})[0] == 0
    page.goto(f"{server.base_url}/admin/")
    assert send(page, "GET", url)[0] == 404


def test_who_uses_the_browser_next_is_not_shown_what_was_read(page: Page, server: Server) -> None:
    page.goto("/admin/")
    url = f"{server.base_url}/v1/stream/private"
    token = {"X-CSRFToken": ""}
    assert send(page, "PUT", url, "secret", **{"content-type": "text/plain"}, **token)[0] == 201
    for _ in range(2):
        assert send(page, "GET", url)[2] == "secret"
    page.context.clear_cookies()
    assert send(page, "GET", url)[0] == 403
    log_in(page, "bob")
    assert send(page, "GET", url)[0] == 403
    page.context.clear_cookies()
    log_in(page, "ada")
    assert send(page, "GET", url)[2] == "secret"
    assert send(page, "DELETE", url, **token)[0] == 204
    assert send(page, "GET", url)[0] == 404
