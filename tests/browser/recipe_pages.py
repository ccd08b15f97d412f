"""The recipes: the pages of docs/browser.md, and those of tests alone. What a page of theirs shows in a browser."""

from pathlib import Path
from typing import TYPE_CHECKING

from tests.docs.pages import ROOT, blocks

if TYPE_CHECKING:
    from tests.browser.course import BrowserPage

AI_PAGE = ROOT / "docs" / "ai.md"
HERE = Path(__file__).resolve().parent
PACKAGES = HERE / "node_modules"
"""What package.json names. `make` installs it."""

SECONDS = 30
_NUMBERS = "[...document.querySelectorAll('#messages li')].map(item => Number(item.textContent))"


def recipes() -> dict[str, str]:
    """Return the recipes by the name in their first line."""
    shown = [block.text for block in blocks(ROOT / "docs" / "browser.md", "html", "html+django")]
    own = [file.read_text() for file in sorted((HERE / "recipes").glob("*.html"))]
    return {text.split()[1]: text for text in [*shown, *own]}


def numbers(page: "BrowserPage") -> list[int]:
    """Return the texts of the messages that a page shows."""
    result: list[int] = page.evaluate(_NUMBERS)
    return result


def wait_for(page: "BrowserPage", count: int) -> None:
    """Wait until a page shows so many messages."""
    # Pages in the background have no animation frames, in which the driver would look otherwise.
    page.wait_for_function(f"count => {_NUMBERS}.length >= count", arg=count, timeout=SECONDS * 1000, polling=50)
