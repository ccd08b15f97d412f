"""The browser that all these tests drive, and the server whose admin some of them visit."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from playwright import sync_api as playwright

from tests.browser.admin_pages import LIST, PAGES, PASSWORD, USERS, Visit, prepare, strictly
from tests.browser.example_pages import Begin
from tests.browser.visitor import Visitor
from tests.servers import Server
from tools.ensure_system import locate

CHROMIUM = os.environ.get("CHROMIUM") or locate("chromium")
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",  # Chromium refuses to run as root otherwise, which is what containers do
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

OF_PAGES = {"DJANGO_SETTINGS_MODULE": "tests.browser.page_settings"}


# Not wider than the module: playwright keeps an event loop running in this thread, and Django refuses database access
# beside one. A process may run tests of other packages before it ends a fixture of this one.
@pytest.fixture(scope="module")
def chromium() -> Iterator[playwright.Browser]:
    if CHROMIUM is None:
        pytest.fail("no Chromium on this machine: install the package chromium-headless-shell")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def shared_page_server() -> Iterator[Server]:
    with Server("uvicorn", entry_point="asgi", env=OF_PAGES) as server:
        yield server


@pytest.fixture(scope="module")
def page_server(shared_page_server: Server) -> Server:
    """The server of recipes and other pages of tests, which all of its modules share. They may stop it."""
    if shared_page_server.process is None:
        shared_page_server.start()  # a test has failed before it did so
    return shared_page_server


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server with people for the admin. A module may name an environment for it."""
    with Server("uvicorn", entry_point="asgi", env=getattr(request.module, "ENVIRONMENT", None)) as server:
        prepare(server, USERS)
        yield server


@pytest.fixture(scope="module")
def example_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of the example's pages. A module names an environment for it."""
    with Server("uvicorn", entry_point="asgi", env=request.module.ENVIRONMENT) as server:
        yield server


@pytest.fixture
def visit_example(chromium: playwright.Browser, example_server: Server) -> Iterator[Begin]:
    """Begins visits of the example's pages, and at the end finds what Chromium has complained of."""
    with ExitStack() as visits:

        def begin(url: str = "", *, server: Server = example_server, **options: Any) -> Visitor:
            visitor = visits.enter_context(flawless(Visitor(chromium, server.base_url, **options)))
            if url:
                visitor.page.goto(url)
            return visitor

        yield begin


@contextmanager
def flawless(visitor: Visitor) -> Iterator[Visitor]:
    """Close the context of a visitor, who must have had nothing to complain of."""
    try:
        yield visitor
    finally:
        visitor.context.close()
    assert visitor.complaints == []
    assert visitor.foreign_requests == []


@pytest.fixture(scope="module")
def sessions() -> dict[tuple[str, str], Any]:
    """What is stored in the browser of somebody who has logged in, by the server and the user."""
    return {}


@pytest.fixture
def visit(chromium: playwright.Browser, server: Server, sessions: dict[tuple[str, str], Any]) -> Iterator[Visit]:
    with ExitStack() as visits:

        def begin(user: str = "ada", *, server: Server = server, **options: Any) -> Visitor:
            state = sessions.get((server.base_url, user))
            visitor = visits.enter_context(flawless(Visitor(chromium, server.base_url, storage_state=state, **options)))
            # The example has no icon for the admin, which Chromium would complain of once.
            visitor.context.route("**/favicon.ico", lambda route: route.fulfill(status=204))
            visitor.context.route(visitor.base_url + PAGES + "**", strictly)
            if (server.base_url, user) in sessions:
                visitor.page.goto(LIST)
                return visitor
            visitor.page.goto("/admin/login/?next=" + LIST)
            visitor.page.locator("#id_username").fill(user)
            visitor.page.locator("#id_password").fill(PASSWORD)
            visitor.page.get_by_role("button", name="Log in").click()
            visitor.page.wait_for_url("**" + LIST)
            sessions[server.base_url, user] = visitor.context.storage_state()
            return visitor

        yield begin
