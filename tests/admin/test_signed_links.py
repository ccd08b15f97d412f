"""The URL of a stream in the admin, and links for reading that are signed there."""

from typing import Any
from urllib.parse import urlsplit

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client

from django_durable_streams.models import Stream
from tests.admin.pages import client_of, staff, url
from tests.overriding import override_streams

pytestmark = pytest.mark.django_db

SIGNED = ["django_durable_streams.permissions.SignedURLs", "django_durable_streams.permissions.ModelPermissions"]


@pytest.fixture
def stream() -> Stream:
    return Stream.objects.create(path="report é/1", content_type="text/plain", data="secret")


def sign(client: Client, stream: Stream, seconds: str = "3600") -> Any:
    return client.post(url("sign", stream), {"seconds": seconds})


def test_the_page_links_to_the_url_of_the_stream(admin_client: Client, stream: Stream) -> None:
    page = admin_client.get(url("change", stream)).content.decode()
    assert 'href="http://testserver/v1/stream/report%20%C3%A9/1"' in page


@pytest.mark.django_db(transaction=True)
@override_streams(PERMISSION_CLASSES=SIGNED)
def test_a_signed_link_lets_anybody_read_and_is_noted(admin_client: Client, stream: Stream) -> None:
    assert url("sign", stream) in admin_client.get(url("change", stream)).content.decode()
    assert "Valid for" in admin_client.get(url("sign", stream)).content.decode()
    response = sign(admin_client, stream)
    assert "no-store" in response.headers["Cache-Control"]
    link = response.context["link"]
    assert link.startswith("http://testserver/v1/stream/report%20%C3%A9/1?token=read.")
    parts = urlsplit(link)
    target = f"{parts.path}?{parts.query}"
    assert Client().get(parts.path).status_code in (401, 403)
    assert Client().get(target).content == b"secret"
    assert Client().post(target, b"x", content_type="text/plain").status_code in (401, 403)
    (entry,) = LogEntry.objects.all()
    assert entry.get_change_message().startswith("Signed a link for reading, valid until ")
    assert "token" not in entry.get_change_message()


@override_streams(PERMISSION_CLASSES=SIGNED)
@pytest.mark.parametrize("seconds", ["", "59", "-1", "99999999999", "x", "3600.0"])
def test_other_lifetimes_are_refused(admin_client: Client, stream: Stream, seconds: str) -> None:
    response = sign(admin_client, stream, seconds)
    assert response.context["link"] == ""
    assert "seconds" in response.context["form"].errors
    assert not LogEntry.objects.exists()


def test_without_signed_urls_nothing_is_offered(admin_client: Client, stream: Stream) -> None:
    assert url("sign", stream) not in admin_client.get(url("change", stream)).content.decode()
    assert sign(admin_client, stream).status_code == 403


@override_streams(PERMISSION_CLASSES=SIGNED)
@pytest.mark.parametrize("permissions", [("view",), ("add", "view", "delete"), ()])
def test_a_user_who_may_not_change_the_stream_signs_nothing(stream: Stream, permissions: tuple[str, ...]) -> None:
    client = client_of(staff(*permissions))
    assert sign(client, stream).status_code == 403
    if permissions:
        assert url("sign", stream) not in client.get(url("change", stream)).content.decode()
    assert sign(client_of(staff("view", "change", name="editor")), stream).context["link"]


@override_streams(PERMISSION_CLASSES=SIGNED)
def test_a_stream_that_cannot_be_read_gets_no_link(admin_client: Client, stream: Stream) -> None:
    stream.fork("copy")
    stream.delete()
    page = admin_client.get(url("change", stream)).content.decode()
    assert url("sign", stream) not in page
    assert "/v1/stream/report" not in page
    assert sign(admin_client, stream).context["link"] == ""
