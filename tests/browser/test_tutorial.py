"""The first two pages of the tutorial, followed as they are written, and looked at in a browser."""

from pathlib import Path
from typing import Any

import pytest

from tests.browser.visitor import Visitor, take_picture
from tests.docs.walk import Walk, environment, steps

pytestmark = pytest.mark.browser


def log_in(chromium: Any, url: str, name: str) -> Visitor:
    visitor = Visitor(chromium, url)
    visitor.context.route("**/favicon.ico", lambda route: route.fulfill(status=204))
    visitor.page.goto("/login/")
    visitor.page.locator("#id_username").fill(name)
    visitor.page.locator("#id_password").fill("tea")
    visitor.page.get_by_role("button", name="Log in").click()
    visitor.page.wait_for_url("**/")
    return visitor


def say(visitor: Visitor, text: str) -> None:
    visitor.page.get_by_label("Your message").fill(text)
    visitor.page.get_by_role("button", name="Send").click()


def shows(visitor: Visitor, *messages: str) -> None:
    """Wait until a page shows these messages, and nothing else."""
    visitor.page.wait_for_function(
        "expected => JSON.stringify([...document.querySelectorAll('#messages li')].map(item => item.textContent))"
        " === JSON.stringify(expected)",
        arg=list(messages),
        timeout=20_000,
    )


def test_the_tutorial(chromium: Any, tmp_path: Path) -> None:
    walk = Walk(tmp_path, environment())
    build_a_chat(chromium, walk)
    build_a_board(chromium, walk)


def build_a_chat(chromium: Any, walk: Walk) -> None:
    walk.prepare(steps("chat"))
    with walk.serving() as url:
        ada, grace = log_in(chromium, url, "ada"), log_in(chromium, url, "grace")
        say(ada, "<b>Tea?</b>")
        shows(grace, "ada <b>Tea?</b>")
        say(grace, "Earl Grey, please.")
        said = ["ada <b>Tea?</b>", "grace Earl Grey, please."]
        shows(ada, *said)
        grace.page.reload()
        shows(grace, *said)
        walk.consoles(steps("chat"))
        said.append("shell Tea is ready.")
        shows(ada, *said)
        assert ada.page.evaluate("getComputedStyle(document.querySelector('ol')).listStyleType") == "none"
        take_picture(ada.page, "tutorial-chat")
        assert (ada.complaints, ada.foreign_requests) == ([], [])
    # A server that stops and starts again: the page goes on, and nothing is missing or doubled.
    with walk.serving():
        grace.page.goto("/")
        say(grace, "Thank you.")
        shows(ada, *said, "grace Thank you.")
    ada.context.close()
    grace.context.close()


def build_a_board(chromium: Any, walk: Walk) -> None:
    walk.prepare(steps("board"))
    with walk.serving() as url:
        ada = log_in(chromium, url, "ada")
        ada.page.goto("/board/")
        walk.consoles(steps("board"))
        ada.page.wait_for_function(
            "document.getElementById('board').innerText.trim() === 'Earl Grey cooking'", timeout=20_000
        )
        late = log_in(chromium, url, "grace")
        late.page.goto("/board/")
        assert late.page.locator("#board").inner_text().strip() == "Earl Grey cooking"
        late.page.goto("/admin/orders/order/1/change/")
        late.page.locator("#id_state").select_option("served")
        late.page.get_by_role("button", name="Save", exact=True).click()
        ada.page.wait_for_function("document.getElementById('board').innerText.includes('served')", timeout=20_000)
        take_picture(ada.page, "tutorial-board")
        assert (ada.complaints, ada.foreign_requests) == ([], [])
        ada.context.close()
        late.context.close()
