"""Subscriptions and consumers in the admin, in a real browser against a real server."""

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.admin_pages import PAGES, Visit, prepare
from tests.browser.visitor import MOBILE, check_looks, take_picture
from tests.servers import Server

pytestmark = pytest.mark.browser

ENVIRONMENT = {"DJANGO_SETTINGS_MODULE": "tests.browser.billing_settings"}

SUBSCRIPTIONS = PAGES + "subscription/"

STATES = """
from django.contrib.auth.models import Permission, User
from django_durable_streams.models import Stream, Subscription
from django_durable_streams.protocol.subscriptions import SubscriptionConfig
from django_durable_streams.subscriptions import backfill, due, leases, operating, outcomes, registry
from django_durable_streams.subscriptions.pending import look_at_unseen
from django_durable_streams.subscriptions.turns import Turns
from django_durable_streams.testing import run_consumers

def subscribe(name, kind, pattern, *streams, url="", wake_stream="", description=""):
    config = SubscriptionConfig(kind, pattern, streams, url, wake_stream, 600_000, description)
    subscription, _ = registry.create(name, config, "http://testserver/", "default")
    while not backfill.link_portion(subscription.pk, "default").is_done:
        pass

subscribe("search-index", "webhook", "documents/*", url="https://search.example.com/hooks/documents",
    description="Keeps the index of the search up to date.")
subscribe("thumbnails", "pull-wake", "uploads/**", "covers/front", wake_stream="wake/thumbnails")
subscribe("archive", "pull-wake", "chat/*", wake_stream="wake/archive")
subscribe("mirror", "webhook", "chat/*", url="https://mirror.example.com/")
Stream.objects.create(path="wake/thumbnails", content_type="application/json")
for number in range(3):
    Stream.objects.create(path=f"documents/{number}", content_type="application/json").append({"rev": number})
for name in ("scan-0117", "scan-0118"):
    Stream.objects.create(path=f"uploads/{name}", data=bytes(9000))
leases.claim("thumbnails", "resizer-3", "default")
Stream.objects.create(path="chat/42", content_type="application/json", data={"text": "hello"})
operating.pause("archive", "default")
look_at_unseen("default")
for wake in due.begin_due("default", Turns(10)):
    if wake.subscription.name == "search-index":
        outcomes.fail_delivery(wake, "https://search.example.com/hooks/documents answered 503: try later.", "default",
            is_certain=False)
    else:
        outcomes.finish_delivery(wake, "default")
for number in range(60):
    order = Stream.objects.create(path=f"orders/{number:04}", content_type="application/json")
    order.append({"id": number, "total": None if number in (3, 17) else 12})
run_consumers(raise_errors=False)
Stream.objects.get(path="orders/0003").append({"id": 3, "total": 15})
Stream.objects.get(path="orders/0009").append({"id": 9, "total": 15})
look_at_unseen("default")
clerk = User.objects.get(username="viewer")
clerk.user_permissions.add(Permission.objects.get(codename="view_subscription"))
"""


@pytest.fixture(scope="module", autouse=True)
def states(server: Server) -> None:
    prepare(server, STATES)


def open_page(page: Page, name: str) -> None:
    page.goto(SUBSCRIPTIONS)
    page.locator("#result_list .field-title").get_by_role("link", name=re.compile(f"^{name} ")).click()


def test_it_fits_the_window_and_is_the_same_in_both_schemes(visit: Visit) -> None:
    page = visit(viewport=MOBILE, bypass_csp=True).page
    page.goto(SUBSCRIPTIONS)
    check_looks(page, "admin-subscriptions", examine=True)
    for subscription in ("billing", "search-index", "thumbnails", "archive", "statistics"):
        open_page(page, subscription)
        if subscription == "billing":
            page.locator("summary").first.click()
        check_looks(page, f"admin-subscription-{subscription}", examine=True)
    open_page(page, "billing")
    page.locator(".object-tools").get_by_role("link", name="Reset").click()
    check_looks(page, "admin-subscription-reset", examine=True)


