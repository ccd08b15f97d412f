"""Streams in the admin: where they come from, what was forked from them, and what it takes to see and delete them."""

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from django_durable_streams.models import Stream

pytestmark = pytest.mark.django_db

LIST = "admin:durable_streams_stream_changelist"


def page(stream: Stream) -> str:
    return reverse("admin:durable_streams_stream_change", args=[stream.pk])


@pytest.fixture
def source() -> Stream:
    return Stream.objects.create(path="chat/42", content_type="text/plain", data="secret payload")


def test_a_page_leads_to_the_source_and_to_the_forks(admin_client: Client, source: Stream) -> None:
    middle = source.fork("chat/42-b")
    last = middle.fork("chat/42-c")
    shown = admin_client.get(page(middle)).content.decode()
    assert f'href="{page(source)}">chat/42<' in shown
    assert f'href="{page(last)}">chat/42-c<' in shown


def test_the_list_has_what_lives_and_loads_no_payload(admin_client: Client, source: Stream) -> None:
    Stream.objects.create(path="gone").delete()
    shown = admin_client.get(reverse(LIST)).content.decode()
    assert "chat/42" in shown
    assert "gone" not in shown
    assert "removed" not in shown
    assert "secret payload" not in shown


def test_deleting_goes_by_the_protocols_rules(admin_client: Client, source: Stream) -> None:
    fork = source.fork("chat/42-b")
    chosen = {"action": "delete_selected", "_selected_action": [source.pk], "post": "yes"}
    assert admin_client.post(reverse(LIST), chosen).status_code in (200, 302)
    assert list(fork.read()) == ["secret payload"]


def test_who_may_not_view_streams_sees_none(client: Client, source: Stream) -> None:
    clerk = User.objects.create_user("clerk", password="x", is_staff=True)
    client.force_login(clerk)
    assert client.get(reverse(LIST)).status_code == 403
    clerk.user_permissions.add(Permission.objects.get(codename="view_stream"))
    assert client.get(reverse(LIST)).status_code == 200
    assert client.get(page(source)).status_code == 200
