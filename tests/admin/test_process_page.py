"""The page of the numbers of a process."""

import pytest
from django.test import Client

from django_durable_streams.models import Stream
from django_durable_streams.server import request_numbers
from django_durable_streams.stats import process_stats
from tests.admin.pages import client_of, staff, url

pytestmark = pytest.mark.django_db


@pytest.fixture
def client() -> Client:
    return client_of(staff("view"))


def test_the_page_shows_what_the_process_has_done(client: Client) -> None:
    Stream.objects.create(path="secret/plans", content_type="text/plain", data="hidden words")
    request_numbers.fast_path.add(("PUT", 201), 4711)
    request_numbers.fast_path_exits.add("chunked_body", 815)
    text = client.get(url("process")).content.decode()
    assert f"process {process_stats().process}" in text
    assert "<td>fast_path</td><td>create</td>" in text
    assert ">815<" in text
    assert "secret" not in text


def test_the_page_can_be_shown_before_anything_was_done(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_durable_streams.stats.all_numbers", list)
    text = client.get(url("process")).content.decode()
    assert "This process has served no stream yet." in text


def test_the_list_leads_to_the_page(client: Client) -> None:
    assert f'href="{url("process")}"' in client.get(url("changelist")).content.decode()


def test_the_page_changes_nothing(client: Client) -> None:
    assert client.post(url("process")).status_code == 405


def test_others_are_sent_to_the_login() -> None:
    response = Client().get(url("process"))
    assert (response.status_code, response["Location"].partition("?")[0]) == (302, "/admin/login/")
