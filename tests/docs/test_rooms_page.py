"""The receiver of docs/howto/rooms.md: a stream goes with its room in whichever way, and no room with its stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin import ModelAdmin, site
from django.core.management import CommandError
from django.db import models
from django.db.models.signals import post_delete
from django.test import RequestFactory
from django.utils import timezone

from django_durable_streams.models import Stream
from tests.docs.pages import ROOT, blocks
from tests.management.commands import streams
from tests.referring import Make

(MODELS,) = [block for block in blocks(ROOT / "docs" / "howto" / "rooms.md", "python") if "class Room(" in block.text]
RECEIVER = MODELS.text.partition("@receiver(post_delete, sender=Room)\n")[2]

pytestmark = pytest.mark.django_db


@pytest.fixture
def room(make: Make) -> Iterator[Any]:
    """The model of the page, with its receiver."""
    result = make("Room", models.PROTECT)
    names: dict[str, Any] = {"Stream": Stream}
    exec(compile(RECEIVER, str(MODELS), "exec"), names)
    post_delete.connect(names["delete_messages"], sender=result)
    yield result
    post_delete.disconnect(names["delete_messages"], sender=result)


def by_the_admin(room: Any) -> None:
    ModelAdmin(room, site).delete_queryset(RequestFactory().post("/"), room.objects.all())


WAYS: dict[str, Callable[[Any], object]] = {
    "one room": lambda room: [one.delete() for one in room.objects.all()],
    "a queryset": lambda room: room.objects.all().delete(),
    "one in the admin": lambda room: [
        ModelAdmin(room, site).delete_model(RequestFactory().post("/"), one) for one in room.objects.all()
    ],
    "many in the admin": by_the_admin,
}


def delete_streams(room: Any) -> None:
    with pytest.raises(models.ProtectedError):
        Stream.objects.filter(path__startswith="rooms/").delete()


def delete_each_stream(room: Any) -> None:
    for one in room.objects.all():
        with pytest.raises(models.ProtectedError):
            one.stream.delete()


def delete_by_the_command(room: Any) -> None:
    with pytest.raises(CommandError, match="protect"):
        streams("delete", "rooms/*", "--no-input")


def prune(room: Any) -> None:
    moment = timezone.now() - timedelta(days=40)
    Stream.objects.unguarded().update(created_at=moment, appended_at=moment)
    assert "2 streams are left, because rows of" in streams("prune", "rooms/*", "--idle", "30d", "--no-input")


WAYS_OF_STREAMS: dict[str, Callable[[Any], object]] = {
    "one stream": delete_each_stream,
    "a queryset of streams": delete_streams,
    "the command delete": delete_by_the_command,
    "the command prune": prune,
}


def fill(room: Any) -> None:
    for number in range(2):
        room.objects.create(stream=Stream.objects.create(path=f"rooms/{number}", data=b"x"))
    Stream.objects.create(path="other")


@pytest.mark.parametrize("way", WAYS)
def test_no_stream_of_a_deleted_room_is_left(room: Any, way: str) -> None:
    fill(room)
    WAYS[way](room)
    assert (room.objects.count(), list(Stream.objects.alive().values_list("path", flat=True))) == (0, ["other"])
    streams("prune")
    assert Stream.objects.count() == 1


def test_the_model_of_the_page_is_the_one_that_is_tested() -> None:
    assert "models.ForeignKey(Stream, on_delete=models.PROTECT" in MODELS.text


@pytest.mark.parametrize("way", WAYS_OF_STREAMS)
def test_no_room_goes_with_its_stream(room: Any, way: str) -> None:
    fill(room)
    WAYS_OF_STREAMS[way](room)
    assert room.objects.count() == 2
    assert Stream.objects.alive().count() == 3
    assert [b"".join(one.stream.read()) for one in room.objects.order_by("pk")] == [b"x", b"x"]
