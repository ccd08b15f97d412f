"""Rows of a project that refer to streams follow their `on_delete`, however a stream comes to its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import models
from django.db.models.deletion import ProtectedError, RestrictedError
from django.db.models.signals import post_delete, pre_delete
from django.utils import timezone

from django_durable_streams.api import deletion, transactions
from django_durable_streams.models import Stream
from django_durable_streams.protocol.errors import StreamNotFound
from django_durable_streams.store.operations import Delete
from django_durable_streams.store.upkeep import removal
from tests.referring import LABEL, Make

pytestmark = pytest.mark.django_db(transaction=True)


def test_cascade_deletes_them_in_the_same_transaction(make: Make) -> None:
    note = make("Note", models.CASCADE)
    kept, gone = Stream.objects.create(path="kept"), Stream.objects.create(path="gone", data=b"x")
    note.objects.create(stream=kept)
    note.objects.create(stream=gone)
    assert gone.delete() == (2, {"durable_streams.Stream": 1, f"{LABEL}.Note": 1})
    assert [row.stream for row in note.objects.all()] == [kept]
    assert removal.purge("default")
    while removal.purge("default"):
        pass
    assert Stream.objects.get() == kept


def test_set_null_lets_go(make: Make) -> None:
    note = make("Note", models.SET_NULL)
    stream = Stream.objects.create(path="a")
    note.objects.create(stream=stream)
    stream.delete()
    assert note.objects.get().stream_id is None


@pytest.mark.parametrize(("on_delete", "error"), [(models.PROTECT, ProtectedError), (models.RESTRICT, RestrictedError)])
def test_protect_forbids_it_and_nothing_is_deleted(make: Make, on_delete: Any, error: type[Exception]) -> None:
    note = make("Note", on_delete)
    Stream.objects.create(path="a/1")
    protected = Stream.objects.create(path="a/2", data=b"x")
    note.objects.create(stream=protected)
    with pytest.raises(error):
        protected.delete()
    with pytest.raises(error):
        Stream.objects.filter(path__startswith="a/").delete()
    assert Stream.objects.alive().count() == 2
    note.objects.all().delete()
    assert Stream.objects.filter(path__startswith="a/").delete()[0] == 2
    assert not Stream.objects.alive().exists()


def test_what_is_deleted_too_does_not_restrict(make: Make) -> None:
    parent = make("Parent", models.CASCADE)
    child = make("Child", models.RESTRICT, parent=models.ForeignKey(parent, models.CASCADE, related_name="+"))
    stream = Stream.objects.create(path="a")
    child.objects.create(stream=stream, parent=parent.objects.create(stream=stream))
    stream.delete()
    assert not any(rows.exists() for rows in (child.objects, parent.objects, Stream.objects.alive()))


def test_a_stream_with_forks_keeps_its_data_for_them(make: Make) -> None:
    note = make("Note", models.CASCADE)
    source = Stream.objects.create(path="a", content_type="text/plain", data="one")
    fork = source.fork("b")
    note.objects.create(stream=source)
    note.objects.create(stream=fork)
    source.delete()
    assert [row.stream for row in note.objects.all()] == [fork]
    assert list(fork.read()) == ["one"]


@pytest.mark.parametrize("how", ["by HTTP", "by expiry"])
def test_they_follow_when_the_row_goes_where_no_python_code_deletes(make: Make, how: str) -> None:
    note = make("Note", models.CASCADE)
    stream = Stream.objects.create(path="a", data=b"x", ttl=60)
    note.objects.create(stream=stream)
    if how == "by HTTP":
        transactions.apply(Delete("a"), "default")
    else:
        Stream.objects.filter(path="a").unguarded().update(deadline=timezone.now())
        removal.expire("default")
    while removal.purge("default"):
        pass
    assert not any(rows.exists() for rows in (note.objects, Stream.objects))


def test_a_project_that_deletes_its_own_rows_leaves_streams_alone(make: Make) -> None:
    note = make("Note", models.CASCADE)
    stream = Stream.objects.create(path="a", data=b"x")
    note.objects.create(stream=stream).delete()
    note.objects.create(stream=stream)
    note.objects.all().delete()
    assert list(stream.read()) == [b"x"]


def _end_by_clients() -> None:
    for path in ("a", "b"):
        transactions.apply(Delete(path), "default")
    while removal.purge("default"):
        pass


def _expire() -> None:
    Stream.objects.unguarded().update(deadline=timezone.now())
    removal.expire("default")
    while removal.purge("default"):
        pass


ENDS: dict[str, Callable[[Any], object]] = {
    "of one stream": lambda note: [stream.delete() for stream in Stream.objects.alive()],
    "of many streams": lambda note: Stream.objects.alive().delete(),
    "of unused streams": lambda note: deletion.delete_unchanged(
        [(stream.path or "", stream.pk, stream.tail_position) for stream in Stream.objects.all()], "default"
    ),
    "of rows": lambda note: note.objects.all().delete(),
    "by HTTP": lambda note: _end_by_clients(),
    "by expiry": lambda note: _expire(),
}


@pytest.mark.parametrize("signal", [pre_delete, post_delete])
@pytest.mark.parametrize("end", ENDS)
def test_a_receiver_for_a_row_may_delete_the_stream_in_whichever_way_the_deletion_began(
    make: Make, end: str, signal: Any
) -> None:
    note = make("Note", models.CASCADE)
    for path in ("a", "b"):
        note.objects.create(stream=Stream.objects.create(path=path))

    def delete_stream(instance: Any, **kwargs: Any) -> None:
        instance.stream.delete()

    signal.connect(delete_stream, sender=note)
    try:
        ENDS[end](note)
    finally:
        signal.disconnect(delete_stream, sender=note)
    assert not note.objects.exists()
    assert not Stream.objects.alive().exists()


def test_a_receiver_for_a_row_cannot_delete_a_stream_that_has_gone_before(make: Make) -> None:
    note = make("Note", models.CASCADE)
    stream, gone = Stream.objects.create(path="a"), Stream.objects.create(path="b")
    note.objects.create(stream=stream)
    Stream.objects.get(path="b").delete()

    def delete_stream(**kwargs: Any) -> None:
        gone.delete()

    post_delete.connect(delete_stream, sender=note)
    try:
        with pytest.raises(StreamNotFound):
            stream.delete()
    finally:
        post_delete.disconnect(delete_stream, sender=note)
    assert note.objects.get().stream == stream
    assert Stream.objects.alive().get() == stream
