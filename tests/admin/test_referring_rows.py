"""Deleting streams in the admin where a project's own rows refer to them: as Django's admin does everywhere."""

from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.db import models
from django.test import Client

from django_durable_streams.models import Stream
from tests.admin.pages import url
from tests.referring import Make

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def client() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("ada"))
    return client


def delete(client: Client, how: str, stream: Stream, **data: str) -> Any:
    """Ask for a stream's deletion on its own page, or among those that are selected."""
    if how == "page":
        address, fields = url("delete", stream), {}
        if not data:
            return client.get(address)
    else:
        address, fields = url("changelist"), {"action": "delete_selected", "_selected_action": str(stream.pk)}
    return client.post(address, {**fields, **data})


def keep_from_deleting(monkeypatch: pytest.MonkeyPatch, model: type[models.Model]) -> None:
    """Register a model, with an admin in which nobody may delete its rows."""
    refusal = dict.fromkeys(("has_delete_permission", "has_module_permission"), lambda *_: False)
    pages = type("Pages", (admin.ModelAdmin,), refusal)
    monkeypatch.setitem(admin.site._registry, model, pages(model, admin.site))


@pytest.mark.parametrize("how", ["page", "selected"])
def test_rows_that_go_with_a_stream_are_named(make: Make, client: Client, how: str) -> None:
    note = make("Note", models.CASCADE)
    stream = Stream.objects.create(path="a")
    row = note.objects.create(stream=stream)
    assert f"Note: {row}" in delete(client, how, stream).content.decode()
    assert delete(client, how, stream, post="yes").status_code == 302
    assert not note.objects.exists()
    assert not Stream.objects.alive().exists()


@pytest.mark.parametrize("how", ["page", "selected"])
def test_who_may_not_delete_rows_that_go_with_a_stream_may_not_delete_it(
    make: Make, client: Client, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = make("Note", models.CASCADE)
    keep_from_deleting(monkeypatch, note)
    stream = Stream.objects.create(path="a")
    note.objects.create(stream=stream)
    assert "note" in delete(client, how, stream).content.decode()
    assert delete(client, how, stream, post="yes").status_code == 403
    assert note.objects.exists()
    assert Stream.objects.alive().exists()


@pytest.mark.parametrize("on_delete", [models.PROTECT, models.RESTRICT])
@pytest.mark.parametrize("how", ["page", "selected"])
def test_a_row_that_protects_a_stream_is_named(make: Make, client: Client, how: str, on_delete: Any) -> None:
    note = make("Note", on_delete)
    stream = Stream.objects.create(path="a")
    row = note.objects.create(stream=stream)
    for data in ({}, {"post": "yes"}):
        answer = delete(client, how, stream, **data)
        assert answer.status_code == 200
        assert f"Note: {row}" in answer.content.decode()
    assert Stream.objects.alive().exists()


@pytest.mark.parametrize("how", ["page", "selected"])
def test_a_row_that_has_come_meanwhile_is_no_error_of_the_server(
    make: Make, client: Client, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = make("Note", models.PROTECT)
    stream = Stream.objects.create(path="a")
    note.objects.create(stream=stream)
    pages = type(admin.site._registry[Stream])
    monkeypatch.setattr(pages, "get_deleted_objects", lambda *_: ([], {}, set(), []))
    answer = delete(client, how, stream, post="yes")
    assert answer.status_code == 302
    assert "protected rows refer to it" in client.get(url("changelist")).content.decode()
    assert Stream.objects.alive().exists()
