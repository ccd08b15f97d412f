"""The page without a bundler of docs/ai.md: it shows the whole chat, live and after reloads, over a killed server."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.recipe_pages import AI_PAGE
from tests.browser.visitor import Visitor, violations
from tests.docs.pages import blocks
from tests.management.commands import Shell
from tests.servers import Server

pytestmark = pytest.mark.browser

ANSWER = "I look it up." + "".join(f" word{number}" for number in range(30))
SHOWN = "[...document.querySelectorAll('#messages li')].map(item => [item.className, item.textContent])"
FAILURE = "The model is not available."
STREAM = "document.querySelector('script[type=module]').textContent.match(/follow\\(\"([^\"]+)/)[1]"
SLOW_BODIES = """
const mayGoOn = new Promise(done => window.goOn = done), {json} = Response.prototype;
Response.prototype.json = async function () { const value = await json.call(this); await mayGoOn; return value; };
"""
MAX_LINES = 120


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server("uvicorn", entry_point="asgi", env={"DJANGO_SETTINGS_MODULE": "tests.browser.ai_settings"}) as server:
        yield server


@pytest.fixture
def page(chromium: Browser, server: Server, request: pytest.FixtureRequest) -> Iterator[Page]:
    visitor = Visitor(chromium, server.base_url)
    visitor.page.goto("/login")
    visitor.page.goto(f"/chat/{request.node.name[5:40].replace('_', '-')}/")
    yield visitor.page
    visitor.context.close()


def say(page: Page, text: str) -> None:
    page.get_by_label("Your message").fill(text)
    page.get_by_role("button", name="Send").click()


def wait_for(page: Page, *expected: tuple[str, str]) -> None:
    page.wait_for_function(
        f"expected => JSON.stringify({SHOWN}) === JSON.stringify(expected)",
        arg=[list(item) for item in expected],
        timeout=30_000,
        polling=50,  # a page in the background has no animation frames, in which the driver would look otherwise
    )


def wait_for_word(page: Page, word: str) -> None:
    page.wait_for_function("word => document.getElementById('messages').textContent.includes(word)", arg=word)


def wait_for_end(page: Page) -> None:
    """Wait until no answer is being written. The server says so, because this page may not read."""
    page.evaluate(
        """async () => {
            let answer;
            do ({answer} = await (await fetch(`/api/chat/${location.pathname.split("/")[2]}/messages`)).json());
            while (answer);
        }"""
    )


def test_a_page_shows_the_chat_live_and_after_reloads(page: Page) -> None:
    assert violations(page) == []
    say(page, "<b>What?</b>")
    wait_for_word(page, "word5")
    page.reload()
    first = [("user", "<b>What?</b>"), ("assistant", ANSWER)]
    wait_for(page, *first)
    say(page, "Again?")
    wait_for(page, *first, ("user", "Again?"), ("assistant", ANSWER))
    page.reload()
    wait_for(page, *first, ("user", "Again?"), ("assistant", ANSWER))


def test_an_answer_goes_on_after_its_server_was_killed(page: Page, server: Server) -> None:
    say(page, "What?")
    wait_for_word(page, "word5")
    server.kill()
    server.start()
    wait_for(page, ("user", "What?"), ("assistant", ANSWER))


def test_an_answer_that_is_not_whole_says_so_after_reloads_too(page: Page) -> None:
    say(page, "What?")
    wait_for_word(page, "word2")
    page.get_by_role("button", name="Stop").click()
    wait_for_word(page, "Stopped.")
    say(page, "Fail.")
    wait_for_word(page, FAILURE)
    messages: list[Any] = page.evaluate(SHOWN)
    assert "word29" not in messages[1][1]
    assert messages[1][1].endswith(" Stopped.")
    assert messages[3][1] == f"{ANSWER} {FAILURE}"
    page.reload()
    wait_for(page, *map(tuple, messages))


def test_the_first_message_makes_the_chat(page: Page) -> None:
    status = f"fetch({STREAM}).then(response => response.status)"
    assert page.evaluate(status) == 404
    page.goto("/chats/")
    assert violations(page) == []
    before = page.get_by_role("listitem").count()  # those of other tests
    page.get_by_role("link", name="New chat").click()
    page.wait_for_load_state()  # a form that is sent before its script has run loads the page anew
    address = page.url
    say(page, "What?")
    wait_for(page, ("user", "What?"), ("assistant", ANSWER))
    assert page.evaluate(status) == 200
    page.goto("/chats/")
    assert page.get_by_role("listitem").count() == before + 1
    page.get_by_role("listitem").get_by_role("link").first.click()
    assert page.url == address
    wait_for(page, ("user", "What?"), ("assistant", ANSWER))


def test_a_message_that_is_not_taken_says_why(page: Page, server: Server) -> None:
    def said(text: str) -> None:
        page.wait_for_function("text => document.getElementById('state').textContent === text", arg=text)
        assert page.get_by_label("Your message").input_value() == "What?"

    page.context.clear_cookies(name="csrftoken")  # Django refuses with a page of HTML
    say(page, "What?")
    said("The server refuses (403).")
    page.goto("/login")
    page.goto("/chat/closed/")
    server.stop()
    say(page, "What?")
    said("The server does not answer.")
    server.start()
    say(page, "What?")
    wait_for(page, ("user", "What?"), ("assistant", ANSWER))
    assert page.locator("#state").inner_text() == ""


def test_a_message_does_not_hide_that_the_chat_cannot_be_read(page: Page) -> None:
    page.route("**/v1/stream/**", lambda route: route.fulfill(status=403))
    say(page, "What?")
    page.get_by_text("The chat cannot be read (403).").wait_for()
    page.reload()
    page.get_by_text("The chat cannot be read (403).").wait_for()
    wait_for_end(page)
    with page.expect_response("**/v1/stream/**"):  # the page tries again
        say(page, "Again?")
    page.get_by_text("The chat cannot be read (403).").wait_for()
    wait_for_end(page)
    page.unroute("**/v1/stream/**")
    say(page, "And now?")
    wait_for_word(page, "And now?")
    assert page.locator("#refusal").inner_text() == ""


def test_a_chat_that_is_deleted_under_an_open_page_begins_again(page: Page, server: Server) -> None:
    say(page, "What?")
    wait_for(page, ("user", "What?"), ("assistant", ANSWER))
    path = page.evaluate(STREAM).partition("/v1/stream/")[2]
    Shell(server.env).output("delete", path, "--no-input")
    page.get_by_text("The chat cannot be read (404).").wait_for()
    wait_for(page)
    say(page, "Again?")
    wait_for(page, ("user", "Again?"), ("assistant", ANSWER))
    assert page.locator("#refusal").inner_text() == ""


def test_another_tab_of_a_new_chat_learns_of_the_first_message(page: Page) -> None:
    other = page.context.new_page()
    other.goto(page.url)
    page.bring_to_front()
    say(page, "What?")
    wait_for_word(page, "word2")
    other.bring_to_front()
    other.evaluate("dispatchEvent(new Event('focus'))")  # Chromium without a window gives every page the focus at once
    wait_for(other, ("user", "What?"), ("assistant", ANSWER))
    other.evaluate("dispatchEvent(new Event('focus'))")
    say(other, "Again?")
    wait_for(other, ("user", "What?"), ("assistant", ANSWER), ("user", "Again?"), ("assistant", ANSWER))


def test_a_message_that_is_sent_before_the_chat_is_shown_comes_once(page: Page) -> None:
    say(page, "What?")
    wait_for(page, ("user", "What?"), ("assistant", ANSWER))
    page.add_init_script(SLOW_BODIES)
    page.reload()
    with page.expect_response("**/api/chat"):
        say(page, "Again?")
    wait_for_word(page, "word2")
    page.evaluate("goOn()")
    wait_for(page, ("user", "What?"), ("assistant", ANSWER), ("user", "Again?"), ("assistant", ANSWER))


def test_a_chat_of_another_user_says_that_it_cannot_be_read(page: Page) -> None:
    page.route("**/messages", lambda route: route.fulfill(status=403, json={"error": "Permission denied."}))
    page.reload()
    page.get_by_text("The chat cannot be read (403).").wait_for()


def test_a_message_that_is_taken_back_leaves_the_page(page: Page) -> None:
    say(page, "One")
    wait_for(page, ("user", "One"), ("assistant", ANSWER))
    rewound = """async () => {
        const id = location.pathname.split("/")[2];
        let messages, answer;
        do ({messages, answer} = await (await fetch(`/api/chat/${id}/messages`)).json()); while (answer);
        const token = document.querySelector("[name=csrfmiddlewaretoken]").value;
        const body = {id, trigger: "regenerate-message", messages: messages.slice(0, 1)};
        const headers = {"Content-Type": "application/json", "X-CSRFToken": token};
        const response = await fetch("/api/chat", {method: "POST", headers, body: JSON.stringify(body)});
        await response.body.cancel();
        return response.status;
    }"""
    assert page.evaluate(rewound) == 200
    page.wait_for_function("!document.getElementById('messages').textContent.includes('word29')")
    wait_for(page, ("user", "One"), ("assistant", ANSWER))


def test_users_may_only_read_the_stream_itself(page: Page) -> None:
    say(page, "What?")
    wait_for(page, ("user", "What?"), ("assistant", ANSWER))
    url = page.evaluate(STREAM)
    status = "url => fetch(url, {method: 'POST', body: '{}', headers: {'Content-Type': 'application/json'}})"
    assert page.evaluate(f"({status})('{url}').then(response => response.status)") == 403
    assert page.evaluate(f"fetch('{url}').then(response => response.status)") == 200


def test_the_page_is_short() -> None:
    template = next(block for block in blocks(AI_PAGE, "html+django") if "shop/chat.html" in block.text)
    assert len(template.text.splitlines()) <= MAX_LINES
