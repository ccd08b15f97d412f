"""The wire page in a real browser: what a visitor does and sees, against a real server."""

import json
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.visitor import MOBILE, Visitor, check_looks, take_picture
from tests.servers import Server

pytestmark = pytest.mark.browser

Visit = Callable[..., Visitor]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server("uvicorn", entry_point="asgi") as server:
        yield server


@pytest.fixture
def visit(chromium: Browser, server: Server) -> Iterator[Callable[..., Visitor]]:
    visitors: list[Visitor] = []

    def begin(**options: Any) -> Visitor:
        visitors.append(Visitor(chromium, server.base_url, **options))
        visitors[-1].page.goto("/wire/")
        return visitors[-1]

    yield begin
    for visitor in visitors:
        visitor.context.close()
        assert visitor.complaints == []
        assert visitor.foreign_requests == []


def create(page: Page, content_type: str = "text/plain") -> str:
    """Creates the suggested stream, waits until it is live, and returns its URL."""
    page.locator("#content-type").select_option(content_type)
    page.locator("#create").click()
    expect(page.locator("#create-result")).to_contain_text("201 Created")
    expect(page.locator("#connection")).to_have_text("Live")
    return stream_url(page)


def stream_url(page: Page) -> str:
    origin, path = page.url.split("/wire/#")
    return f"{origin}/v1/stream/{path}"


def append(page: Page, text: str) -> None:
    page.locator("#append-text").fill(text)
    page.locator("#append").click()


def http(method: str, url: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, body, named, method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.status, answer.read()


def test_a_stream_is_followed_live_and_read_again_after_a_reload(visit: Visit) -> None:
    page = visit(reduced_motion="no-preference").page
    url = create(page)
    output = page.locator("#output")

    append(page, "written in the page")
    expect(output).to_have_text("written in the page\n", use_inner_text=True)
    expect(page.locator("#append-result")).to_contain_text("Stored")

    http("POST", url, b"written elsewhere\n", Content_Type="text/plain")
    expect(output).to_contain_text("written elsewhere")

    page.reload()
    expect(page.locator("#connection")).to_have_text("Live")
    expect(output).to_have_text("written in the page\nwritten elsewhere\n", use_inner_text=True)
    expect(page.locator("#stream-state")).to_have_text("open")

    page.locator("#close").click()
    expect(page.locator("#stream-state")).to_have_text("closed")
    expect(page.locator("#connection")).to_have_text("At the end")
    expect(page.locator("#append")).to_be_disabled()

    page.reload()
    expect(page.locator("#connection")).to_have_text("At the end")
    expect(output).to_contain_text("written elsewhere")


def test_the_offset_shown_is_the_tail(visit: Visit) -> None:
    page = visit().page
    url = create(page)
    append(page, "one")
    expect(page.locator("#output")).to_contain_text("one")
    with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=10) as answer:
        expect(page.locator("#offset")).to_have_text(answer.headers["Stream-Next-Offset"])


def test_two_tabs_share_a_stream(visit: Visit) -> None:
    visitor = visit()
    first = visitor.page
    create(first)
    append(first, "from the first tab")
    expect(first.locator("#output")).to_contain_text("from the first tab")

    with visitor.context.expect_page() as opened:
        first.locator("#second-tab").click()
    second = opened.value
    expect(second.locator("#output")).to_contain_text("from the first tab")
    append(second, "from the second tab")
    expect(first.locator("#output")).to_contain_text("from the second tab")


def test_a_paused_reader_goes_on_from_its_offset(visit: Visit) -> None:
    page = visit().page
    url = create(page)
    append(page, "before")
    expect(page.locator("#output")).to_contain_text("before")

    page.locator("#pause").click()
    expect(page.locator("#connection")).to_have_text("Paused")
    http("POST", url, b"meanwhile\n", Content_Type="text/plain")
    page.locator("#pause").click()
    expect(page.locator("#output")).to_have_text("before\nmeanwhile\n", use_inner_text=True)


def test_a_reader_outlives_the_server(visit: Visit, server: Server) -> None:
    visitor = visit()
    page = visitor.page
    url = create(page)
    append(page, "before")
    expect(page.locator("#output")).to_contain_text("before")

    server.stop()
    expect(page.locator("#connection")).to_have_text("Reconnecting")
    server.start()
    http("POST", url, b"after\n", Content_Type="text/plain")
    expect(page.locator("#connection")).to_have_text("Live", timeout=20_000)
    expect(page.locator("#output")).to_have_text("before\nafter\n", use_inner_text=True)
    # Chromium itself reports the connections that the stopped server refused.
    assert all("net::ERR_" in complaint for complaint in visitor.complaints)
    visitor.complaints.clear()


