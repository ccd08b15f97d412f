"""What tests of the example's pages share: how a visitor asks in the chat, and what its stream has then."""

import json
import re
import urllib.request
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Locator, Page, expect

from tests.browser.visitor import Visitor
from tests.servers import Server

Begin = Callable[..., Visitor]

ANSWER_MILLISECONDS = 30_000


def ask(page: Page, question: str) -> None:
    """Send a message by the form."""
    page.get_by_label("Message", exact=True).fill(question)
    page.get_by_role("button", name="Send").click()


def answers(page: Page) -> Locator:
    return page.locator("#messages .assistant")


def wait_for_text(page: Page) -> None:
    """Wait until the last answer has begun."""
    expect(answers(page).last.locator(".answer > p").first).to_have_text(re.compile(r"\w+ \w+"))


def wait_for_end(page: Page, status: str = "done") -> None:
    expect(answers(page).last).to_have_attribute("data-status", status, timeout=ANSWER_MILLISECONDS)


def stored_text(server: Server, page: Page) -> str:
    """The text of all answers in the stream of a page's chat."""
    path = page.locator("body").get_attribute("data-stream")
    with urllib.request.urlopen(f"{server.base_url}{path}?offset=-1", timeout=10) as response:
        events: list[dict[str, Any]] = json.loads(response.read())
    return "".join(event["text"] for event in events if event["type"] == "text")


def overflows(page: Page) -> bool:
    """Whether a page scrolls sideways."""
    return page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")


def only_lost_connections(visitor: Visitor) -> None:
    """Forget what Chromium itself reports of a server that does not answer, and nothing else."""
    assert all("net::ERR_" in complaint for complaint in visitor.complaints), visitor.complaints
    visitor.complaints.clear()
