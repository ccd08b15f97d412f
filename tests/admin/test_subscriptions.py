"""Subscriptions and consumers in the admin: what the list and the pages show, and what the buttons do."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from django_durable_streams import clock
from django_durable_streams.admin import changelist
from django_durable_streams.admin.subscriptions import links_page
from django_durable_streams.admin.subscriptions.states import State, with_link_facts
from django_durable_streams.consumers import Batch, Consumer, consumer
from django_durable_streams.models import Stream, Subscription, SubscriptionLink
from django_durable_streams.subscriptions import leases, operating, outcomes, registry
from django_durable_streams.subscriptions.consumers import cursors, declarations, replaying, subscribing
from django_durable_streams.subscriptions.pending import look_at_unseen
from django_durable_streams.testing import run_consumers
from tests.admin.pages import client_of, staff, subscription_url
from tests.subscriptions.steps import USING, one_wake, stream, subscribe, wakes

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_consumers")]


class Broken:
    """A handler that fails until it is repaired."""

    def __init__(self) -> None:
        self.is_broken = True
        self.handled: list[Any] = []
        self.forgotten: list[str] = []

    def __call__(self, batch: Batch) -> None:
        if self.is_broken:
            raise RuntimeError("a message that\nnobody can <b>handle</b>")
        self.handled += batch.messages

    def reset(self, paths: list[str]) -> None:
        self.forgotten += paths


@pytest.fixture
def broken() -> Broken:
    return Broken()


def declare(handler: Broken, name: str = "billing", **options: Any) -> Consumer:
    one = consumer("orders/*", name=name, **{"on_failure": "stop", "max_attempts": 1, **options})(handler)
    one.reset(handler.reset)
    return one


def order(number: int) -> Stream:
    stream, _ = Stream.objects.ensure(f"orders/{number}", content_type="application/json")
    stream.append(number)
    return stream


@pytest.fixture
def stopped(broken: Broken) -> Subscription:
    """A consumer with two stopped streams."""
    one = declare(broken)
    order(1), order(2)
    run_consumers(raise_errors=False)
    return Subscription.objects.get(name=one.stored_name)


def post(client: Client, name: str, subscription: Subscription, **fields: Any) -> str:
    """Send a form, and return the page that follows."""
    response = client.post(subscription_url(name, subscription), fields, follow=True)
    assert response.status_code == 200
    return response.content.decode()


def page(client: Client, subscription: Subscription, query: str = "") -> str:
    response = client.get(subscription_url("change", subscription) + query)
    assert response.status_code == 200
    return response.content.decode()


def history() -> list[tuple[int, str, str]]:
    entries = LogEntry.objects.order_by("pk").values_list("action_flag", "object_repr", "change_message")
    return [(flag, name, message) for flag, name, message in entries]


def tools(text: str) -> list[str]:
    """The names of the buttons above a page."""
    items = re.findall(r"<li>(.*?)</li>", text.partition("object-tools")[2].partition("</ul>")[0], re.DOTALL)
    return [re.sub(r"<[^>]*>", "", item).strip() for item in items]


def states() -> dict[str, State]:
    """A subscription in each state, by name."""
    for name in ("paused", "failing", "working", "pending", "done"):
        subscribe(name, f"{name}/*")
        stream(f"{name}/x")
    look_at_unseen(USING)
    operating.pause("paused", USING)
    begun = {wake.subscription.name: wake for wake in wakes()}
    outcomes.fail_delivery(begun["failing"], "500", USING, is_certain=True)
    outcomes.finish_delivery(begun["done"], USING)
    outcomes.finish_delivery(begun["pending"], USING)
    Stream.objects.get(path="pending/x").append(b"more")
    look_at_unseen(USING)
    return {name: State(name) for name in ("paused", "failing", "working", "pending", "done")}


class TestList:
    def test_states_are_shown_and_filter(self, admin_client: Client, broken: Broken) -> None:
        declare(broken)
        order(1)
        run_consumers(raise_errors=False)
        expected = {**states(), "billing": State.STOPPED}
        shown = admin_client.get(subscription_url("changelist"))
        assert {str(one): State.of(one) for one in shown.context["cl"].result_list} == expected
        for state in State:
            response = admin_client.get(subscription_url("changelist"), {"state": state.value})
            names = {str(one) for one in response.context["cl"].result_list}
            if state.is_of_links_only:
                assert names == expected.keys()
            else:
                assert names == {name for name, value in expected.items() if value is state}, state

    def test_a_consumer_is_in_the_state_of_its_streams(self, admin_client: Client, broken: Broken) -> None:
        one = declare(broken, max_attempts=5)
        order(1)

        def state() -> State:
            (row,) = admin_client.get(subscription_url("changelist")).context["cl"].result_list
            return State.of(row)

        key = subscribing.subscribe(one, USING, from_beginning=True)
        order(2)
        look_at_unseen(USING)
        assert state() is State.PENDING
        (link,) = cursors.claimable(key, USING, 0, 1)
        held = cursors.claim(link, 30, USING)
        assert held is not None
        assert state() is State.WORKING
        held.failures = 1
        cursors.fail(held, "x", 60, USING)
        assert state() is State.FAILING
        operating.pause(one.stored_name, USING)
        assert state() is State.PAUSED

    @pytest.mark.parametrize(
        ("term", "expected"), [("ma", {"mailer"}), ("bil", {"billing"}), ("%", set()), ("x", set())]
    )
    def test_search_goes_by_the_beginning_of_names(
        self, admin_client: Client, stopped: Subscription, term: str, expected: set[str]
    ) -> None:
        subscribe("mailer")
        subscribe("other")
        response = admin_client.get(subscription_url("changelist"), {"q": term})
        assert {str(one) for one in response.context["cl"].result_list} == expected

    def test_columns(self, admin_client: Client) -> None:
        subscribe("mailer", kind="pull-wake")
        stream()
        leases.claim("mailer", "worker-1", USING)
        subscribe("hook")
        Stream.objects.get().append(b"y")
        (wake,) = (wake for wake in wakes() if wake.subscription.name == "hook")
        outcomes.fail_delivery(wake, "500 of <b>them</b>", USING, is_certain=True)
        shown = admin_client.get(subscription_url("changelist")).content.decode()
        assert "worker-1" in shown
        assert "500 of &lt;b&gt;them&lt;/b&gt;" in shown
        assert "events/*" in shown
        assert re.search(r"in \d+ s", shown)

    def test_an_empty_list_says_what_to_do(self, admin_client: Client) -> None:
        assert "There are no subscriptions yet." in admin_client.get(subscription_url("changelist")).content.decode()
        filtered = admin_client.get(subscription_url("changelist"), {"state": "paused"}).content.decode()
        assert "No subscription matches." in filtered

    def test_deleted_ones_are_left_out(self, admin_client: Client) -> None:
        one = subscribe()
        registry.delete("s", USING)
        response = admin_client.get(subscription_url("changelist"))
        assert response.context["cl"].result_list == []
        assert (
            "does not exist any more" in admin_client.get(subscription_url("change", one), follow=True).content.decode()
        )

    def test_queries_do_not_grow_with_the_rows(self, admin_client: Client, stopped: Subscription) -> None:
        def count(**query: str) -> int:
            with CaptureQueriesContext(connection) as captured:
                assert admin_client.get(subscription_url("changelist"), query).status_code == 200
            counts = [sql["sql"] for sql in captured if "COUNT" in sql["sql"] and "subscriptionlink" in sql["sql"]]
            assert query or not counts
            return len(captured)

        def add(first: int, last: int) -> None:
            for number in range(first, last):
                subscribe(f"s{number}", f"events/{number}", kind="pull-wake" if number % 2 else "webhook")

        add(0, 2)
        few = count(), count(state="pending")
        add(2, 20)
        assert (count(), count(state="pending")) == few
        assert few[0] <= 12

    def test_several_are_paused_resumed_and_deleted(
        self, admin_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        chosen = [subscribe(name).pk for name in ("a", "b")]
        operating.pause("a", USING)

        def choose(action: str, **more: Any) -> str:
            fields = {"action": action, "_selected_action": chosen, **more}
            return admin_client.post(subscription_url("changelist"), fields, follow=True).content.decode()

        assert "Paused: 1." in choose("pause_selected")
        assert "Resumed: 2." in choose("resume_selected")
        assert "Tried again: 0." in choose("retry_selected")
        asked = choose("delete_all_selected")
        assert "Delete these 2 subscriptions?" in asked
        assert Subscription.objects.filter(name__isnull=False).count() == 2
        assert "2 subscriptions were deleted." in choose("delete_all_selected", post="yes")
        assert not Subscription.objects.filter(name__isnull=False).exists()
        assert [flag for flag, _, _ in history()] == [CHANGE] * 3 + [DELETION] * 2
        chosen = [subscribe(name).pk for name in ("a", "b")]
        monkeypatch.setattr(changelist, "MAX_ROWS_PER_ACTION", 1)
        assert "at most 1 subscriptions" in choose("pause_selected", select_across="1")
        assert not Subscription.objects.filter(is_paused=True).exists()
        assert "delete_selected" not in admin_client.get(subscription_url("changelist")).content.decode()


class TestPage:
    def test_it_shows_a_webhook_and_its_wake(self, admin_client: Client) -> None:
        one = subscribe("hook", "events/*", "elsewhere/none")
        stream(data=b"x" * 2048)
        outcomes.fail_delivery(one_wake(), "500 of <b>them</b>", USING, is_certain=False)
        text = page(admin_client, one)
        for part in ("https://example.com/", "events/*", "500 of &lt;b&gt;them", "Failing", "30 s", "elsewhere/none"):
            assert part in text, part
        assert "2.0\xa0KB" in text
        assert "No stream" in text
        assert tools(text) == ["Try again now", "Pause", "Reset", "Delete", "History"]

    def test_it_shows_who_has_the_lease(self, admin_client: Client) -> None:
        one = subscribe("pool", kind="pull-wake")
        first = stream()
        Stream.objects.create(path="wake", content_type="application/json")
        assert "not claimed yet" not in page(admin_client, one)
        outcomes.confirm_delivery(one_wake(), USING)
        assert "not claimed yet" in page(admin_client, one)
        leases.claim("pool", "worker-1", USING)
        text = page(admin_client, one)
        assert "held by worker-1" in text
        assert re.search(r"in (29|30) s", text)
        assert f'<a href="/admin/durable_streams/stream/{Stream.objects.get(path="wake").pk}/change/">wake</a>' in text
        assert first.offset_at(0) not in text  # nothing was acknowledged: -1

    def test_it_shows_a_consumer_and_where_it_stopped(self, admin_client: Client, stopped: Subscription) -> None:
        text = page(admin_client, stopped)
        for part in (
            "Stopped",
            "RuntimeError",
            "nobody can &lt;b&gt;handle",
            "stop the stream",
            "orders/1",
            "orders/2",
        ):
            assert part in text, part
        assert "\x01" not in text
        assert text.count("ds-badge-stopped") == 3
        assert tools(text) == ["Try again now", "Pause", "Reset", "Delete", "History"]

    def test_it_leads_to_the_dead_letters(self, admin_client: Client, broken: Broken) -> None:
        one = declare(broken, on_failure="park")
        order(1)
        run_consumers(raise_errors=False)
        row = Subscription.objects.get(name=one.stored_name)
        letters = Stream.objects.get(path="dead-letters/billing")
        text = page(admin_client, row)
        assert f'<a href="/admin/durable_streams/stream/{letters.pk}/change/">dead-letters/billing</a>' in text
        letters.delete()
        assert "dead-letters/billing" not in page(admin_client, row)

    def test_a_viewer_is_offered_nothing_else(self, stopped: Subscription) -> None:
        user = staff("view", model=Subscription)
        text = page(client_of(user), stopped)
        assert tools(text) == ["History"]
        assert "Try again" not in text
        assert "Reset" not in text

    def test_a_consumer_that_the_code_has_lost(self, admin_client: Client, stopped: Subscription) -> None:
        declarations._consumers.clear()
        text = page(admin_client, stopped)
        assert "The code has no consumer of this name." in text
        assert "Reset" not in tools(text)
        assert "The code has no consumer billing" in post(admin_client, "reset", stopped, start="beginning")
        assert "1 subscription was deleted." in post(admin_client, "delete", stopped)
        assert not Subscription.objects.filter(name__isnull=False).exists()

    def test_only_get_shows(self, admin_client: Client) -> None:
        one = subscribe()
        assert admin_client.post(subscription_url("change", one)).status_code == 405
        assert admin_client.put(subscription_url("delete", one)).status_code == 405


class TestLinks:
    @pytest.fixture
    def many(self, monkeypatch: pytest.MonkeyPatch) -> Subscription:
        monkeypatch.setattr(links_page, "LINKS_PER_PAGE", 3)
        one = subscribe("s", "a/*")
        for number in range(7):
            stream(f"a/{number}", b"x" * number)
        look_at_unseen(USING)
        return one

    def paths(self, client: Client, subscription: Subscription, query: str = "") -> list[str]:
        response = client.get(subscription_url("change", subscription) + query)
        return [link.path for link in response.context["page"].rows]

    def test_they_come_page_by_page(self, admin_client: Client, many: Subscription) -> None:
        seen: list[str] = []
        query = ""
        while True:
            response = admin_client.get(subscription_url("change", many) + query)
            shown = response.context["page"]
            seen += [link.path for link in shown.rows]
            if shown.next_after is None:
                break
            query = shown.next_query
        assert seen == [f"a/{number}" for number in range(7)]
        assert ">First</a>" in response.content.decode()
        assert self.paths(admin_client, many, "?after=999999999") == ["a/0", "a/1", "a/2"]
        for nonsense in ("x", "-1", "9" * 30, ""):
            assert self.paths(admin_client, many, f"?after={nonsense}") == ["a/0", "a/1", "a/2"]

    def test_they_are_found_by_path_and_state(self, admin_client: Client, many: Subscription) -> None:
        assert self.paths(admin_client, many, "?path=a/4") == ["a/4"]
        assert self.paths(admin_client, many, "?path=%25") == []
        assert self.paths(admin_client, many, "?path=%00") == []
        assert self.paths(admin_client, many, "?show=pending") == ["a/1", "a/2", "a/3"]
        assert self.paths(admin_client, many, "?show=trouble") == []
        assert self.paths(admin_client, many, "?show=nonsense") == ["a/0", "a/1", "a/2"]

    def test_the_lag_is_that_of_the_stream_now(self, admin_client: Client, many: Subscription) -> None:
        outcomes.finish_delivery(one_wake(), USING)
        Stream.objects.get(path="a/5").append(b"12345")  # before anybody looks at it
        Stream.objects.get(path="a/6").delete()
        response = admin_client.get(subscription_url("change", many) + "?path=a/5")
        (link,) = response.context["page"].rows
        assert (link.lag, link.state, link.cursor) == (5, State.PENDING, Stream.objects.get(path="a/5").offset_at(5))
        response = admin_client.get(subscription_url("change", many) + "?path=a/6")
        (link,) = response.context["page"].rows
        assert (link.lag, link.state, link.cursor) == (None, State.MISSING, "-1")

    def test_queries_do_not_grow_with_the_links(self, admin_client: Client) -> None:
        one = subscribe("s", "a/*", "b/none")

        def count() -> int:
            with CaptureQueriesContext(connection) as captured:
                page(admin_client, one)
            assert not [sql for sql in captured if "COUNT" in sql["sql"] or "SUM" in sql["sql"]]
            return len(captured)

        source = stream("a/0")
        few = count()
        for number in range(1, 30):
            source = source.fork(f"a/{number}")  # the offsets of forks need their sources
            source.append(b"x")
        assert count() == few
        assert few <= 14

    def test_errors_are_cut(self, admin_client: Client, stopped: Subscription) -> None:
        SubscriptionLink.objects.unguarded().update(last_error="first" + "x" * 20_000 + "\nlast")
        response = admin_client.get(subscription_url("change", stopped))
        (link, _) = response.context["page"].rows
        assert len(link.error) == links_page.ERROR_LENGTH
        assert link.error_line == "last"


class TestStreamsThatAreNotFollowedAnyMore:
    """A consumer keeps the cursors of streams that its new pattern does not match."""

    @pytest.fixture
    def changed(self, broken: Broken) -> Subscription:
        """A consumer with a stream that waits for another attempt, one with new data, and another pattern since."""
        one = declare(broken)
        subscribing.subscribe(one, USING, from_beginning=True)
        order(1), order(2)
        look_at_unseen(USING)
        failed = SubscriptionLink.objects.unguarded().filter(path="orders/1")
        failed.update(failures=1, next_attempt_at=clock.now() + timedelta(hours=1))
        declarations._consumers.clear()
        two = consumer("invoices/*", name="billing", on_failure="stop")(broken)
        subscribing.subscribe(two, USING)
        assert SubscriptionLink.objects.filter(is_pending=True).count() == 2
        return Subscription.objects.get(name=one.stored_name)

    def test_they_are_marked_and_offer_nothing(self, admin_client: Client, changed: Subscription) -> None:
        response = admin_client.get(subscription_url("change", changed))
        rows = response.context["page"].rows
        assert [(row.path, row.state) for row in rows] == [("orders/1", State.DORMANT), ("orders/2", State.DORMANT)]
        assert not any(row.may_reset or row.may_retry or row.next_attempt for row in rows)
        text = response.content.decode()
        assert text.count("Not followed") == 2
        assert "?link=" not in text

    @pytest.mark.parametrize("show", ["pending", "trouble"])
    def test_they_are_not_among_those_with_work(self, admin_client: Client, changed: Subscription, show: str) -> None:
        assert admin_client.get(subscription_url("change", changed), {"show": show}).context["page"].rows == []

    def test_the_consumer_is_up_to_date_without_them(self, admin_client: Client, changed: Subscription) -> None:
        (row,) = admin_client.get(subscription_url("changelist"), {"state": "done"}).context["cl"].result_list
        assert State.of(row) is State.DONE
        for state in ("pending", "failing", "stopped"):
            response = admin_client.get(subscription_url("changelist"), {"state": state})
            assert response.context["cl"].result_list == []

    def test_they_come_back_with_the_pattern(self, admin_client: Client, changed: Subscription, broken: Broken) -> None:
        declarations._consumers.clear()
        broken.is_broken = False
        declare(broken)
        run_consumers()
        rows = admin_client.get(subscription_url("change", changed)).context["page"].rows
        assert [(row.path, row.state) for row in rows] == [("orders/1", State.FAILING), ("orders/2", State.DONE)]
        assert sorted(broken.handled) == [2]


class TestButtons:
    def test_pause_and_resume(self, admin_client: Client) -> None:
        one = subscribe("mailer", kind="pull-wake")
        stream()
        text = post(admin_client, "pause", one)
        assert "Paused mailer." in text
        assert tools(text) == ["Resume", "Reset", "Delete", "History"]
        assert wakes() == []
        assert "mailer was paused already." in post(admin_client, "pause", one)
        assert "Resumed mailer." in post(admin_client, "resume", one)
        assert len(wakes()) == 1
        assert "mailer was not paused." in post(admin_client, "resume", one)
        assert history() == [(CHANGE, "mailer", "Paused."), (CHANGE, "mailer", "Resumed.")]

    @pytest.mark.parametrize("name", ["pause", "resume", "retry"])
    def test_a_get_changes_nothing(self, admin_client: Client, stopped: Subscription, name: str) -> None:
        before = Subscription.objects.values().get(), list(SubscriptionLink.objects.values())
        assert admin_client.get(subscription_url(name, stopped)).status_code == 302
        assert admin_client.put(subscription_url(name, stopped)).status_code == 302
        assert (Subscription.objects.values().get(), list(SubscriptionLink.objects.values())) == before

    def test_an_attempt_is_made_now(self, admin_client: Client) -> None:
        one = subscribe()
        stream()
        assert "Nothing of s waits" in post(admin_client, "retry", one)
        outcomes.fail_delivery(one_wake(), "500", USING, is_certain=True)
        assert wakes() == []
        assert "The next attempt of s begins now." in post(admin_client, "retry", one)
        assert len(wakes()) == 1
        assert history() == [(CHANGE, "s", "Tried again.")]

    def test_stopped_streams_go_on(self, admin_client: Client, stopped: Subscription, broken: Broken) -> None:
        broken.is_broken = False
        link = SubscriptionLink.objects.get(path="orders/2")
        text = post(admin_client, "retry", stopped, link=link.pk)
        assert text.count("ds-badge-stopped") == 2  # the other stream, and the consumer
        run_consumers()
        assert broken.handled == [2]
        assert "The next attempt of billing begins now." in post(admin_client, "retry", stopped)
        run_consumers()
        assert broken.handled == [2, 1]
        assert [message for _, _, message in history()] == ["Tried again on one stream.", "Tried again."]

    def test_a_replay_that_was_killed_is_ended(
        self, admin_client: Client, stopped: Subscription, broken: Broken
    ) -> None:
        replaying._hold(stopped, USING)
        text = page(admin_client, stopped)
        assert "A replay sets the cursors." in text
        assert "Resume" in tools(text)
        post(admin_client, "resume", stopped)
        assert "A replay sets the cursors." not in page(admin_client, stopped)
        assert not SubscriptionLink.objects.exclude(holder="").exists()

    def test_deletion_asks_first(self, admin_client: Client) -> None:
        one = subscribe("mailer")
        asked = admin_client.get(subscription_url("delete", one)).content.decode()
        assert "Delete this subscription?" in asked
        assert Subscription.objects.filter(name="mailer").exists()
        assert "1 subscription was deleted." in post(admin_client, "delete", one)
        assert not Subscription.objects.filter(name="mailer").exists()
        assert history() == [(DELETION, "mailer", "")]
        assert "does not exist any more" in post(admin_client, "delete", one)

    def test_a_consumer_that_the_code_has_is_not_deleted(self, admin_client: Client, stopped: Subscription) -> None:
        assert "The code still has the consumer billing." in post(admin_client, "delete", stopped)
        assert Subscription.objects.filter(name__isnull=False).exists()
        assert history() == []

    def test_a_lock_that_is_held_is_a_message(self, admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        one = subscribe()

        def busy(*arguments: Any) -> None:
            raise OperationalError("database is locked")

        monkeypatch.setattr(registry, "delete", busy)
        assert "Another transaction holds a lock." in post(admin_client, "delete", one)
        assert history() == []


class TestReset:
    def test_the_cursor_of_one_stream_goes_back(self, admin_client: Client) -> None:
        one = subscribe("s")
        first = stream()
        first.append(b"yz")
        outcomes.finish_delivery(one_wake(), USING)
        link = SubscriptionLink.objects.get()
        form = admin_client.get(subscription_url("reset", one), {"link": link.pk}).content.decode()
        assert "events/a" in form
        assert first.offset_at(3) in form
        text = post(admin_client, "reset", one, link=link.pk, start="offset", offset=first.offset_at(1))
        assert "The cursor of 1 stream is set." in text
        assert one_wake().pending[0].acked_offset == first.offset_at(1)
        assert history() == [(CHANGE, "s", f"Reset 1 cursors: offset {first.offset_at(1)}")]

    @pytest.mark.parametrize(
        ("fields", "field", "words"),
        [
            ({}, "start", "required"),
            ({"start": "x"}, "start", "not one of"),
            ({"start": "offset"}, "offset", "Copy an offset"),
            ({"start": "offset", "offset": "now"}, "offset", "Copy an offset"),
            ({"start": "offset", "offset": "x"}, "offset", "Copy an offset"),
            ({"start": "offset", "offset": "0000000000000000_0000000000000000"}, "__all__", "one stream"),
            ({"start": "offset", "offset": "1_1", "pattern": "events/a"}, "offset", "Copy an offset"),
            (
                {"start": "offset", "offset": "0000000000000001_0000000000000001", "pattern": "events/a"},
                "__all__",
                "earlier stream",
            ),
            ({"start": "now", "pattern": "a*"}, "pattern", "wildcard"),
        ],
    )
    def test_what_is_wrong_is_said_in_the_form(
        self, admin_client: Client, fields: dict[str, str], field: str, words: str
    ) -> None:
        one = subscribe("s")
        for name in "ab":
            stream(f"events/{name}")
        response = admin_client.post(subscription_url("reset", one), fields)
        assert response.status_code == 200
        assert words in str(response.context["form"].errors[field])
        assert history() == []
        assert not SubscriptionLink.objects.exclude(acked_position=None).exists()

    def test_a_consumer_is_replayed_with_its_reset_function(
        self, admin_client: Client, stopped: Subscription, broken: Broken
    ) -> None:
        broken.is_broken = False
        post(admin_client, "retry", stopped)
        run_consumers()
        assert sorted(broken.handled) == [1, 2]
        assert "takes back its effects" in admin_client.get(subscription_url("reset", stopped)).content.decode()
        text = post(admin_client, "reset", stopped, start="beginning", pattern="orders/2")
        assert "The cursor of 1 stream is set." in text
        assert broken.forgotten == ["orders/2"]
        run_consumers()
        assert sorted(broken.handled) == [1, 2, 2]
        post(admin_client, "reset", stopped, start="now", link=SubscriptionLink.objects.get(path="orders/1").pk)
        assert broken.forgotten == ["orders/2", "orders/1"]
        assert run_consumers() == 0

    def test_a_reset_function_that_fails_is_a_message(
        self, admin_client: Client, stopped: Subscription, broken: Broken
    ) -> None:
        def fail(paths: list[str]) -> None:
            raise RuntimeError("on purpose")

        declarations._consumers["billing"].reset_function = fail
        response = admin_client.post(subscription_url("reset", stopped), {"start": "beginning"})
        assert "Nothing was changed" in str(response.context["form"].errors)
        assert "on purpose" in str(response.context["form"].errors)
        assert history() == []
        assert not Subscription.objects.exclude(holder="").exists()

    def test_without_a_reset_function_the_form_says_so(self, admin_client: Client, broken: Broken) -> None:
        one = consumer("orders/*", name="plain")(broken)
        order(1)
        run_consumers(raise_errors=False)
        row = Subscription.objects.get(name=one.stored_name)
        assert "has no reset function" in admin_client.get(subscription_url("reset", row)).content.decode()
        assert "late acknowledgements" in admin_client.get(subscription_url("reset", subscribe("s"))).content.decode()


def test_the_times_of_states_are_the_presents() -> None:
    """A lease that is over counts no more."""
    subscribe("s", kind="pull-wake")
    stream()
    leases.claim("s", "w", USING)
    later = clock.now() + timedelta(seconds=31)
    look_at_unseen(USING)
    (row,) = with_link_facts(Subscription.objects.all(), later)
    assert State.of(row) is State.WORKING
    assert State.of(row, later) is State.PENDING
    assert with_link_facts(Subscription.objects.all(), later).filter(State.PENDING.condition(later)).exists()