def test_a_stream_that_someone_else_deletes_is_let_go(visit: Visit) -> None:
    visitor = visit()
    page = visitor.page
    url = create(page)
    append(page, "the last words")
    expect(page.locator("#output")).to_contain_text("the last words")
    http("DELETE", url)
    expect(page.locator("#connection")).to_have_text("No such stream")
    expect(page.locator("#append")).to_be_disabled()
    # What was read stays to be read; Chromium itself reports the 404 of the next request.
    expect(page.locator("#output")).to_contain_text("the last words")
    assert all("404" in complaint for complaint in visitor.complaints)
    visitor.complaints.clear()


def test_the_log_shows_its_newest_line(visit: Visit) -> None:
    page = visit().page
    create(page)
    for number in range(6):
        append(page, f"line {number}")
        expect(page.locator("#output")).to_contain_text(f"line {number}")
    below = "log => log.scrollHeight - log.scrollTop - log.clientHeight"
    log = page.locator("#log")
    assert log.evaluate("log => log.scrollHeight > 2 * log.clientHeight")
    assert log.evaluate(below) <= 1
    log.evaluate("log => log.scrollTop = 0")
    append(page, "the last line")
    expect(log).to_contain_text("the last line")
    assert log.evaluate("log => log.scrollTop") == 0


def test_an_address_without_a_stream_is_told_until_the_next_stream(visit: Visit) -> None:
    visitor = visit()
    page = visitor.page
    path = create(page).partition("/v1/stream/")[2]
    page.evaluate("location.hash = 'demo/never-there'")
    expect(page.locator("#create-result")).to_contain_text("There is no stream at this path.")
    page.evaluate("path => location.hash = path", path)
    expect(page.locator("#connection")).to_have_text("Live")
    expect(page.locator("#create-result")).to_be_hidden()
    assert all("404" in complaint for complaint in visitor.complaints)
    visitor.complaints.clear()


@pytest.mark.parametrize("path", ["chats/c1", "board/cards"])
def test_a_stream_of_another_page_is_only_read(visit: Visit, path: str) -> None:
    page = visit().page
    url = f"{page.url.partition('/wire/')[0]}/v1/stream/{path}"
    http("PUT", url, Content_Type="application/json")
    page.evaluate("path => location.hash = path", path)
    expect(page.locator("#connection")).to_have_text("Live")
    expect(page.locator("#needed")).to_be_visible()
    for button in ("append", "simulate", "close", "delete"):
        expect(page.locator(f"#{button}")).to_be_disabled()
    create_path = "demo/own"
    page.locator("#stream-path").fill(create_path)
    page.locator("#create").click()
    expect(page.locator("#append")).to_be_enabled()
    expect(page.locator("#needed")).to_be_hidden()


def test_after_create_a_phone_shows_the_live_tail_next(visit: Visit) -> None:
    page = visit(viewport=MOBILE).page
    create(page)
    gap = page.evaluate(
        "document.getElementById('live').getBoundingClientRect().top"
        " - document.querySelector('.card.create').getBoundingClientRect().bottom"
    )
    assert 0 <= gap < 40


def test_json_messages_are_shown_one_by_one(visit: Visit) -> None:
    page = visit().page
    url = create(page, "application/json")
    append(page, '[{"n": 1}, {"n": 2}]')
    expect(page.locator("#output .message")).to_have_text(['{"n":1}', '{"n":2}'])
    assert json.loads(http("GET", f"{url}?offset=-1")[1]) == [{"n": 1}, {"n": 2}]


def test_what_the_server_refuses_is_shown_in_its_words(visit: Visit) -> None:
    visitor = visit()
    page = visitor.page
    create(page, "application/json")
    page.locator("#append-text").fill('{"unfinished": ')
    expect(page.locator("#append-hint")).to_be_visible()
    with page.expect_response(lambda response: response.request.method == "POST") as refused:
        page.locator("#append").click()
    problem = refused.value.json()
    notice = page.locator("#append-result")
    expect(notice).to_contain_text(f"400 {problem['title']}")
    expect(notice).to_contain_text(problem["detail"])
    expect(notice).to_have_attribute("data-kind", "error")
    take_picture(page, "demo-refused")
    # Chromium itself reports any 4xx in the console.
    assert len(visitor.complaints) == 1
    assert "400" in visitor.complaints.pop()


