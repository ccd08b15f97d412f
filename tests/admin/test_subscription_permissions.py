"""Who may do what with subscriptions: each page by each permission on its row. No page names another's stream."""

from typing import Any, NamedTuple

import pytest
from django.contrib.admin import AdminSite
from django.contrib.auth.models import User
from django.test import Client, RequestFactory

from django_durable_streams.admin import StreamAdmin
from django_durable_streams.admin.subscriptions.stream_names import StreamNames
from django_durable_streams.consumers import Consumer, consumer
from django_durable_streams.models import Stream, Subscription, SubscriptionLink
from django_durable_streams.protocol.subscriptions import SubscriptionConfig
from django_durable_streams.subscriptions import backfill, outcomes, registry
from django_durable_streams.testing import run_consumers
from tests.admin.by_object import site
from tests.admin.pages import client_of as client_with
from tests.admin.pages import grant, staff, subscription_url
from tests.subscriptions.steps import USING, stream, wakes

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.admin.by_object")]

SECRET = b"theirs"
"""What all names and paths have that nobody here may see."""

NEEDED = {
    "change": {"view"},
    "history": {"view"},
    "pause": {"change"},
    "resume": {"change"},
    "retry": {"change"},
    "reset": {"change"},
    "delete": {"delete"},
}
"""What a page of one subscription asks for, on that subscription. To change implies to view."""

OTHERS = {"changelist", "add"}
"""Pages of no subscription. Nobody may add one."""

USERS = ("", "view", "change", "delete", "add", "view change", "view delete", "view add change delete")

REST = {"start": "beginning", "post": "yes"}


@pytest.fixture(autouse=True)
def backend(settings: Any) -> None:
    settings.AUTHENTICATION_BACKENDS = ["tests.admin.by_object.ByPath", "django.contrib.auth.backends.ModelBackend"]


def subscribe(name: str, kind: str, pattern: str, *streams: str, wake_stream: str = "") -> Subscription:
    url = "https://example.com/" if kind == "webhook" else ""
    config = SubscriptionConfig(kind, pattern, streams, url, wake_stream, 30_000, "")
    subscription, _ = registry.create(name, config, "http://testserver/", USING)
    while not backfill.link_portion(subscription.pk, USING).is_done:
        pass
    return subscription


class Subscriptions(NamedTuple):
    """One of one's own and one of others, both about streams of both."""

    mine: Subscription
    theirs: Subscription


@pytest.fixture
def subscriptions() -> Subscriptions:
    mine = subscribe("mine/mailer", "pull-wake", "**", "theirs/none", wake_stream="theirs/wake")
    theirs = subscribe("theirs/mailer", "webhook", "**")
    Subscription.objects.filter(pk=mine.pk).unguarded().update(
        pattern="mine/*"
    )  # too many patterns match a wake stream
    for name in ("mine/a", "theirs/a"):
        stream(name)
    for wake in wakes():
        error = f"The wake event was not written to {wake.subscription.wake_stream}: theirs"
        outcomes.fail_delivery(wake, error, USING, is_certain=True)
    return Subscriptions(mine, theirs)


def client_of(permissions: str, streams: str = "view") -> Client:
    user = User.objects.create_user(f"user {permissions}", first_name=streams, last_name=permissions, is_staff=True)
    client = Client()
    client.force_login(user, backend="tests.admin.by_object.ByPath")
    return client


def granted(permissions: str) -> set[str]:
    names = {*permissions.split()}
    return names | {"view"} if "change" in names else names


def state(subscription: Subscription) -> tuple[Any, ...]:
    row = Subscription.objects.filter(pk=subscription.pk).values_list("name", "is_paused", "failures", "generation")
    cursors = SubscriptionLink.objects.filter(subscription=subscription).values_list("acked_position", "is_pending")
    return tuple(row.get()), tuple(cursors)


