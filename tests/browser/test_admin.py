"""Streams in the admin, in a real browser against a real server: what a person does and sees there."""

import re
import sys
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.browser.admin_pages import LIST, USERS, Visit, create, open_stream, prepare
from tests.browser.visitor import DESKTOP, FITS, MOBILE, check_looks, take_picture, violations
from tests.servers import ROOT, Server

pytestmark = pytest.mark.browser

ENVIRONMENT = {
    "PERMISSION": "django_durable_streams.permissions.SignedURLs,django_durable_streams.permissions.AllowAll"
}

MakeStream = Callable[..., Callable[..., None]]


class WsgiServer(Server):
    """The example project under WSGI."""

    def _command(self) -> list[str]:
        return [sys.executable, str(ROOT / "tests" / "entry_points" / "wsgi_server.py"), str(self.port)]


@pytest.fixture
def stream(server: Server) -> Callable[..., Callable[..., None]]:
    return lambda path, content_type="text/plain", *messages, **headers: create(
        server, path, content_type, *messages, **headers
    )


def test_streams_are_found_in_the_list(visit: Visit, stream: MakeStream) -> None:
    stream("find/open", "application/json", '{"a": 1}')
    stream("find/closed", "text/plain", "x", Stream_Closed="false")("POST", "end", Stream_Closed="true")
    stream("find/short", Stream_TTL="1800")
    stream("elsewhere")
    page = visit().page
    page.locator("#searchbar").fill("find/")
    page.get_by_role("button", name="Search").click()
    rows = page.locator("#result_list tbody tr")
    expect(rows).to_have_count(3)
    page.locator("#changelist-filter").get_by_role("link", name="Closed", exact=True).click()
    expect(rows).to_have_count(1)
    expect(rows.locator(".ds-badge")).to_have_text("Closed")
    page.locator("#changelist-filter").get_by_role("link", name="Expired", exact=True).click()
    expect(page.get_by_text("No stream matches.")).to_be_visible()


def test_what_is_appended_elsewhere_appears_in_the_page(visit: Visit, stream: MakeStream) -> None:
    send = stream("live/chat", "application/json", '{"role": "user", "text": "hello"}')
    page = visit().page
    open_stream(page, "live/chat")
    messages = page.locator("#ds-messages .ds-body")
    expect(messages).to_have_count(1)
    expect(page.locator("#ds-live-text")).to_contain_text("Live")

    send("POST", '{"role": "assistant", "text": "good <b>morning</b>"}')
    expect(messages.nth(1)).to_contain_text('"good <b>morning</b>"', timeout=2_000)

    page.locator("#ds-live-button").click()
    expect(page.locator("#ds-live-text")).to_contain_text("Paused")
    send("POST", '{"while": "paused"}')
    page.locator("#ds-live-button").click()
    expect(messages.nth(2)).to_contain_text('"paused"', timeout=2_000)

    send("POST", '{"the": "end"}', Stream_Closed="true")
    expect(messages.nth(3)).to_contain_text("end")
    expect(page.locator("#ds-live-text")).to_contain_text("The stream was closed")
    expect(page.locator("#ds-state")).to_have_text("Closed")
    expect(page.locator("#ds-live-button")).to_be_hidden()


def test_under_wsgi_the_page_asks_again_and_again(visit: Visit) -> None:
    with WsgiServer(entry_point="urls") as server:
        prepare(server, USERS)
        send = create(server, "live/wsgi", "text/plain", "one")
        page = visit(server=server).page
        open_stream(page, "live/wsgi")
        expect(page.locator("#ds-live-text")).to_contain_text("Live")
        send("POST", "two")
        expect(page.locator("#ds-messages .ds-body")).to_have_text(["one", "two"], timeout=5_000)
        send("POST", "three", Stream_Closed="true")
        expect(page.locator("#ds-live-text")).to_contain_text("The stream was closed", timeout=5_000)
        expect(page.locator("#ds-messages .ds-body")).to_have_count(3)


def test_a_lost_connection_is_said_and_mended(visit: Visit, stream: MakeStream, server: Server) -> None:
    send = stream("live/lost", "text/plain", "before")
    visitor = visit()
    page = visitor.page
    open_stream(page, "live/lost")
    expect(page.locator("#ds-live-text")).to_contain_text("Live")
    server.stop()
    expect(page.locator("#ds-live-text")).to_contain_text("The connection was lost")
    take_picture(page, "admin-lost")
    server.start()
    send("POST", "after")
    expect(page.locator("#ds-messages .ds-body").nth(1)).to_have_text("after", timeout=20_000)
    expect(page.locator("#ds-live-text")).to_contain_text("Live")
    # Chromium itself reports the connections that the stopped server refused.
    assert all("net::ERR_" in complaint for complaint in visitor.complaints)
    visitor.complaints.clear()