def test_an_answer_that_a_reload_interrupts_is_stored_exactly_once(visit: Visit) -> None:
    page = visit().page
    url = create(page)
    page.locator("#simulate").click()
    expect(page.locator("#output")).to_contain_text("one token at a time")
    page.reload()
    # The beginning is read back, and the rest follows.
    expect(page.locator("#output")).to_contain_text("A durable stream keeps")
    progress = page.locator("#answer-progress")
    expect(progress).to_contain_text("stored, each exactly once", timeout=60_000)
    expect(page.locator("#output")).to_contain_text("reads the same words.")

    tokens = int(re.search(r"\d+", progress.inner_text()).group())  # type: ignore[union-attr]
    stored = http("GET", f"{url}?offset=-1")[1].decode()
    assert len(stored.split()) == tokens
    assert stored.count("A durable stream keeps every token") == 1
    assert stored.endswith("reads the same words.\n")
    assert page.locator("#output").inner_text() == stored


def test_a_deleted_stream_is_let_go(visit: Visit) -> None:
    page = visit().page
    url = create(page)
    page.locator("#simulate").click()
    page.locator("#simulate").click()
    expect(page.locator("#answer-progress")).to_contain_text("Stopped")
    page.locator("#delete").click()
    expect(page.locator("#finish-result")).to_contain_text("Deleted")
    expect(page.locator("#answer-progress")).to_have_text("Not started")
    expect(page.locator("#append")).to_be_disabled()
    expect(page).to_have_url(re.compile(r"/wire/$"))
    with pytest.raises(urllib.error.HTTPError, match="404"):
        http("GET", url)


def test_the_curl_lines_do_what_the_buttons_do(visit: Visit) -> None:
    page = visit().page
    create(page)

    def run(name: str, *options: str) -> str:
        line = page.locator(f"#curl-{name}").inner_text()
        quiet = line.replace("curl ", f"curl -sS --max-time 5 {' '.join(options)} ", 1)
        return subprocess.run(["bash", "-c", quiet], check=True, capture_output=True, text=True).stdout

    page.locator("#append-text").fill("it's from a terminal")
    run("append", "--fail")
    expect(page.locator("#output")).to_have_text("it's from a terminal\n", use_inner_text=True)
    assert "it's from a terminal" in run("read", "--fail")
    assert "200" in run("head").splitlines()[0]

    run("answer", "--fail")
    run("answer", "--fail")
    # The second one is the first one's retry.
    expect(page.locator("#output")).to_have_text("it's from a terminal\nA ", use_inner_text=True)

    run("close", "--fail")
    expect(page.locator("#stream-state")).to_have_text("closed")
    assert '"streamClosed":true' in run("sse", "--fail").replace(" ", "")
    assert "204" in run("long-poll").splitlines()[0]
    assert "204" in run("delete").splitlines()[0]


@pytest.mark.parametrize("text", ["@/etc/hostname", "-x", "it's $(id) `id` \\n %41", "; exit 1 #", '"<b>&'])
def test_a_curl_line_sends_any_text_as_it_is(visit: Visit, text: str) -> None:
    page = visit().page
    url = create(page)
    page.locator("#append-text").fill(text)
    page.locator("#append-newline").uncheck()
    line = page.locator("#curl-append").inner_text()
    subprocess.run(["bash", "-c", line], check=True, capture_output=True)
    assert http("GET", f"{url}?offset=-1")[1].decode() == text


def test_a_curl_line_can_be_copied(visit: Visit) -> None:
    page = visit(permissions=["clipboard-read", "clipboard-write"]).page
    create(page)
    button = page.get_by_role("button", name="Copy the curl command: append", exact=True)
    button.click()
    expect(button).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#curl-append").inner_text()


def test_it_fits_the_window_in_both_schemes(visit: Visit) -> None:
    page = visit(viewport=MOBILE).page
    check_looks(page, "demo-first-visit")
    create(page)
    append(page, "Hello, stream")
    page.locator("#simulate").click()
    expect(page.locator("#output")).to_contain_text("numbered by its producer")
    check_looks(page, "demo")
    page.locator("#simulate").click()
    expect(page.locator("#answer-progress")).to_contain_text("Stopped")
    page.locator("#close").click()
    expect(page.locator("#stream-state")).to_have_text("closed")
    check_looks(page, "demo-closed")
