"""Every page of the example: everybody can use it, it fits a phone, and it works under WSGI too."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.example_pages import Begin, ask, overflows, wait_for_end, wait_for_text
from tests.browser.visitor import DESKTOP, MOBILE, take_picture, violations_in_schemes
from tests.servers import ROOT, Server

pytestmark = pytest.mark.browser

ENVIRONMENT = {"TOKENS_PER_SECOND": "200"}


def first_screen(page: Page) -> None:
    page.goto("/")


def answered(page: Page) -> None:
    page.goto("/")
    ask(page, "Show me the code")
    wait_for_end(page)
    page.locator("summary").click()


def answering(page: Page) -> None:
    page.goto("/")
    page.get_by_role("button", name="What happens when I reload").click()
    wait_for_text(page)


def board(page: Page) -> None:
    page.goto("/board/")
    page.get_by_label("New card").fill("A card with a rather long text that has to wrap in a narrow column")
    page.get_by_role("button", name="Add").click()
    expect(page.locator(".card").first).to_be_visible()


def wire(page: Page) -> None:
    page.goto("/wire/")
    page.locator("#create").click()
    page.locator("#append").click()
    expect(page.locator("#log .event").first).to_be_visible()


DEVICES: list[tuple[str, Any]] = [("desktop", DESKTOP), ("mobile", MOBILE)]
SCHEMES: list[Any] = ["light", "dark"]
PAGES = [first_screen, answering, answered, board, wire]


@pytest.mark.parametrize("show", PAGES, ids=lambda show: show.__name__)
def test_everybody_can_use_a_page_and_it_fits(visit_example: Begin, show: Callable[[Page], None]) -> None:
    page = visit_example().page
    show(page)
    for device, viewport in DEVICES:
        page.set_viewport_size(viewport)
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            assert not overflows(page)
            take_picture(page, f"example-{show.__name__}-{device}-{scheme}")
        assert violations_in_schemes(page) == {"light": [], "dark": []}, device


class WsgiServer(Server):
    """The example project under WSGI."""

    def _command(self) -> list[str]:
        return [sys.executable, str(ROOT / "tests" / "entry_points" / "wsgi_server.py"), str(self.port)]


def test_the_pages_work_under_wsgi(visit_example: Begin) -> None:
    with WsgiServer(entry_point="urls", env=ENVIRONMENT) as server:
        visitor = visit_example(server=server)
        page = visitor.page
        answering(page)
        page.reload()
        wait_for_end(page)
        # Chromium itself reports the status that says that there are no events.
        assert all("501" in complaint for complaint in visitor.complaints)
        visitor.complaints.clear()
        board(page)
        page.goto("about:blank")
