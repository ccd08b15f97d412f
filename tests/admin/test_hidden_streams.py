"""Staff who may change a subscription, and view only some of its streams, learn nothing of the others.

Each request is made twice: about something that exists and is hidden, and about something that does not exist. Both
answers have to be the same.
"""

import re
from typing import Any

import pytest
from django.test import Client

from django_durable_streams.consumers import Consumer, consumer
from django_durable_streams.models import Stream, Subscription, SubscriptionLink
from django_durable_streams.protocol import offsets
from django_durable_streams.subscriptions.consumers import subscribing
from tests.admin.pages import subscription_url
from tests.admin.test_subscription_permissions import backend, client_of, subscribe  # noqa: F401  a fixture
from tests.subscriptions.steps import USING, stream

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.admin.by_object"), pytest.mark.usefixtures("no_consumers")]


def handle(batch: Any) -> None:
    pass


def declared() -> Consumer:
    return consumer("**", name="mine-c", dead_letters="mine/letters")(handle)


@pytest.fixture(params=["webhook", "consumer"])
def subscription(request: pytest.FixtureRequest) -> Subscription:
    """A subscription that the user may change, with a stream of the user and one of somebody else."""
    if request.param == "webhook":
        one = subscribe("mine/s", "webhook", "**")
    else:
        one = Subscription.objects.get(pk=subscribing.subscribe(declared(), USING))
    stream("mine/a"), stream("theirs/a")
    assert set(SubscriptionLink.objects.values_list("path", flat=True)) == {"mine/a", "theirs/a"}
    return one


@pytest.fixture
def client() -> Client:
    return client_of("view change")


def shown(response: Any, *unlike: str) -> tuple[int, str]:
    """Return what a user sees of a response, without what the request itself has said."""
    text = response.content.decode()
    text = re.sub(r'csrfmiddlewaretoken" value="\w+"|<input type="text" name="pattern"[^>]*>', "", text)
    for one in unlike:
        text = text.replace(one, "?")
    return response.status_code, text


STARTS = {
    "beginning": {"start": "beginning"},
    "now": {"start": "now"},
    "an offset of none": {"start": "offset", "offset": offsets.encode(1, 7)},
    "the first offset": {"start": "offset", "offset": offsets.encode(0, 0)},
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(("hidden", "none"), [("theirs/a", "theirs/z"), ("theirs/*", "others/*"), ("*/a", "mine/a")])
def test_a_reset_by_pattern_does_not_tell_which_streams_are_there(
    client: Client, subscription: Subscription, start: str, hidden: str, none: str
) -> None:
    answers = []
    for pattern in (hidden, none):
        response = client.post(
            subscription_url("reset", subscription), {**STARTS[start], "pattern": pattern}, follow=True
        )
        answers.append(shown(response, hidden, none))
    assert answers[0] == answers[1]
    assert answers[0][0] == 200


def test_a_reset_by_pattern_sets_the_cursors_of_the_users_streams(client: Client, subscription: Subscription) -> None:
    fields = {"start": "now", "pattern": "*/a"}
    page = client.post(subscription_url("reset", subscription), fields, follow=True).content.decode()
    assert "The cursor of 1 stream is set." in page
    cursors = dict(SubscriptionLink.objects.values_list("path", "acked_position"))
    assert cursors == {"mine/a": 1, "theirs/a": None}
    page = client.post(subscription_url("reset", subscription), {"start": "now"}, follow=True).content.decode()
    assert "The cursors of 2 streams are set." in page


HIDDEN_COLUMNS = [("wake_stream", "theirs/wake"), ("pattern", "theirs/only"), ("last_error", "theirs/wake: lost")]


@pytest.mark.parametrize("lookup", ["", "__exact", "__startswith", "__contains", "__regex", "__gt", "__in", "__isnull"])
@pytest.mark.parametrize(("column", "value"), HIDDEN_COLUMNS)
def test_no_condition_of_the_list_tells_a_hidden_value(client: Client, column: str, value: str, lookup: str) -> None:
    one = subscribe("mine/s", "pull-wake", "theirs/only", wake_stream="theirs/wake")
    Subscription.objects.unguarded().filter(pk=one.pk).update(last_error="theirs/wake: lost")
    answers = []
    for guess in ("1", "0") if lookup == "__isnull" else (value, "others"):
        response = client.get(subscription_url("changelist"), {column + lookup: guess}, follow=True)
        answers.append(shown(response, value, "others"))
    assert answers[0] == answers[1]


def test_nor_does_its_order(client: Client) -> None:
    for name, pattern in [("mine/a", "theirs/2"), ("mine/b", "theirs/1")]:
        subscribe(name, "webhook", pattern)
    columns = client.get(subscription_url("changelist")).context["cl"].list_display
    number = columns.index("streams")
    orders = [
        [str(one) for one in client.get(subscription_url("changelist"), {"o": order}).context["cl"].result_list]
        for order in (f"{number}", f"-{number}", "")
    ]
    assert orders[0] == orders[1] == orders[2] != []


def test_the_streams_of_others_stay_hidden_where_they_are_deleted(client: Client, subscription: Subscription) -> None:
    Stream.objects.get(path="theirs/a").delete()
    page = client.get(subscription_url("change", subscription)).content.decode()
    assert "theirs" not in page
