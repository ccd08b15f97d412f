"""Somebody who visits pages in a browser, and everything that goes wrong in them."""

import os
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Browser, Page, Request, ViewportSize

from tests.browser.recipe_pages import PACKAGES

ARTIFACTS = Path(__file__).resolve().parent.parent / "artifacts"

DESKTOP: ViewportSize = {"width": 1280, "height": 900}
MOBILE: ViewportSize = {"width": 390, "height": 844}
FITS = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"


VIOLATIONS = """rules => axe.run(
    {resultTypes: ["violations"], preload: {assets: ["media"]}, ...(rules && {runOnly: rules})}
).then(result => result.violations)"""
"""Without `resultTypes`, axe-core also describes each element that passes a rule. Without `preload`, it also parses all
styles, for a rule that is not on.
"""
OF_COLOURS = ["color-contrast", "link-in-text-block"]
"""The rules of axe-core that judge colours."""

LAYOUT = """() => JSON.stringify([...document.querySelectorAll("*")].map(element => {
    const {x, y, width, height} = element.getBoundingClientRect();
    return [x, y, width, height, element.checkVisibility({visibilityProperty: true, opacityProperty: true})];
}))"""
"""Where each element is, and whether it is visible."""


SETTLED = "Promise.all(document.getAnimations().map(animation => animation.finished)).then(() => null)"
"""A colour on its way from one scheme to the other has no contrast to judge."""


def take_picture(page: Page, name: str) -> None:
    """Store a picture of a page, where PICTURES is set: for people, since no test looks at it."""
    if os.environ.get("PICTURES"):
        page.screenshot(path=ARTIFACTS / f"{name}.png", full_page=True)


def violations(page: Page, rules: list[str] | None = None) -> list[str]:
    """Return all that axe-core finds in a page, by all rules or by these. One line for each element."""
    if page.evaluate("!window.axe"):
        page.evaluate((PACKAGES / "axe-core" / "axe.min.js").read_text())
    broken_rules = page.evaluate(VIOLATIONS, rules)
    return [f"{rule['id']}: {node['html']}" for rule in broken_rules for node in rule["nodes"]]


def violations_in_schemes(page: Page) -> dict[str, list[str]]:
    """Return all that axe-core finds in a page, by the scheme.

    Where the dark scheme moves no element and hides none, it is judged by the rules of colours: others would find the
    same once more.
    """
    page.emulate_media(color_scheme="light")
    page.evaluate(SETTLED)
    result = {"light": violations(page)}
    layout = page.evaluate(LAYOUT)
    page.emulate_media(color_scheme="dark")
    page.evaluate(SETTLED)
    result["dark"] = violations(page, OF_COLOURS if page.evaluate(LAYOUT) == layout else None)
    return result


LOOKS: tuple[tuple[str, ViewportSize, Literal["light", "dark"]], ...] = (
    ("desktop-light", DESKTOP, "light"),
    ("desktop-dark", DESKTOP, "dark"),
    ("mobile-dark", MOBILE, "dark"),
    ("mobile-light", MOBILE, "light"),
)

EXAMINED = "desktop-light", "mobile-dark"


def check_looks(page: Page, name: str, *, examine: bool = False) -> None:
    """A page fits the window in both schemes, on a desktop and on a mobile device. It ends as on a mobile device.

    The page is not loaded for each of them: its layout follows the window and the scheme, and no script asks for them.

    Args:
        page: the page.
        name: the beginning of the names of its pictures.
        examine: whether axe-core has to find nothing. It tries inline styles, so the page needs `bypass_csp`.
    """
    page.wait_for_load_state()
    for look, viewport, scheme in LOOKS:
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size(viewport)
        take_picture(page, f"{name}-{look}")
        assert page.evaluate(FITS), f"{name} in {look}"
        if examine and look in EXAMINED:
            page.evaluate(SETTLED)
            assert violations(page) == [], f"{name} in {look}"


class Visitor:
    """A browser context of its own, and everything that went wrong in its pages.

    It asks for no motion: Chromium would draw the mark of a page that is live, or writes, sixty times a second.
    """

    def __init__(self, chromium: Browser, base_url: str, **options: Any) -> None:
        self.base_url = base_url
        self.complaints: list[str] = []
        self.foreign_requests: list[str] = []
        self.context = chromium.new_context(
            base_url=base_url,
            **{"viewport": DESKTOP, "permissions": ["clipboard-write"], "reduced_motion": "reduce", **options},
        )
        self.context.on("page", self._watch)
        self.page = self.context.new_page()
        self.page.bring_to_front()  # a page in the background follows no stream, and none of its elements has the focus

    def _watch(self, page: Page) -> None:
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda message: message.type == "error" and self.complaints.append(message.text))  # type: ignore[call-overload]
        page.on("request", self._judge)

    def _judge(self, request: Request) -> None:
        if not request.url.startswith(self.base_url):
            self.foreign_requests.append(request.url)
