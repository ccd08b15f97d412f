"""The first two pages of the tutorial, followed as they are written, and looked at in a browser."""

from pathlib import Path
from typing import Any

import pytest

from tests.browser.network import Network
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


def log_in_again(visitor: Visitor, name: str = "ada") -> None:
    """Log in in another tab, which changes the CSRF token. The open page has the old one."""
    old = token_of(visitor)
    other = visitor.context.new_page()
    other.goto("/login/")
    other.locator("#id_username").fill(name)
    other.locator("#id_password").fill("tea")
    other.get_by_role("button", name="Log in").click()
    other.wait_for_url("**/")
    other.close()
    assert token_of(visitor) != old


def token_of(visitor: Visitor) -> str:
    """Return the CSRF token in the visitor's cookie."""
    tokens: str = visitor.page.evaluate("document.cookie")
    return tokens


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
        ada.context.clear_cookies(name="sessionid")
        say(ada, "Still here?")
        ada.page.get_by_text("Log in again.").wait_for()
        assert ada.page.get_by_label("Your message").input_value() == "Still here?"
        log_in_again(ada)
        ada.page.get_by_role("button", name="Send").click()
        shows(grace, *said, "grace Thank you.", "ada Still here?")
    ada.context.close()
    grace.context.close()
    lose_the_place_of_the_chat(chromium, walk)


LOSE_THE_LOBBY = """
from chat.views import lobby
from django.db import transaction

with transaction.atomic():
    lobby().delete()
    lobby().append_many({"author": "ada", "text": str(number)} for number in range(60))
"""


def lose_the_place_of_the_chat(chromium: Any, walk: Walk) -> None:
    """As a restored backup does: what the page shows is not there any more. It has the last 50 messages of what is."""
    with walk.serving():
        ada = log_in(chromium, f"http://127.0.0.1:{walk.port}", "ada")
        say(ada, "This will be lost.")
        ada.page.get_by_text("This will be lost.").wait_for()
        (walk.folder / "lose.py").write_text(LOSE_THE_LOBBY)
        walk.run("python manage.py shell --verbosity 0 -c \"exec(open('lose.py').read())\"")
        shows(ada, *(f"ada {number}" for number in range(10, 60)))
        say(ada, "Go on.")
        shows(ada, *(f"ada {number}" for number in range(10, 60)), "ada Go on.")
        ada.context.close()


def build_a_board(chromium: Any, walk: Walk) -> None:
    walk.prepare(steps("board"))
    with walk.serving() as url:
        ada = log_in(chromium, url, "ada")
        ada.page.goto("/board/")
        walk.consoles(steps("board"))
        board_shows(ada.page, "Earl Grey cooking")
        late = log_in(chromium, url, "grace")
        late.page.goto("/board/")
        assert shown(late.page) == ["Earl Grey cooking"]
        late.page.goto("/admin/orders/order/1/change/")
        late.page.locator("#id_state").select_option("served")
        late.page.get_by_role("button", name="Save", exact=True).click()
        ada.page.wait_for_function("document.getElementById('board').innerText.includes('served')", timeout=20_000)
        take_picture(ada.page, "tutorial-board")
        assert (ada.complaints, ada.foreign_requests) == ([], [])
        delete_an_order(chromium, walk)
        press_a_button(chromium, walk)
        keep_the_order(chromium, walk)
        survive_a_bad_gateway(chromium, walk)
        survive_a_lost_place(chromium, walk)
        ada.context.close()
        late.context.close()


ORDERS = """[...document.querySelectorAll('#board li')].map(
    item => [...item.childNodes].filter(({tagName}) => tagName !== 'BUTTON').map(n => n.textContent).join('').trim()
)"""
"""The texts of the rows, without their buttons."""


def shown(page: Any) -> list[str]:
    orders: list[str] = page.evaluate(ORDERS)
    return orders


def board_shows(page: Any, *orders: str) -> None:
    """Wait until the board shows these orders, and nothing else."""
    page.wait_for_function(
        f"expected => JSON.stringify({ORDERS}) === JSON.stringify(expected)",
        arg=list(orders),
        timeout=40_000,
    )


def in_a_shell(walk: Walk, code: str) -> None:
    walk.run(f'python manage.py shell --verbosity 0 -c "from orders.models import Order; {code}"')