def test_the_table_has_every_page() -> None:
    names = {
        pattern.name.removeprefix("durable_streams_subscription_")
        for pattern in site._registry[Subscription].get_urls()
        if pattern.name
    }
    assert names == NEEDED.keys() | OTHERS


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("name", NEEDED)
def test_every_page_asks_for_its_subscription(name: str, method: str, subscriptions: Subscriptions) -> None:
    mine, theirs = subscriptions
    before, mine_before = state(theirs), state(mine)
    for permissions in USERS:
        client = client_of(permissions)
        response = getattr(client, method)(subscription_url(name, theirs), REST)
        assert response.status_code == 403
        assert b"mailer" not in response.content
        response = getattr(client, method)(subscription_url(name, mine), REST)
        allowed = NEEDED[name] <= granted(permissions)
        if name == "delete" and method == "post" and mine_before[0] != state(mine)[0]:
            assert response.status_code in (302, 403)  # deleted by the user before
        else:
            assert (response.status_code != 403) == allowed, permissions
        assert response.status_code < 500
        assert SECRET not in response.content
        if method == "get":
            assert state(mine) == mine_before
    assert state(theirs) == before


def test_nobody_adds_a_subscription(subscriptions: Subscriptions) -> None:
    for permissions in USERS:
        assert client_of(permissions).get(subscription_url("add")).status_code == 403


@pytest.mark.parametrize("permissions", USERS)
def test_the_list_names_what_may_be_seen_only(permissions: str, subscriptions: Subscriptions) -> None:
    client = client_of(permissions)
    sees = "view" in granted(permissions)
    for query in ({}, {"q": "mine/"}, {"state": "failing"}, {"kind__exact": "pull-wake"}, {"all": ""}):
        response = client.get(subscription_url("changelist"), query)
        assert (response.status_code == 200) == sees
        assert SECRET not in response.content
        if sees:
            assert b"mine/mailer" in response.content


ACTIONS = {"pause_selected": "change", "resume_selected": "change", "retry_selected": "change"}


@pytest.mark.parametrize("confirmed", [True, False])
@pytest.mark.parametrize("action", [*ACTIONS, "delete_all_selected"])
@pytest.mark.parametrize("permissions", USERS)
def test_actions_ask_for_each_subscription(
    permissions: str, action: str, confirmed: bool, subscriptions: Subscriptions
) -> None:
    mine, theirs = subscriptions
    if action == "resume_selected":
        Subscription.objects.unguarded().update(is_paused=True)
    client = client_of(permissions)
    before = {subscription: state(subscription) for subscription in subscriptions}
    chosen: dict[str, Any] = {"action": action, "_selected_action": [mine.pk, theirs.pk]}
    target = subscription_url("changelist")
    response = client.post(target, {**chosen, **({"post": "yes"} if confirmed else {})}, follow=True)
    assert response.status_code in (200, 403)
    assert SECRET not in response.content
    assert state(theirs) == before[theirs]
    needed = ACTIONS.get(action, "delete")
    allowed = {needed, "view"} <= granted(permissions)
    assert (state(mine) != before[mine]) == (allowed and (confirmed or action in ACTIONS))
    if allowed and confirmed:
        assert "permission for 1 of these" in response.content.decode()


