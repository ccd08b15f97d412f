"""The page that deletes all streams that match the filters of the list, a part with each request."""

import re
from typing import Any

import pytest
from django.contrib.admin.models import DELETION, LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from django_durable_streams.admin import bulk_deletion
from django_durable_streams.admin.options import StreamAdmin
from django_durable_streams.models import Stream
from tests.admin.pages import client_of, staff, url

pytestmark = pytest.mark.django_db


def paths() -> set[str]:
    return {str(path) for path in Stream.objects.alive().values_list("path", flat=True)}


def newest() -> int:
    return int(Stream.objects.latest("pk").pk)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_deletion, "MAX_ROWS_PER_ACTION", 3)
    monkeypatch.setattr(bulk_deletion, "STREAMS_PER_TRANSACTION", 4)
    for number in range(10):
        Stream.objects.create(path=f"a/{number}", closed=number % 2 == 1)
    Stream.objects.create(path="b/1")


def follow_forms(client: Client, address: str) -> tuple[int, Any]:
    """Send the forms of the page as its script does. Return their number, and the response without one."""
    response = client.get(address)
    count = 0
    while response.status_code == 200:
        assert count < 20
        values = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', response.content.decode()))
        response = client.post(address, values)
        count += 1
    return count, response


def test_all_that_match_are_deleted_after_asking(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {"action": "delete_selected", "select_across": "1", "_selected_action": "1"}
    response = admin_client.post(f"{url('changelist')}?q=a/", chosen)
    assert response.status_code == 302
    address = response["location"]
    assert address == f"{url('delete_matching')}?q=a%2F"
    asked = admin_client.get(address).content.decode()
    assert "Delete all 10 streams that match the filter?" in asked
    assert "go-on.js" not in asked
    assert len(paths()) == 11
    monkeypatch.setattr(bulk_deletion, "STEP_SECONDS", 0.0)
    count, last = follow_forms(admin_client, address)
    assert count == 4  # of 4, 4 and 2 streams, and one that finds nothing
    assert last["location"] == f"{url('changelist')}?q=a%2F"
    assert paths() == {"b/1"}
    assert LogEntry.objects.filter(action_flag=DELETION).count() == 10
    assert "10 streams were deleted." in admin_client.get(last["location"]).content.decode()


def test_a_request_shows_how_far_it_is(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_deletion, "STEP_SECONDS", 0.0)
    shown = admin_client.post(f"{url('delete_matching')}?q=a/", {"count": "10", "until": newest()}).content.decode()
    assert "4 streams are deleted." in shown
    assert '<progress value="4" max="10">' in shown
    assert "go-on.js" in shown
    assert len(paths()) == 7


def test_the_filters_are_those_of_the_list(admin_client: Client) -> None:
    follow_forms(admin_client, f"{url('delete_matching')}?state=closed")
    assert paths() == {"b/1", *(f"a/{number}" for number in range(0, 10, 2))}
    assert admin_client.get(f"{url('delete_matching')}?nonsense__x=1").status_code == 302


def test_streams_that_are_made_after_the_confirmation_stay(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_deletion, "STEP_SECONDS", 0.0)
    address = f"{url('delete_matching')}?q=a/"
    asked = admin_client.get(address).content.decode()
    values = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', asked))
    Stream.objects.create(path="a/new")
    response = admin_client.post(address, values)
    while response.status_code == 200:
        values = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', response.content.decode()))
        for path in ("a/0", "a/1"):  # as clients do whose stream is gone
            Stream.objects.ensure(path)
        response = admin_client.post(address, values)
    assert paths() == {"a/0", "a/1", "a/new", "b/1"}


@pytest.mark.parametrize("values", [{}, {"until": ""}, {"until": "-1"}, {"until": "x"}, {"until": "9" * 30}])
def test_a_form_of_no_confirmation_deletes_nothing(admin_client: Client, values: dict[str, str]) -> None:
    assert admin_client.post(f"{url('delete_matching')}?q=a/", values).status_code == 302
    assert len(paths()) == 11


@pytest.mark.parametrize("name", ["state", "kind", "forks", "expiry"])
def test_a_filter_without_meaning_is_not_all_streams(admin_client: Client, name: str) -> None:
    address = f"{url('delete_matching')}?{name}=nothing"
    assert admin_client.get(address).status_code == 302
    assert admin_client.post(address, {"until": newest()}).status_code == 302
    assert len(paths()) == 11
    assert admin_client.get(f"{url('changelist')}?{name}=nothing").status_code == 302


def test_few_streams_have_the_usual_confirmation(admin_client: Client) -> None:
    stream = Stream.objects.get(path="b/1")
    chosen = {"action": "delete_selected", "select_across": "1", "_selected_action": str(stream.pk)}
    response = admin_client.post(f"{url('changelist')}?q=b/", chosen)
    assert response.status_code == 200
    assert "Are you sure" in response.content.decode()


def test_the_permission_is_asked_for(client: Client) -> None:
    viewer = client_of(staff("view"))
    for method in (viewer.get, viewer.post):
        assert method(url("delete_matching")).status_code == 403
    assert client.get(url("delete_matching")).status_code == 302  # to the login
    assert len(paths()) == 11


def test_streams_that_the_user_may_not_delete_are_kept(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def may_delete(pages: StreamAdmin, request: Any, stream: Stream | None = None) -> bool:
        return stream is None or stream.path != "a/3"

    monkeypatch.setattr(StreamAdmin, "has_delete_permission", may_delete)
    _, last = follow_forms(admin_client, f"{url('delete_matching')}?q=a/")
    assert paths() == {"a/3", "b/1"}
    assert "1 stream was kept" in admin_client.get(last["location"]).content.decode()


def test_a_soft_deleted_stream_is_left_and_forks_keep_their_data(admin_client: Client) -> None:
    source = Stream.objects.get(path="a/2")
    source.append(b"data")
    fork = source.fork("fork")
    for _ in range(2):
        follow_forms(admin_client, f"{url('delete_matching')}?q=a/")
    assert paths() == {"b/1", "fork"}
    assert list(fork.read()) == [b"data"]


def test_the_number_of_queries_does_not_depend_on_the_streams(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_deletion, "STREAMS_PER_TRANSACTION", 500)

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            admin_client.post(f"{url('delete_matching')}?q=a/", {"until": newest()})
        return len([query for query in captured if not query["sql"].startswith("UPDATE")])

    few = queries()
    for number in range(60):
        Stream.objects.create(path=f"a/{number}")
    assert queries() <= few
