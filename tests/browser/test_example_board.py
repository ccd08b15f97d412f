"""The example's board in two browsers, and who is here."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from tests.browser.admin_pages import prepare
from tests.browser.visitor import Visitor
from tests.servers import Server

pytestmark = pytest.mark.browser

TTL_MILLISECONDS = 15_000
"""Longer than a visitor is seen after leaving, also on a busy machine."""

OF_THE_RESTART = r"net::ERR_|\b502\b|^htmx:(sendError|afterRequest|sseError)|^\[object Event\]$"
"""What Chromium and htmx report of requests that found no server."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server("uvicorn", entry_point="asgi") as server:
        yield server


@pytest.fixture
def visitors(chromium: Browser, server: Server) -> Iterator[list[Visitor]]:
    visitors = [Visitor(chromium, server.base_url) for _ in range(2)]
    for visitor in visitors:
        visitor.page.goto("/board/")
        expect(visitor.page.locator("#visitors .person", has_text="(you)")).to_have_count(1)
    visitors[0].page.bring_to_front()  # which has the keyboard, though the other one was opened last
    remove_cards(visitors[0].page)
    yield visitors
    for visitor in visitors:
        visitor.context.close()
        assert visitor.complaints == []
        assert visitor.foreign_requests == []


def forget_the_restart(visitors: list[Visitor]) -> None:
    for visitor in visitors:
        assert all(re.search(OF_THE_RESTART, text) for text in visitor.complaints), visitor.complaints
        visitor.complaints.clear()


def expect_focus(element: Locator) -> None:
    """Wait until an element has the focus of its page. Chromium may give that of the keyboard to another page."""
    for _ in range(500):
        if element.evaluate("element => document.activeElement === element"):
            return
        element.page.wait_for_timeout(20)
    raise AssertionError(f"{element} has no focus")


def remove_cards(page: Page) -> None:
    """Remove what a failed test has left."""
    cards = page.locator(".card")
    for left in range(cards.count() - 1, -1, -1):
        page.get_by_role("button", name=re.compile("^Delete")).first.click()
        expect(cards).to_have_count(left)


def add(page: Page, text: str) -> None:
    page.get_by_label("New card").fill(text)
    page.get_by_role("button", name="Add").click()


@pytest.mark.parametrize("outcome", ["arrives", "finds no server", "finds a proxy without its server"])
def test_text_that_is_typed_while_a_card_is_sent_stays(visitors: list[Visitor], outcome: str) -> None:
    page = visitors[0].page
    field = page.get_by_label("New card")
    held: list[Route] = []
    page.route("**/board/cards", lambda route: held.append(route))
    with page.expect_request("**/board/cards"):
        add(page, "Walk")
    expect(field).to_have_value("")
    field.fill("Wa")
    if outcome == "arrives":
        held[0].continue_()
        expect(page.locator(".card", has_text="Walk")).to_have_count(1)
        field.press_sequentially("it")
        page.wait_for_function("document.querySelector('.add.htmx-request') === null")
        expect(field).to_have_value("Wait")
        expect_focus(field)
        remove_cards(page)
    else:
        if outcome == "finds no server":
            held[0].abort()
        else:
            held[0].fulfill(status=502)
        expect(field).to_have_value("Walk Wa")
        forget_the_restart(visitors)


def test_a_page_reads_the_token_of_its_cookie_for_each_request(visitors: list[Visitor], server: Server) -> None:
    """A login in another tab changes the cookie, and the token of the template is worth nothing then."""
    visitor = visitors[0]
    visitor.context.add_cookies([{"name": "csrftoken", "value": "a" * 32, "url": server.base_url}])
    add(visitor.page, "After the login")
    expect(visitor.page.locator(".card p", has_text="After the login")).to_have_count(1)
    remove_cards(visitor.page)


def test_a_card_moves_in_both_browsers(visitors: list[Visitor], server: Server) -> None:
    first, second = (visitor.page for visitor in visitors)
    add(first, "Paint the <b>fence</b>")
    expect(first.get_by_label("New card")).to_have_value("")
    for page in (first, second):
        expect(page.locator("#ideas-title + ul .card p", has_text="fence")).to_have_text("Paint the <b>fence</b>")

    second.get_by_role("button", name="to Doing").last.click()
    for page in (first, second):
        expect(page.locator("#doing-title + ul .card p", has_text="fence")).to_have_count(1)
        expect(page.locator("#ideas-title + ul .card p", has_text="fence")).to_have_count(0)
    # What other code saves is seen as well.
    prepare(server, "from board.models import Card; c = Card.objects.get(); c.column = 'done'; c.save()")
    for page in (first, second):
        expect(page.locator("#done-title + ul .card p", has_text="fence")).to_have_count(1)

    first.get_by_role("button", name="Delete “Paint").click()
    for page in (first, second):
        expect(page.locator(".card")).to_have_count(0)


