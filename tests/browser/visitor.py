"""Somebody who visits pages in a browser, and everything that goes wrong in them."""

import os
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, Request

from tests.browser.recipe_pages import PACKAGES

ARTIFACTS = Path(__file__).resolve().parent.parent / "artifacts"

DESKTOP = {"width": 1280, "height": 900}
MOBILE = {"width": 390, "height": 844}


def take_picture(page: Page, name: str) -> None:
    """Store a picture of a page, where PICTURES is set: for people, since no test looks at it."""
    if os.environ.get("PICTURES"):
        page.screenshot(path=ARTIFACTS / f"{name}.png", full_page=True)


def violations(page: Page) -> list[str]:
    """Return all that axe-core finds in a page, one line for each element."""
    page.evaluate((PACKAGES / "axe-core" / "axe.min.js").read_text())
    rules = page.evaluate("axe.run().then(result => result.violations)")
    return [f"{rule['id']}: {node['html']}" for rule in rules for node in rule["nodes"]]


class Visitor:
    """A browser context of its own, and everything that went wrong in its pages."""

    def __init__(self, chromium: Browser, base_url: str, **options: Any) -> None:
        self.base_url = base_url
        self.complaints: list[str] = []
        self.foreign_requests: list[str] = []
        self.context = chromium.new_context(
            base_url=base_url, **{"viewport": DESKTOP, "permissions": ["clipboard-write"], **options}
        )
        self.context.on("page", self._watch)
        self.page = self.context.new_page()

    def _watch(self, page: Page) -> None:
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda message: message.type == "error" and self.complaints.append(message.text))  # type: ignore[call-overload]
        page.on("request", self._judge)

    def _judge(self, request: Request) -> None:
        if not request.url.startswith(self.base_url):
            self.foreign_requests.append(request.url)
