"""Who may do what: each page by each permission. Those who may not get 403, and learn nothing."""

import pytest
from django.test import Client

from django_durable_streams.models import Stream
from tests.admin.pages import client_of, staff, url

pytestmark = pytest.mark.django_db

# What a page asks for: all of these. To change implies to view, as everywhere in the admin.
NEEDED = {
    "changelist": {"view"},
    "process": {"view"},
    "add": {"add"},
    "change": {"view"},
    "history": {"view"},
    "message": {"view"},
    "download": {"view"},
    "producers": {"view"},
    "tail": {"view"},
    "append": {"change"},
    "close": {"change"},
    "fork": {"view", "add"},
    "delete": {"delete"},
}
PERMISSIONS = ("view", "add", "change", "delete")


@pytest.fixture
def stream() -> Stream:
    return Stream.objects.create(path="secret/plans", content_type="text/plain", data="hidden words")


def target(name: str, stream: Stream) -> str:
    return url(name) if name in ("changelist", "add", "process") else url(name, stream)


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("name", NEEDED)
def test_every_page_needs_its_permissions(name: str, method: str, stream: Stream) -> None:
    for permissions in [(), *((one,) for one in PERMISSIONS), ("view", "add"), PERMISSIONS]:
        client = client_of(staff(*permissions, name="-".join(permissions) or "nobody"))
        granted = {*permissions, *(["view"] if "change" in permissions else [])}
        response = getattr(client, method)(target(name, stream), {"from": "0", "path": "x/y", "post": ""})
        allowed = NEEDED[name] <= granted
        assert (response.status_code != 403) == allowed, (permissions, response.status_code)
        assert response.status_code < 500
        if not allowed:
            assert b"secret" not in response.content
            assert b"hidden" not in response.content
        if name == "delete" and allowed:
            stream = Stream.objects.create(path=f"secret/plans-{len(permissions)}", content_type="text/plain", data="x")


@pytest.mark.parametrize("name", sorted(set(NEEDED) - {"changelist", "add", "history", "process"}))
def test_who_may_not_see_streams_does_not_learn_which_are_there(name: str, stream: Stream) -> None:
    client = client_of(staff())
    there = client.get(url(name, stream))
    Stream.objects.all().delete()
    gone = client.get(url(name, stream))
    assert (there.status_code, there.content) == (gone.status_code, gone.content)


@pytest.mark.parametrize("name", NEEDED)
def test_who_is_not_logged_in_is_sent_to_log_in(name: str, stream: Stream, client: Client) -> None:
    response = client.get(target(name, stream))
    assert (response.status_code, response["Location"].partition("?")[0]) == (302, "/admin/login/")


def test_the_index_says_nothing_of_streams_to_who_may_not_see_them(stream: Stream) -> None:
    assert b"Streams" not in client_of(staff()).get("/admin/").content
