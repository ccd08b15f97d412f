"""Where a router has models read from a replica: streams are read where they are written, as that may be behind."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import router
from django.test import Client
from django.utils.connection import ConnectionDoesNotExist

from django_durable_streams.models import Stream
from tests.admin.pages import url

pytestmark = pytest.mark.django_db(transaction=True)


class StreamsFromReplica:
    """Has streams read from a database that is not there, so that whoever does is found out."""

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        """Return the replica, for the models of this app."""
        return "replica" if model._meta.app_label == "durable_streams" else None


@pytest.fixture
def source() -> Stream:
    result = Stream.objects.create(path="a", content_type="text/plain", data="one")
    result.append("two", producer=("p", 0, 0))
    return result


@pytest.fixture(autouse=True)
def replica(source: Stream, admin_client: Client, settings: Any) -> None:
    settings.DATABASE_ROUTERS = ["tests.test_replicas.StreamsFromReplica"]


def test_the_replica_would_be_noticed(source: Stream) -> None:
    assert router.db_for_read(Stream) == "replica"
    with pytest.raises(ConnectionDoesNotExist):
        Stream.objects.get(path="a")


CALLS: dict[str, Callable[[Stream], object]] = {
    "create": lambda s: Stream.objects.create(path="new", data=b"x"),
    "ensure": lambda s: Stream.objects.ensure("a", content_type="text/plain"),
    "append_many": lambda s: s.append_many(["x", "y"]),
    "fork": lambda s: list(s.fork("b").fork("c", data="x").read()),
    "offsets": lambda s: [fork := s.fork("b"), fork.next_offset, fork.offset_at(1)],
    "tail": lambda s: list(s.tail(timeout=0)),
    "set_lifetime": lambda s: s.set_lifetime(ttl=50),
    "close": lambda s: s.close(),
    "delete": lambda s: s.delete(),
    "delete some": lambda s: Stream.objects.filter(path="a").delete(),
}


@pytest.mark.parametrize("name", CALLS)
def test_python(source: Stream, name: str) -> None:
    CALLS[name](source)


PAGES = ["change", "append", "close", "fork", "message", "download", "producers", "tail", "history", "delete"]


@pytest.mark.parametrize("name", PAGES)
def test_pages_of_a_stream(admin_client: Client, source: Stream, name: str) -> None:
    for stream in (source, source.fork("b")):
        assert admin_client.get(f"{url(name, stream)}?from=0").status_code in (200, 302)


@pytest.mark.parametrize("query", ["", "state=open", "forks=has", "forks=none", "kind=text", "expiry=never", "q=a"])
def test_lists(admin_client: Client, source: Stream, query: str) -> None:
    source.fork("b")
    assert admin_client.get(f"{url('changelist')}?{query}").status_code == 200


@pytest.mark.parametrize("action", ["close_selected", "delete_selected"])
def test_actions(admin_client: Client, source: Stream, action: str) -> None:
    for confirmed in ({}, {"post": "yes"}):
        data = {"action": action, "_selected_action": str(source.pk), **confirmed}
        assert admin_client.post(url("changelist"), data).status_code in (200, 302)