def test_a_hidden_tab_pauses(visit: Visit, stream: MakeStream) -> None:
    send = stream("live/hidden", "text/plain", "one")
    page = visit().page
    open_stream(page, "live/hidden")
    expect(page.locator("#ds-live-text")).to_contain_text("Live")
    # What a browser does when another tab comes to the front, which a headless one does not.
    page.evaluate(
        "Object.defineProperty(document, 'hidden', {value: true, configurable: true});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    expect(page.locator("#ds-live-text")).to_contain_text("hidden")
    send("POST", "two")
    page.evaluate(
        "Object.defineProperty(document, 'hidden', {value: false});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    expect(page.locator("#ds-messages .ds-body")).to_have_text(["one", "two"])


def test_a_stream_that_someone_else_deletes_is_let_go(visit: Visit, stream: MakeStream) -> None:
    send = stream("live/deleted", "text/plain", "one")
    visitor = visit()
    open_stream(visitor.page, "live/deleted")
    expect(visitor.page.locator("#ds-live-text")).to_contain_text("Live")
    send("DELETE")
    expect(visitor.page.locator("#ds-live-text")).to_contain_text("was deleted")
    # Chromium itself reports the 404 of the next request.
    assert all("404" in complaint for complaint in visitor.complaints)
    visitor.complaints.clear()


def test_a_person_creates_appends_forks_closes_and_deletes(visit: Visit) -> None:
    page = visit().page
    page.get_by_role("link", name="Add stream").click()
    page.locator("#id_path").fill("made/here")
    page.locator("#id_text").fill('{"unfinished": ')
    page.get_by_role("button", name="Create").click()
    expect(page.locator(".errorlist")).to_contain_text("not valid JSON")
    take_picture(page, "admin-add-error")
    page.locator("#id_text").fill('[{"n": 1}, {"n": 2}]')
    page.get_by_role("button", name="Create").click()
    expect(page.locator(".messagelist")).to_contain_text("was added successfully")
    page.locator("#result_list").get_by_role("link", name="made/here").click()

    messages = page.locator("#ds-messages .ds-body")
    expect(messages).to_have_text(['{"n": 1}', '{"n": 2}'])
    page.locator("#id_text").fill("{")
    page.get_by_role("button", name="Append").click()
    expect(page.locator(".errorlist")).to_contain_text("not valid JSON")
    page.locator("#id_text").fill('{"n": 3}')
    page.get_by_role("button", name="Append").click()
    expect(messages).to_have_text(['{"n": 1}', '{"n": 2}', '{"n": 3}'])

    page.locator(".ds-message").nth(1).get_by_role("link", name="Fork here").click()
    page.locator("#id_path").fill("made/fork")
    take_picture(page, "admin-fork")
    page.get_by_role("button", name="Fork").click()
    expect(messages).to_have_text(['{"n": 1}', '{"n": 2}'])
    page.locator(".ds-facts").get_by_role("link", name="made/here").click()

    page.locator(".object-tools").get_by_role("link", name="Close").click()
    take_picture(page, "admin-close")
    page.get_by_role("button", name="Yes, close").click()
    expect(page.locator("#ds-state")).to_have_text("Closed")
    expect(page.locator("#ds-append")).to_have_count(0)

    page.locator(".object-tools").get_by_role("link", name="Delete").click()
    expect(page.locator("#deleted-objects")).to_contain_text("It has a fork")
    take_picture(page, "admin-delete")
    page.get_by_role("button", name="Yes, I’m sure").click()
    expect(page.locator(".messagelist")).to_contain_text("was deleted successfully")
    expect(page.locator("#result_list").locator(".ds-badge-deleted")).to_be_visible()


def test_several_streams_are_closed_at_once(visit: Visit, stream: MakeStream) -> None:
    stream("many/1"), stream("many/2")
    page = visit().page
    page.goto(LIST + "?q=many/")
    page.locator("#action-toggle").check()
    page.locator("select[name=action]").select_option("close_selected")
    page.locator("button[name=index]").click()  # "Go", or "Run" from Django 6 on
    page.get_by_role("button", name="Yes, close").click()
    expect(page.locator(".messagelist")).to_contain_text("2 streams were closed")
    expect(page.locator("#result_list .ds-badge-closed")).to_have_count(2)


def test_a_user_without_permission_sees_nothing(visit: Visit, stream: MakeStream) -> None:
    stream("secret/plans", "text/plain", "hidden words")
    visitor = visit("nobody")
    assert visitor.page.goto("/admin/").status == 200  # type: ignore[union-attr]
    expect(visitor.page.locator("#content")).not_to_contain_text("Streams")
    for path in ("", "add/", "1/change/", "1/append/", "1/fork/", "1/close/", "1/delete/", "1/tail/", "1/history/"):
        assert visitor.page.goto(LIST + path).status == 403, path  # type: ignore[union-attr]
    # Chromium itself reports any 4xx in the console.
    assert all("403" in complaint for complaint in visitor.complaints)
    visitor.complaints.clear()


def test_a_viewer_follows_and_is_offered_nothing_else(visit: Visit, stream: MakeStream) -> None:
    send = stream("view/only", "text/plain", "one")
    page = visit("viewer").page
    expect(page.get_by_role("link", name="Add stream")).to_have_count(0)
    open_stream(page, "view/only")
    send("POST", "two")
    expect(page.locator("#ds-messages .ds-body")).to_have_text(["one", "two"])
    expect(page.locator("#ds-append")).to_have_count(0)
    expect(page.locator(".object-tools li")).to_have_text(["History"])
    expect(page.get_by_role("link", name=re.compile("Fork"))).to_have_count(0)


@pytest.fixture(scope="module")
def gallery(server: Server) -> None:
    """Streams to make pictures of."""
    script = """
from datetime import timedelta
from django.utils import timezone
from django_durable_streams.models import Stream
Stream.objects.create(path="uploads/scan-0117", content_type="image/png", data=bytes(range(256)) * 300)
Stream.objects.create(path="jobs/import-2231/log", content_type="text/plain", ttl=3600,
    data="Reading customers.csv\\n").close()
kept = Stream.objects.create(path="documents/7/changes", content_type="application/json", data={"rev": 1})
kept.fork("documents/7/draft")
kept.delete()
Stream.objects.create(path="presence/lobby", content_type="application/json", ttl=3600)
gone = Stream.objects.create(path="sessions/a41f", content_type="text/plain", data="x")
keeper = gone.fork("sessions/a41f-copy")
Stream.objects.filter(pk=gone.pk).unguarded().update(deadline=timezone.now() - timedelta(seconds=1))
answer = Stream.objects.create(path="chat/42", content_type="application/json", ttl=86400 * 7)
answer.append({"role": "user", "text": "Which planets have rings?", "id": 1})
for number, text in enumerate(["Saturn’s are the best known, ", "but Jupiter, Uranus and Neptune ", "have rings too."]):
    usage = {"tokens": 7 + number, "model": "small", "cached": False}
    answer.append({"role": "assistant", "delta": text, "usage": usage}, producer=("worker-7", 0, number))
answer.append({"role": "user", "text": "And which one has the most moons?", "id": 2})
answer.fork("chat/42-again")
Stream.objects.create(path="long/" + "x" * 500, content_type="text/plain", data="y" * 9000)
"""
    prepare(server, script)


def test_it_fits_the_window_in_both_schemes(visit: Visit, gallery: None) -> None:
    page = visit(viewport=MOBILE, bypass_csp=True).page
    check_looks(page, "admin-list", examine=True)
    page.set_viewport_size(DESKTOP)
    assert page.locator(".results").evaluate("table => table.scrollWidth <= table.clientWidth")
    # A badge of one word has one line, also beside the filters and the menu.
    badge = page.locator(".ds-badge-open").first
    assert badge.evaluate("badge => badge.clientHeight < 1.8 * parseFloat(getComputedStyle(badge).lineHeight)")
    assert page.get_by_text("found", exact=False).count() == 0
    page.goto(f"{LIST}?q=chat/")
    expect(page.locator("#changelist-search")).to_contain_text("2 found")
    for path, picture in [
        ("chat/42", "stream"),
        ("uploads/scan-0117", "binary"),
        ("presence/lobby", "empty"),
        ("documents/7/changes", "deleted"),
        ("long/" + "x" * 500, "long"),
    ]:
        open_stream(page, path)
        if picture == "stream":
            expect(page.locator("#ds-live-text")).to_contain_text("Live")
        check_looks(page, f"admin-{picture}", examine=True)
    page.goto(LIST + "add/")
    check_looks(page, "admin-add", examine=True)
    for tool in ("Fork", "Lifetime and retention", "Signed link", "Close", "Delete", "History"):
        open_stream(page, "chat/42")
        page.locator(".object-tools").get_by_role("link", name=tool, exact=True).click()
        check_looks(page, f"admin-{tool.lower().replace(' ', '-')}", examine=True)


def test_a_person_signs_a_link_and_follows_the_url(visit: Visit, stream: MakeStream) -> None:
    stream("signed/report", "text/plain", "in short")
    page = visit(bypass_csp=True).page
    open_stream(page, "signed/report")
    expect(page.locator(".ds-facts").get_by_role("link", name="/v1/stream/signed/report")).to_be_visible()
    page.get_by_role("link", name="Signed link").click()
    page.get_by_label("Valid for").select_option("7 days")
    page.get_by_role("button", name="Make the link").click()
    link = page.get_by_label("The link is valid until").input_value()
    assert "/v1/stream/signed/report?token=read." in link
    assert page.evaluate(FITS)
    assert violations(page) == []
    assert page.request.get(link).text() == "in short"
