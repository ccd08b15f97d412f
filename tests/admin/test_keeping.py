"""The lifetime and the retention of a stream in the admin."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.utils import timezone

from django_durable_streams.models import Retention, Stream
from django_durable_streams.protocol.retention import KEEP_ALL, RetentionRules
from tests.admin.pages import client_of, staff, url
from tests.overriding import override_streams

pytestmark = pytest.mark.django_db


@pytest.fixture
def log() -> Stream:
    return Stream.objects.create(path="log", content_type="text/plain", data="one", ttl=60)


def save(client: Client, stream: Stream, **fields: Any) -> Any:
    return client.post(url("keep", stream), fields, follow=True)


def errors(response: Any) -> dict[str, list[str]]:
    return dict(response.context["form"].errors)


def notes() -> list[str]:
    return [entry.get_change_message() for entry in LogEntry.objects.order_by("pk")]


def test_a_lifetime_is_changed_and_noted(admin_client: Client, log: Stream) -> None:
    response = save(admin_client, log, ttl="120")
    assert "Saved." in response.content.decode()
    log.refresh_from_db()
    assert log.ttl == 120
    assert notes() == ["Changed the lifetime."]
    moment = timezone.now() + timedelta(days=1)
    save(admin_client, log, expires_at_0=moment.strftime("%Y-%m-%d"), expires_at_1=moment.strftime("%H:%M:%S"))
    log.refresh_from_db()
    assert log.ttl is None
    assert log.expires_at is not None
    save(admin_client, log)
    log.refresh_from_db()
    assert (log.ttl, log.expires_at, log.deadline) == (None, None, None)


def test_saving_without_a_change_changes_nothing(admin_client: Client, log: Stream) -> None:
    before = Stream.objects.get().deadline
    save(admin_client, log, ttl="60")
    assert Stream.objects.get().deadline == before
    assert notes() == []
    assert not Retention.objects.exists()


@override_streams(RETENTION={"log": {"bytes": 7}})
def test_rules_are_given_and_taken_back(admin_client: Client, log: Stream) -> None:
    page = admin_client.get(url("change", log)).content.decode()
    assert "the last 7\xa0bytes" in page
    save(admin_client, log, ttl="60", has_own_rules="on", age="3600", messages="1")
    assert log.retention == RetentionRules(age=3600, messages=1)
    assert notes() == ["Changed the retention: the last 3600 seconds, the last message."]
    form = admin_client.get(url("keep", log)).context["form"]
    assert (form["age"].value(), form["bytes"].value(), form["has_own_rules"].value()) == (3600, None, True)
    save(admin_client, log, ttl="60", has_own_rules="on")
    assert log.retention == KEEP_ALL
    save(admin_client, log, ttl="60")
    assert log.retention == RetentionRules(bytes=7)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"ttl": "0"}, "ttl"),
        ({"ttl": "soon"}, "ttl"),
        ({"has_own_rules": "on", "age": "0"}, "age"),
        ({"has_own_rules": "on", "bytes": "-1"}, "bytes"),
        ({"has_own_rules": "on", "messages": "1.5"}, "messages"),
        ({"bytes": "5"}, "has_own_rules"),
        ({"has_own_rules": "on", "bytes": "9" * 17}, None),
    ],
)
def test_what_is_wrong_is_said_at_the_field(admin_client: Client, log: Stream, fields: Any, name: str | None) -> None:
    assert (name or "__all__") in errors(save(admin_client, log, **{"ttl": "60", **fields}))
    assert not Retention.objects.exists()
    assert Stream.objects.get().ttl == 60


def test_it_needs_the_permission_to_change(log: Stream) -> None:
    viewer, changer = client_of(staff("view")), client_of(staff("view", "change", name="other"))
    assert viewer.get(url("keep", log)).status_code == 403
    assert save(viewer, log, ttl="5").status_code == 403
    assert url("keep", log) not in viewer.get(url("change", log)).content.decode()
    assert url("keep", log) in changer.get(url("change", log)).content.decode()
    assert changer.get(url("keep", log)).status_code == 200


def test_a_trimmed_stream_shows_where_it_begins(admin_client: Client, log: Stream) -> None:
    log.append("two")
    log.trim(log.offset_at(3))
    page = admin_client.get(url("change", log)).content.decode()
    assert log.first_offset in page
    assert "two" in page
    assert admin_client.get(url("change", log) + "?from=-1").status_code == 200