def test_links_are_turned_and_narrowed(visit: Visit) -> None:
    page = visit().page
    open_page(page, "billing")
    rows = page.locator(".ds-links th[scope=row]")
    expect(rows).to_have_count(50)
    page.get_by_role("link", name="More").click()
    expect(rows).to_have_text([f"orders/{number:04}" for number in range(50, 60)])
    page.get_by_role("link", name="With errors").click()
    expect(rows).to_have_text(["orders/0003", "orders/0017"])
    page.get_by_role("link", name="Pending").click()
    expect(rows).to_have_text(["orders/0003", "orders/0009", "orders/0017"])
    page.locator("#ds-path").fill("orders/00")
    page.get_by_role("button", name="Go", exact=True).click()
    expect(rows).to_have_count(3)
    page.locator("#ds-path").fill("orders/0003")
    page.get_by_role("button", name="Go", exact=True).click()
    expect(rows).to_have_text(["orders/0003"])
    page.get_by_role("link", name="orders/0003").click()
    expect(page.locator("#ds-messages .ds-body")).to_have_count(2)


def test_a_person_pauses_resumes_retries_resets_and_deletes(visit: Visit) -> None:
    page = visit().page
    state, said = page.locator("#ds-state"), page.locator(".messagelist")
    open_page(page, "mirror")
    expect(state).to_have_text("Up to date")
    page.get_by_role("button", name="Pause").click()
    expect(said).to_contain_text("Paused mirror.")
    expect(state).to_have_text("Paused")
    page.get_by_role("button", name="Resume").click()
    expect(state).to_have_text("Up to date")

    page.locator(".ds-row-tools").get_by_role("link", name="Reset").click()
    page.get_by_role("button", name="Reset").click()
    expect(page.locator(".errorlist")).to_contain_text("required")
    page.get_by_label("The beginning: handle everything once more").check()
    page.get_by_role("button", name="Reset").click()
    expect(said).to_contain_text("The cursor of 1 stream is set.")
    expect(state).to_have_text("Pending")
    expect(page.locator(".ds-links .ds-badge")).to_have_text("Pending")

    open_page(page, "search-index")
    expect(state).to_have_text("Failing")
    page.get_by_role("button", name="Try again now").click()
    expect(said).to_contain_text("The next attempt of search-index begins now.")

    open_page(page, "billing")
    page.get_by_role("link", name="With errors").click()
    row = page.locator("tr", has=page.get_by_role("link", name="orders/0017"))
    row.get_by_role("button", name="Try again now").click()
    page.get_by_role("link", name="With errors").click()
    expect(page.locator(".ds-links th[scope=row]")).to_have_text(["orders/0003"])

    open_page(page, "mirror")
    page.locator(".object-tools").get_by_role("link", name="Delete").click()
    take_picture(page, "admin-subscription-delete")
    page.get_by_role("button", name="Yes, delete").click()
    expect(said).to_contain_text("1 subscription was deleted.")
    expect(page.locator("#result_list .field-title").get_by_role("link", name=re.compile("^mirror"))).to_have_count(0)


def test_several_are_paused_at_once(visit: Visit) -> None:
    page = visit().page
    page.goto(SUBSCRIPTIONS + "?kind__exact=consumer")
    page.locator("#action-toggle").check()
    page.locator("select[name=action]").select_option("pause_selected")
    page.locator("button[name=index]").click()
    expect(page.locator(".messagelist")).to_contain_text("Paused: 2.")
    expect(page.locator("#result_list .ds-badge-paused")).to_have_count(2)


@pytest.mark.parametrize(("user", "status"), [("viewer", 200), ("nobody", 403)])
def test_a_viewer_is_offered_nothing_and_others_see_nothing(visit: Visit, user: str, status: int) -> None:
    visitor = visit(user)
    answer: Any = visitor.page.goto(SUBSCRIPTIONS)
    assert answer.status == status
    if status == 200:
        open_page(visitor.page, "thumbnails")
        expect(visitor.page.locator(".object-tools li")).to_have_text(["History"])
        expect(visitor.page.get_by_role("button", name="Try again now")).to_have_count(0)
        return
    for path in ("1/change/", "1/pause/", "1/resume/", "1/retry/", "1/reset/", "1/delete/", "1/history/"):
        refused: Any = visitor.page.goto(SUBSCRIPTIONS + path)
        assert refused.status == 403, path
    assert all("403" in complaint for complaint in visitor.complaints)
    visitor.complaints.clear()
