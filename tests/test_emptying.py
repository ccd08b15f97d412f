"""The database is empty after each test, and as its apps have made it."""

import pytest
from django.contrib.auth.models import Permission, User

from django_durable_streams.models import Stream
from django_durable_streams.models.identity import DatabaseIdentity
from tests import emptying


@pytest.fixture(autouse=True)
def flushes(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The flushes that emptying has asked for. The rows of apps are known, as after an earlier test."""
    monkeypatch.setitem(emptying._created_by_apps, "default", emptying._rows_of_apps("default"))
    return []


def empty(flushes: list[str]) -> None:
    emptying.empty(["default"], lambda: flushes.append("default"))


def test_rows_go_and_the_database_gets_another_identity(flushes: list[str]) -> None:
    before = DatabaseIdentity.objects.get().value
    DatabaseIdentity.objects.update(link_rules_version=5)
    DatabaseIdentity.objects.create(pk=2)
    Stream.objects.create(path="a", content_type="text/plain", data="x")
    User.objects.create(username="ann")
    empty(flushes)
    assert flushes == []
    assert not Stream._base_manager.exists()
    assert not User.objects.exists()
    after = DatabaseIdentity.objects.get()
    assert (after.pk, after.link_rules_version) == (DatabaseIdentity.THE_ONE, 0)
    assert after.value != before


def test_a_flush_restores_what_a_test_has_taken_away(flushes: list[str]) -> None:
    DatabaseIdentity.objects.all().delete()
    empty(flushes)
    assert flushes == ["default"]


def test_a_flush_restores_changed_permissions(flushes: list[str]) -> None:
    Permission.objects.filter(codename="view_stream").update(name="changed")
    empty(flushes)
    assert flushes == ["default"]
