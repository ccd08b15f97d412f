"""The example's chat in a real browser: an answer outlives the page, and the process that writes it."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.example_pages import (
    ANSWER_MILLISECONDS,
    Begin,
    answers,
    ask,
    only_lost_connections,
    stored_text,
    wait_for_end,
    wait_for_text,
)
from tests.browser.visitor import MOBILE
from tests.management.commands import Shell
from tests.servers import Server

pytestmark = pytest.mark.browser

READY_MADE = "What happens when I reload in the middle of this answer?"
# As long as a test needs to act in the middle of an answer, and not longer.
ENVIRONMENT = {"TOKENS_PER_SECOND": "80"}


def test_one_click_and_a_reload_show_what_it_is_about(visit_example: Begin, example_server: Server) -> None:
    page = visit_example("/", reduced_motion="no-preference").page
    page.get_by_role("button", name=READY_MADE).click()
    expect(page.locator("#hint")).to_contain_text("Now reload this page.")
    expect(page).to_have_url(re.compile(r"/c/[0-9a-f]{24}/$"))
    page.locator("#reload").click()

    expect(page.locator("#hint")).to_contain_text("Reloaded, and nothing is lost.")
    expect(answers(page)).to_contain_text("This answer survives it")
    wait_for_end(page)
    expect(page.locator("#hint")).to_be_hidden()
    expect(answers(page).locator("p").last).to_have_text(re.compile(r"the place where the answer lives\.$"))
    # The page shows each part once, as the stream has it once.
    stored = stored_text(example_server, page)
    shown = answers(page).inner_text()
    for text in (stored, shown):
        assert text.count("So try it while I write.") == text.count("This answer survives it") == 1


def test_a_second_device_shows_the_same(visit_example: Begin) -> None:
    first = visit_example("/").page
    ask(first, "How does resume work?")
    wait_for_text(first)
    second = visit_example(first.url).page
    expect(second.locator("#hint")).to_contain_text("This page came late, and missed nothing.")
    for page in (first, second):
        wait_for_end(page)
    assert first.locator("#messages").inner_text() == second.locator("#messages").inner_text()


def test_an_answer_is_stopped_from_another_page_and_asked_for_again(visit_example: Begin) -> None:
    first = visit_example("/").page
    ask(first, "What is it good for?")
    wait_for_text(first)
    second = visit_example(first.url).page
    second.get_by_role("button", name="Stop").click()
    for page in (first, second):
        wait_for_end(page, "stopped")
    first.get_by_role("button", name="Answer again").click()
    for page in (first, second):
        wait_for_end(page)
        expect(answers(page)).to_have_count(1)


def test_a_chat_that_is_deleted_under_an_open_page_begins_again(visit_example: Begin, example_server: Server) -> None:
    visitor = visit_example("/")
    page = visitor.page
    ask(page, "What is it good for?")
    wait_for_end(page)
    stream = page.locator("body").get_attribute("data-stream") or ""
    Shell(example_server.env).output("delete", stream, "--no-input")
    expect(page.locator("#problem")).to_contain_text("the server refuses with 404")
    expect(answers(page)).to_have_count(0)
    ask(page, "How does resume work?")
    wait_for_end(page)
    expect(answers(page)).to_have_count(1)
    expect(page.locator("#problem")).to_be_hidden()
    shown = page.locator("#messages").inner_text()
    page.reload()
    wait_for_end(page)
    assert page.locator("#messages").inner_text() == shown
    assert all("404" in complaint for complaint in visitor.complaints)
    visitor.complaints.clear()


def test_an_edited_message_begins_a_branch(visit_example: Begin, example_server: Server) -> None:
    page = visit_example("/").page
    ask(page, "What about branches?")
    wait_for_end(page)
    ask(page, "Show me the code")
    expect(answers(page)).to_have_count(2)
    before = page.url
    page.get_by_role("button", name="Edit this message in a branch").last.click()
    field = page.get_by_label("New version of the message")
    expect(field).to_be_focused()
    field.fill("How does resume work?")
    page.get_by_role("button", name="Ask in a branch").click()
    expect(page).not_to_have_url(before)
    expect(page.locator("#messages .user .bubble p")).to_have_text(["What about branches?", "How does resume work?"])
    wait_for_end(page)
    expect(answers(page)).to_have_count(2)

    expect(page.locator("#source")).to_contain_text("branched from")
    expect(page.locator("#chats a")).to_have_text(["How does resume work?", "Show me the code"])
    page.locator("#source-link").click()
    expect(page).to_have_url(before)
    expect(page.locator("#source")).to_be_hidden()
    expect(page.locator("#messages .user .bubble p")).to_have_text(["What about branches?", "Show me the code"])
    wait_for_end(page)
    expect(answers(page).last.locator("pre")).to_have_count(3)


def test_who_makes_a_branch_has_not_come_late(visit_example: Begin) -> None:
    page = visit_example("/").page
    ask(page, "Hello")
    wait_for_text(page)
    page.get_by_role("button", name="Edit this message in a branch").click()
    page.get_by_label("New version of the message").fill("Which reload?")
    page.get_by_role("button", name="Ask in a branch").click()
    expect(page.locator("#source")).to_be_visible()
    expect(page.locator("#hint")).to_contain_text("Now reload this page.")
    page.reload()
    expect(page.locator("#hint")).to_contain_text("Reloaded, and nothing is lost.")


def test_a_visitor_finds_the_own_chats_and_begins_another(visit_example: Begin) -> None:
    page = visit_example("/").page
    expect(page.locator("#your-chats")).to_be_hidden()
    ask(page, "Hello")
    wait_for_end(page)
    first = page.url
    page.get_by_role("link", name="New chat").click()
    expect(page.locator("#messages .user")).to_have_count(0)
    page.locator("#chats").get_by_role("link", name="Hello").click()
    expect(page).to_have_url(first)
    expect(answers(page)).to_contain_text("You wrote: “Hello”")
    # What another page of this site has stored is no harm.
    page.evaluate("""localStorage.setItem("durable-streams-example:chats", '[null, {"url": "javascript:alert(1)"}]')""")
    page.goto("/")
    expect(page.locator("#chats a")).to_have_count(0)


def test_a_wrong_link_is_told(visit_example: Begin) -> None:
    visitor = visit_example()
    page = visitor.page
    response = page.goto("/c/none/")
    assert response is not None
    assert response.status == 404
    expect(page.locator("h1")).to_have_text("This chat does not exist.")
    page.get_by_role("link", name="Begin a new chat").click()
    expect(page.get_by_role("button", name=READY_MADE)).to_be_visible()
    assert all("404" in complaint for complaint in visitor.complaints)
    visitor.complaints.clear()


def test_a_phone_follows_the_answer_and_opens_a_chat_at_its_end(visit_example: Begin) -> None:
    page = visit_example("/", viewport=MOBILE).page
    ask(page, "What happens when I reload?")
    wait_for_end(page)
    assert end_of_talk(page) <= 1
    page.get_by_role("button", name="Send").wait_for()
    page.goto(page.url)
    wait_for_end(page)
    expect(answers(page)).to_contain_text("never the place where the answer lives")
    page.wait_for_function(f"{BELOW_WINDOW} <= 1")
    # Who has scrolled back stays there.
    page.evaluate("scrollTo(0, 0)")
    ask_without_scrolling(page, "Hello")
    expect(answers(page)).to_have_count(2)
    wait_for_end(page)
    assert page.evaluate("scrollY") < 200


def ask_without_scrolling(page: Page, question: str) -> None:
    page.evaluate(
        "question => { document.getElementById('text').value = question;"
        " document.getElementById('composer').requestSubmit(); }",
        question,
    )


BELOW_WINDOW = "document.querySelector('.talk').getBoundingClientRect().bottom - innerHeight"


def end_of_talk(page: Page) -> float:
    """How far the end of the talk is below the window, in pixels."""
    return float(page.evaluate(BELOW_WINDOW))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("It is **bo", "<p>It is <strong>bo</strong></p>"),
        ("It is **bold*", "<p>It is <strong>bold</strong></p>"),
        ("It is **", "<p>It is </p>"),
        ("It is *", "<p>It is </p>"),
        ("See `co", "<p>See <code>co</code></p>"),
        ("**One** and **tw", "<p><strong>One</strong> and <strong>tw</strong></p>"),
        ("- **A", "<ul><li><strong>A</strong></li></ul>"),
        ("```\na ** b", '<pre tabindex="0"><code>a ** b</code></pre>'),
        ("2 * 3", "<p>2 * 3</p>"),
    ],
)
def test_a_mark_that_is_open_is_not_shown_while_an_answer_grows(visit_example: Begin, text: str, shown: str) -> None:
    page = visit_example("/").page
    html = page.evaluate(
        "text => import('/static/chat/markdown.js').then(({markdown}) =>"
        " markdown(text, true).map((made) => made.outerHTML).join(''))",
        text,
    )
    assert html == shown


def test_the_first_message_can_be_edited(visit_example: Begin) -> None:
    page = visit_example("/").page
    ask(page, "Hello")
    wait_for_text(page)
    page.get_by_role("button", name="Edit this message in a branch").click()
    page.get_by_label("New version of the message").press("Escape")
    page.get_by_role("button", name="Edit this message in a branch").click()
    page.get_by_label("New version of the message").fill("Good evening")
    page.get_by_label("New version of the message").press("Enter")
    expect(answers(page)).to_contain_text("You wrote: “Good evening”")
    expect(page.locator("#messages .user")).to_have_count(1)


def test_an_answer_outlives_a_killed_server(visit_example: Begin, example_server: Server) -> None:
    visitor = visit_example("/")
    page = visitor.page
    page.get_by_role("button", name="And if the server is killed?").click()
    wait_for_text(page)
    example_server.kill()
    expect(page.locator("#hint")).to_contain_text("The server does not answer.")
    example_server.start()
    wait_for_end(page)
    expect(page.locator("#hint")).to_be_hidden()
    expect(answers(page).locator(".note")).to_contain_text("Another one went on from there.")
    only_lost_connections(visitor)
    stored = stored_text(example_server, page)
    assert stored.startswith("Try it: kill the server")
    assert stored.endswith("because it never had anything to lose.")
    assert stored.count("The process that writes an answer holds") == 1


def test_a_message_that_the_server_does_not_get_stays_in_the_form(visit_example: Begin, example_server: Server) -> None:
    visitor = visit_example("/")
    page = visitor.page
    example_server.stop()
    ask(page, "Are you there?")
    expect(page.locator("#problem")).to_have_text("The server does not answer.")
    expect(page.get_by_label("Message", exact=True)).to_have_value("Are you there?")
    example_server.start()
    page.get_by_role("button", name="Send").click()
    expect(answers(page)).to_contain_text("You wrote", timeout=ANSWER_MILLISECONDS)
    expect(page.locator("#problem")).to_be_hidden()
    only_lost_connections(visitor)


def test_a_screen_reader_hears_the_beginning_and_the_end_only(visit_example: Begin) -> None:
    page = visit_example("/").page
    page.evaluate(
        "window.heard = []; new MutationObserver(() => heard.push(document.getElementById('news').textContent))"
        ".observe(document.getElementById('news'), {childList: true})"
    )
    ask(page, "What is it good for?")
    wait_for_end(page)
    assert page.evaluate("heard") == ["An answer begins.", "The answer is complete."]
    assert page.locator("#messages").get_attribute("aria-live") is None


def test_markup_in_messages_and_answers_is_text(visit_example: Begin) -> None:
    page = visit_example("/").page
    ask(page, "<img src=x onerror=alert(1)> **bold** `it`")
    wait_for_end(page)
    assert page.locator("#messages img").count() == 0
    expect(page.locator("#messages .user p")).to_have_text("<img src=x onerror=alert(1)> **bold** `it`")
    expect(answers(page)).to_contain_text("<img src=x onerror=alert(1)>")
