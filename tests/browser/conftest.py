"""The browser that all these tests drive."""

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright import sync_api as playwright

CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",  # Chromium refuses to run as root otherwise, which is what containers do
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


# Not wider than the module: playwright keeps an event loop running in this thread, and Django
# refuses database access beside one.
@pytest.fixture(scope="module")
def chromium() -> Iterator[playwright.Browser]:
    if CHROMIUM is None:
        pytest.fail("no Chromium on this machine: install the package chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()