class TestStreams:
    """A permission on a subscription says nothing about its streams."""

    def page(self, subscription: Subscription, *, streams: str = "view", query: str = "") -> str:
        User.objects.filter(username="user view change").delete()
        client = client_of("view change", streams)
        response = client.get(subscription_url("change", subscription) + query)
        assert response.status_code == 200
        return response.content.decode()

    def test_the_page_names_those_that_may_be_viewed(self, subscriptions: Subscriptions) -> None:
        mine = subscribe("mine/s", "webhook", "**")
        page = self.page(mine)
        assert "mine/a" in page
        assert "theirs" not in page
        for query in ("?show=pending", "?path=theirs/", "?path=mine/", "?after=1", "?show=trouble"):
            page = self.page(mine, query=query)
            assert "theirs/a" not in page
            assert ("mine/a" in page) == (query in ("?path=mine/", "?after=1"))

    def test_nor_is_the_wake_stream_named_or_an_error_about_it(self, subscriptions: Subscriptions) -> None:
        page = self.page(subscriptions.mine)
        assert "another stream" in page
        assert "theirs" not in page
        assert "was not written" not in page

    def test_nor_is_a_pattern_that_is_the_path_of_one_stream(self) -> None:
        mine = subscribe("mine/one", "webhook", "theirs/only")
        assert "theirs" not in self.page(mine)
        own = subscribe("mine/other", "webhook", "mine/only")
        assert "mine/only" in self.page(own)
        listed = client_of("view", "view").get(subscription_url("changelist")).content.decode()
        assert "mine/only" in listed
        assert "theirs" not in listed

    def test_nor_is_a_stream_that_was_deleted(self, subscriptions: Subscriptions) -> None:
        mine = subscribe("mine/s", "webhook", "**")
        for path in ("mine/a", "theirs/a"):
            Stream.objects.get(path=path).delete()
        page = self.page(mine)
        assert "theirs" not in page
        assert "mine/a" in page

    def test_who_may_view_no_stream_sees_none(self, subscriptions: Subscriptions) -> None:
        page = self.page(subscriptions.mine, streams="")
        assert "mine/a" not in page
        assert "theirs" not in page

    @pytest.mark.parametrize("action", ["retry", "reset"])
    @pytest.mark.parametrize("method", ["get", "post"])
    def test_a_link_to_another_stream_is_as_none(self, subscriptions: Subscriptions, action: str, method: str) -> None:
        mine = subscribe("mine/s", "webhook", "**")
        client = client_of("view change")
        before = state(mine)
        hidden = SubscriptionLink.objects.get(subscription=mine, path="theirs/a").pk
        foreign = SubscriptionLink.objects.get(subscription=subscriptions.theirs, path="mine/a").pk
        answers = []
        for link in (hidden, foreign, 10**12, "x", "9" * 40):
            send = getattr(client, method)
            response = send(subscription_url(action, mine), {"link": str(link), **REST}, follow=True)
            assert SECRET not in response.content
            answers.append("This stream is not linked any more." in response.content.decode())
        assert answers == [method == "post" or action == "reset"] * 5
        assert state(mine) == before

    @pytest.mark.parametrize("dead_letters", ["theirs/letters", "mine/letters"])
    def test_nor_are_the_dead_letters_of_a_consumer(self, dead_letters: str, no_consumers: None) -> None:
        one = failing("mine-c", dead_letters)
        page = self.page(Subscription.objects.get(name=one.stored_name))
        assert ("letters" in page) == (dead_letters == "mine/letters")
        assert "theirs" not in page

    def test_the_history_names_no_stream(self, subscriptions: Subscriptions) -> None:
        mine = subscriptions.mine
        root = client_with(User.objects.create_superuser("root"))
        link = SubscriptionLink.objects.filter(subscription=mine).latest("pk")
        for action, fields in [("reset", {**REST, "link": link.pk}), ("retry", {"link": link.pk}), ("pause", {})]:
            assert root.post(subscription_url(action, mine), fields).status_code == 302
        history = client_of("view").get(subscription_url("history", mine)).content
        assert b"Paused" in history
        assert SECRET not in history


def failing(name: str, dead_letters: str) -> Consumer:
    """A consumer whose first message is parked."""

    def handle(batch: Any) -> None:
        raise RuntimeError("on purpose")

    one = consumer("mine/*", name=name, max_attempts=1, dead_letters=dead_letters)(handle)
    stream("mine/parked")
    run_consumers(raise_errors=False)
    return one


def names_on(target: AdminSite, user: User, *paths: str) -> set[str]:
    request = RequestFactory().get("/")
    request.user = user
    return set(StreamNames(target, request, USING).of(paths))


