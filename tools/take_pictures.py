"""Take the pictures of the example that the documentation shows: `python tools/take_pictures.py`, or `make pictures`.

It starts the real example project on an empty database, does what a visitor does in a headless Chromium, and writes
into `docs/images`. Without changes of the pages, the pictures stay nearly the same: only ids differ.
"""

import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from playwright.sync_api import Page, expect, sync_playwright  # noqa: E402

from tests.browser.conftest import CHROMIUM, CHROMIUM_ARGUMENTS  # noqa: E402
from tests.browser.example_pages import wait_for_text  # noqa: E402
from tests.servers import Server  # noqa: E402

IMAGES = ROOT / "docs" / "images"
SIZE = {"width": 1280, "height": 800}


def chat_after_a_reload(page: Page) -> None:
    """The middle of an answer, after a reload."""
    page.goto("/")
    page.get_by_role("button", name="What happens when I reload").click()
    wait_for_text(page)
    expect(page.locator("#messages .answer li").first).to_be_visible(timeout=60_000)
    page.reload()
    expect(page.locator("#hint")).to_contain_text("Reloaded, and nothing is lost.")
    page.evaluate("scrollTo(0, 0)")


PICTURES: dict[str, Callable[[Page], None]] = {"chat-reload": chat_after_a_reload}


def main() -> None:
    with Server("uvicorn", env={"TOKENS_PER_SECOND": "60"}) as server, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        for name, show in PICTURES.items():
            context = browser.new_context(base_url=server.base_url, viewport=SIZE, reduced_motion="reduce")  # type: ignore[arg-type]
            page = context.new_page()
            show(page)
            page.screenshot(path=IMAGES / f"{name}.png")
            context.close()
            print(IMAGES / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    main()