def test_the_keyboard_stays_where_it_was(visitors: list[Visitor]) -> None:
    first, second = (visitor.page for visitor in visitors)
    add(first, "Stay")
    button = first.get_by_role("button", name="Move “Stay” to Done")
    button.focus()
    add(second, "Another")
    expect(first.locator(".card")).to_have_count(2)
    expect_focus(button)
    for left in (1, 0):
        second.get_by_role("button", name="Delete").first.click()
        expect(second.locator(".card")).to_have_count(left)


def test_the_keyboard_follows_a_card_that_moves(visitors: list[Visitor]) -> None:
    first, second = (visitor.page for visitor in visitors)
    for text in ("Walk", "Wait"):
        add(first, text)
        expect(first.locator(".card", has_text=text)).to_have_count(1)
    first.get_by_role("button", name="Move “Walk” to Doing").focus()
    first.keyboard.press("Enter")
    expect(first.locator("#doing-title + ul .card p")).to_have_text(["Walk"])
    expect_focus(first.get_by_role("button", name="Move “Walk” to Ideas"))
    # Without the card, the one in its place has the focus, or else the form.
    for name, focused in (("Wait", "New card"), ("Walk", "New card")):
        first.get_by_role("button", name=f"Delete “{name}").focus()
        first.keyboard.press("Enter")
        expect(first.locator(".card", has_text=name)).to_have_count(0)
        expect_focus(first.get_by_label(focused))
    expect(second.locator(".card")).to_have_count(0)


def test_the_focus_goes_to_the_next_card_of_the_column(visitors: list[Visitor]) -> None:
    page = visitors[0].page
    for text in ("One", "Two"):
        add(page, text)
        expect(page.locator(".card", has_text=text)).to_have_count(1)
    page.get_by_role("button", name="Delete “One").focus()
    page.keyboard.press("Enter")
    expect_focus(page.get_by_role("button", name="Move “Two” to Doing"))
    page.get_by_role("button", name="Delete “Two").click()
    expect(page.locator(".card")).to_have_count(0)


def test_the_board_says_that_the_server_does_not_answer(visitors: list[Visitor], server: Server) -> None:
    page = visitors[0].page
    add(page, "Wait")
    move = page.get_by_role("button", name="Move “Wait” to Done")
    expect(move).to_be_enabled()
    expect(page.locator("#away")).to_be_hidden()
    server.kill()
    move.focus()
    expect(page.locator("#away")).to_contain_text("The server does not answer.", timeout=10_000)
    expect(move).to_be_disabled()
    expect_focus(move)
    page.keyboard.press("Enter")
    server.start()
    expect(page.locator("#away")).to_be_hidden(timeout=20_000)
    expect(page.locator("#ideas-title + ul .card p")).to_have_text(["Wait"])
    move.click()
    expect(page.locator("#done-title + ul .card p")).to_have_text(["Wait"])
    page.get_by_role("button", name="Delete “Wait").click()
    expect(page.locator(".card")).to_have_count(0)
    forget_the_restart(visitors)


def test_an_empty_card_is_refused_in_the_form(visitors: list[Visitor]) -> None:
    page = visitors[0].page
    add(page, "   ")
    expect(page.locator("#card-error")).to_have_text("This field is required.")
    expect(page.get_by_label("New card")).to_have_attribute("aria-invalid", "true")


def test_who_is_here_and_who_has_left(visitors: list[Visitor]) -> None:
    first, second = visitors
    for visitor in visitors:
        expect(visitor.page.locator("#visitors .person")).to_have_count(2, timeout=TTL_MILLISECONDS)
    second.page.goto("/wire/")
    expect(first.page.locator("#visitors .person")).to_have_count(1, timeout=TTL_MILLISECONDS)
    expect(first.page.locator("#visitors .person")).to_contain_text("(you)")


def test_a_board_goes_on_after_a_restart(visitors: list[Visitor], server: Server) -> None:
    first, second = (visitor.page for visitor in visitors)
    add(first, "Before")
    expect(second.locator(".card p")).to_have_text(["Before"])
    server.kill()
    server.start()
    add(first, "After")
    for page in (first, second):
        expect(page.locator(".card p")).to_have_text(["Before", "After"], timeout=20_000)
    forget_the_restart(visitors)