def delete_an_order(chromium: Any, walk: Walk) -> None:
    visitor = log_in(chromium, f"http://127.0.0.1:{walk.port}", "ada")
    visitor.page.goto("/board/")
    in_a_shell(walk, "Order.objects.create(text='Coffee'); Order.objects.create(text='Assam')")
    board_shows(visitor.page, "Earl Grey served", "Coffee new", "Assam new")
    in_a_shell(walk, "Order.objects.get(text='Coffee').delete()")
    board_shows(visitor.page, "Earl Grey served", "Assam new")
    in_a_shell(walk, "Order.objects.filter(text='Assam').delete()")
    board_shows(visitor.page, "Earl Grey served")
    visitor.context.close()


def press_a_button(chromium: Any, walk: Walk) -> None:
    """The rows of events are as good as those of the view: their buttons have no token, and the page has one."""
    url = f"http://127.0.0.1:{walk.port}"
    ada, grace = log_in(chromium, url, "ada"), log_in(chromium, url, "grace")
    for visitor in (ada, grace):
        visitor.page.goto("/board/")
    in_a_shell(walk, "Order.objects.create(text='Chai')")
    for visitor, state in ((ada, "cooking"), (grace, "ready"), (ada, "served"), (grace, "served")):
        with visitor.page.expect_response("**/advance/") as response:
            visitor.page.locator("#board li", has_text="Chai").get_by_role("button", name="Next state").click()
        assert response.value.status == 204
        for other in (ada, grace):
            board_shows(other.page, "Earl Grey served", f"Chai {state}")
    assert (ada.complaints, grace.complaints) == ([], [])
    log_in_again(ada)
    with ada.page.expect_response("**/advance/") as response:
        ada.page.get_by_role("button", name="Next state").first.click()
    assert response.value.status == 204
    ada.context.clear_cookies(name="csrftoken")
    ada.page.get_by_role("button", name="Next state").first.click()
    ada.page.get_by_text("The order was not changed (403).").wait_for()
    grace.context.clear_cookies(name="sessionid")
    grace.page.get_by_role("button", name="Next state").first.click()
    grace.page.get_by_text("The order was not changed (log in again).").wait_for()
    in_a_shell(walk, "Order.objects.get(text='Chai').delete()")
    ada.context.close()
    grace.context.close()


def keep_the_order(chromium: Any, walk: Walk) -> None:
    """An order whose message comes late stands where a reload shows it."""
    visitor = log_in(chromium, f"http://127.0.0.1:{walk.port}", "ada")
    visitor.page.goto("/board/")
    in_a_shell(walk, "Order.objects.create(pk=110, text='Late'); Order.objects.create(pk=109, text='Early')")
    board_shows(visitor.page, "Earl Grey served", "Early new", "Late new")
    visitor.page.reload()
    board_shows(visitor.page, "Earl Grey served", "Early new", "Late new")
    in_a_shell(walk, "Order.objects.get(pk=109).delete(); Order.objects.get(pk=110).delete()")
    board_shows(visitor.page, "Earl Grey served")
    visitor.context.close()


def survive_a_bad_gateway(chromium: Any, walk: Walk) -> None:
    """A proxy answers with 502 while the server behind it restarts. The board goes on, and has lost nothing."""
    with Network(walk.port) as network:
        visitor = log_in(chromium, network.base_url, "ada")
        visitor.page.goto("/board/")
        network.wait_until_open("/events/board", 1)
        network.refuse()
        network.cut()
        network.wait_until_refused(3)
        in_a_shell(walk, "Order.objects.create(text='Oolong')")
        network.refuse(False)
        board_shows(visitor.page, "Earl Grey served", "Oolong new")
        visitor.context.close()


def survive_a_lost_place(chromium: Any, walk: Walk) -> None:
    """A restored backup, or another stream at the path: the board begins again. Where it may not, it says so."""
    with Network(walk.port) as network:
        visitor = log_in(chromium, network.base_url, "ada")
        visitor.page.goto("/board/")
        in_a_shell(walk, "Order.objects.create(text='Darjeeling')")
        board_shows(visitor.page, "Earl Grey served", "Oolong new", "Darjeeling new")
        network.refuse()
        network.cut()
        network.wait_until_refused(1)
        walk.run("python manage.py streams delete board")
        in_a_shell(walk, "Order.objects.get(text='Oolong').delete()")
        network.refuse(False)
        board_shows(visitor.page, "Earl Grey served", "Darjeeling new")
        in_a_shell(walk, "Order.objects.get(text='Darjeeling').delete()")
        board_shows(visitor.page, "Earl Grey served")
        visitor.context.clear_cookies()
        network.cut()
        visitor.page.get_by_text("The board is not live any more (403).").wait_for(timeout=20_000)
        visitor.context.close()
