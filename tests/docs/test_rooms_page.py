"""The receiver of docs/howto/rooms.md: a room and its stream go together, whichever is deleted and in whichever way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin import ModelAdmin, site
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
    result = make("Room", models.CASCADE)
    names: dict[str, Any] = {"Stream": Stream}
    exec(compile(RECEIVER, str(MODELS), "exec"), names)
    post_delete.connect(names["delete_messages"], sender=result)
    yield result
    post_delete.disconnect(names["delete_messages"], sender=result)


def by_the_admin(room: Any) -> None:
    ModelAdmin(room, site).delete_queryset(RequestFactory().post("/"), room.objects.all())


def prune(room: Any) -> None:
    moment = timezone.now() - timedelta(days=40)
    Stream.objects.unguarded().update(created_at=moment, appended_at=moment)
    assert "2 streams were deleted." in streams("prune", "rooms/*", "--idle", "30d", "--no-input")


WAYS: dict[str, Callable[[Any], object]] = {
    "one room": lambda room: [one.delete() for one in room.objects.all()],
    "a queryset": lambda room: room.objects.all().delete(),
    "one in the admin": lambda room: [
        ModelAdmin(room, site).delete_model(RequestFactory().post("/"), one) for one in room.objects.all()
    ],
    "many in the admin": by_the_admin,
    "one stream": lambda room: [one.stream.delete() for one in room.objects.all()],
    "a queryset of streams": lambda room: Stream.objects.filter(path__startswith="rooms/").delete(),
    "the command delete": lambda room: streams("delete", "rooms/*", "--no-input"),
    "the command prune": prune,
}


@pytest.mark.parametrize("way", WAYS)
def test_no_room_and_no_stream_is_left(room: Any, way: str) -> None:
    for number in range(2):
        room.objects.create(stream=Stream.objects.create(path=f"rooms/{number}", data=b"x"))
    Stream.objects.create(path="other")
    WAYS[way](room)
    assert (room.objects.count(), list(Stream.objects.alive().values_list("path", flat=True))) == (0, ["other"])
    streams("prune")
    assert Stream.objects.count() == 1