class Restricted(StreamAdmin):
    """Shows some streams only."""

    def get_queryset(self, request: Any) -> Any:
        return super().get_queryset(request).filter(path__startswith="mine/")


class Told(Restricted):
    """Says which paths are the user's."""

    def may_name(self, request: Any, path_without_stream: str) -> bool:
        return path_without_stream.startswith("mine/")


@pytest.mark.urls("tests.urls")
class TestOtherSites:
    """How streams are registered decides which are named."""

    @pytest.fixture(autouse=True)
    def streams(self) -> None:
        stream("mine/a")
        stream("theirs/a")

    @pytest.mark.parametrize(
        ("admin", "expected"),
        [
            (StreamAdmin, {"mine/a", "theirs/a", "mine/none", "theirs/none"}),
            (Restricted, {"mine/a"}),
            (Told, {"mine/a", "mine/none"}),
        ],
    )
    def test_its_admin_decides(self, admin: type[StreamAdmin], expected: set[str]) -> None:
        target = AdminSite(name="admin")
        target.register(Stream, admin)
        user = staff("view")
        assert names_on(target, user, "mine/a", "theirs/a", "mine/none", "theirs/none") == expected
        if admin is not Told:  # which does not ask for permissions
            assert names_on(target, staff(name="other"), "mine/a", "mine/none") == set()

    def test_without_one_djangos_permission_decides(self) -> None:
        target = AdminSite(name="admin")
        assert names_on(target, staff("view"), "mine/a", "none") == {"mine/a", "none"}
        assert names_on(target, staff(name="other"), "mine/a", "none") == set()

    def test_an_admin_of_another_kind_tells_nothing(self) -> None:
        from django.contrib.admin import ModelAdmin

        target = AdminSite(name="admin")
        target.register(Stream, ModelAdmin)
        assert names_on(target, User.objects.create_superuser("root"), "mine/a", "none") == set()


@pytest.mark.urls("tests.urls")
@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("name", [*NEEDED, "changelist"])
def test_permissions_on_the_model(name: str, method: str, settings: Any) -> None:
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend"]
    for number, permissions in enumerate([(), ("view",), ("change",), ("delete",), ("add",)]):
        one = subscribe(f"s{number}", "webhook", "**")
        client = client_with(staff(*permissions, name=f"user{number}", model=Subscription))
        target = subscription_url(name) if name == "changelist" else subscription_url(name, one)
        response = getattr(client, method)(target, REST)
        needed = NEEDED.get(name, {"view"})
        assert (response.status_code != 403) == (needed <= granted(" ".join(permissions))), permissions
        assert response.status_code < 500


@pytest.mark.urls("tests.urls")
@pytest.mark.parametrize("name", ["pause", "resume", "retry", "reset", "delete"])
def test_changes_need_the_csrf_token(name: str, settings: Any) -> None:
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend"]
    one = subscribe("s", "webhook", "**")
    before = state(one)
    client = client_with(User.objects.create_superuser("root"), enforce_csrf_checks=True)
    assert client.post(subscription_url(name, one), REST).status_code == 403
    assert state(one) == before


@pytest.mark.urls("tests.urls")
def test_who_may_not_see_subscriptions_does_not_learn_which_are_there(settings: Any) -> None:
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend"]
    one = subscribe("s", "webhook", "**")
    user = staff("view")
    client = client_with(user)
    names = NEEDED.keys() - {"history"}
    there = [client.get(subscription_url(name, one)) for name in names]
    registry.delete("s", USING)
    gone = [client.get(subscription_url(name, one)) for name in names]
    assert [(one.status_code, one.content) for one in there] == [(one.status_code, one.content) for one in gone]
    grant(user, "view", model=Subscription)
    response = client_with(User.objects.get(pk=user.pk)).get(subscription_url("change", one), follow=True)
    assert "This subscription does not exist any more." in response.content.decode()
