"""The guard holds for a project's models that inherit from those of the app, whichever managers they have."""

from __future__ import annotations

import pickle
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import models
from django.db.migrations.state import ModelState
from django.db.models import Count
from django.test.utils import isolate_apps

from django_durable_streams.checks.models import check_inheritance
from django_durable_streams.models import Chunk, Producer, ReadOnlyModelError, Stream, StreamQuerySet
from django_durable_streams.models.guard import GuardedQuerySet, guarded_queryset_class

pytestmark = pytest.mark.django_db(transaction=True)

LABEL = "sessions"
numbers = count()


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


wait = async_to_sync(_awaited)


class Filtering(models.Manager[Any]):
    def get_queryset(self) -> Any:
        return super().get_queryset().filter(path__startswith="room")


class OwnQuerySet(models.QuerySet[Any]):
    def rooms(self) -> Any:
        return self.filter(path__startswith="room")

    def update(self, **values: Any) -> int:
        return super().update(**values)


class Documented(models.Manager[Any]):
    """As Django's documentation shows it."""

    def get_queryset(self) -> Any:
        return OwnQuerySet(self.model, using=self._db)

    def rooms(self) -> Any:
        return self.get_queryset().rooms()


class Migrated(models.Manager[Any]):
    use_in_migrations = True


MANAGERS: dict[str, Callable[[], Any]] = {
    "a plain manager": models.Manager,
    "a manager that filters": Filtering,
    "a manager with a queryset of its own": Documented,
    "a queryset as a manager": OwnQuerySet.as_manager,
    "a manager from a queryset": models.Manager.from_queryset(OwnQuerySet),
    "the app's queryset as a manager": StreamQuerySet.as_manager,
}

WRITES: dict[str, Callable[[Any], Any]] = {
    "update": lambda rows: rows.update(ttl=1),
    "update of a filter": lambda rows: rows.filter(path="room").update(ttl=1),
    "aupdate": lambda rows: wait(rows.aupdate(ttl=1)),
    "update of an annotated query": lambda rows: rows.annotate(n=Count("forks")).update(ttl=1),
    "_update": lambda rows: rows._update([]),
    "bulk_update": lambda rows: rows.bulk_update([rows.first()], ["ttl"]),
    "bulk_create": lambda rows: rows.bulk_create([rows.model(path="new")]),
    "abulk_create": lambda rows: wait(rows.abulk_create([rows.model(path="new")])),
    "_insert": lambda rows: rows._insert([rows.first()], rows.model._meta.concrete_fields),
    "get_or_create": lambda rows: rows.get_or_create(path="new"),
    "update_or_create": lambda rows: rows.update_or_create(path="room", defaults={"ttl": 1}),
    "_raw_delete": lambda rows: rows.all()._raw_delete("default"),
    "save": lambda rows: rows.first().save(),
    "using": lambda rows: rows.using("default").update(ttl=1),
    "db_manager": lambda rows: rows.model.objects.db_manager("default").update(ttl=1),
    "none": lambda rows: rows.none().update(ttl=1),
    "the base manager": lambda rows: rows.model._base_manager.update(ttl=1),
    "the default manager": lambda rows: rows.model._default_manager.update(ttl=1),
    "a slice": lambda rows: rows.all()[:1].update(ttl=1),
    "values": lambda rows: rows.values("path").update(ttl=1),
}


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    with isolate_apps("django.contrib.sessions"):
        yield


def proxy_of(model: Any, *bases: Any, **members: Any) -> Any:
    meta = {"app_label": LABEL, "proxy": True, **members.pop("meta", {})}
    return type(
        f"Room{next(numbers)}", (*bases, model), {"Meta": type("Meta", (), meta), "__module__": __name__, **members}
    )


def assert_refused(write: Callable[[], Any]) -> None:
    before = list(Stream.objects.order_by("pk").values())
    with pytest.raises(ReadOnlyModelError, match=r"[Cc]all"):
        write()
    assert list(Stream.objects.order_by("pk").values()) == before


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("manager", MANAGERS)
@pytest.mark.slow
def test_no_manager_of_a_proxy_writes_past_the_guard(manager: str, write: str) -> None:
    Stream.objects.create(path="room")
    room = proxy_of(Stream, objects=MANAGERS[manager]())
    assert_refused(lambda: WRITES[write](room.objects))


@pytest.mark.parametrize("manager", MANAGERS)
@pytest.mark.parametrize("how", ["further", "default", "base", "inherited", "of an abstract base", "added later"])
def test_wherever_the_manager_comes_from(manager: str, how: str) -> None:
    Stream.objects.create(path="room")
    if how == "inherited":
        room = proxy_of(proxy_of(Stream, plain=MANAGERS[manager]()), meta={"proxy": True})
    elif how == "of an abstract base":
        members = {"Meta": type("Meta", (), {"abstract": True}), "__module__": __name__, "plain": MANAGERS[manager]()}
        room = proxy_of(Stream, type("Brought", (models.Model,), members))
    elif how == "added later":
        room = proxy_of(Stream)
        room.add_to_class("plain", MANAGERS[manager]())
    else:
        meta = {} if how == "further" else {f"{how}_manager_name": "plain"}
        room = proxy_of(Stream, plain=MANAGERS[manager](), meta=meta)
    for kind in (room.plain, room._default_manager, room._base_manager):
        assert isinstance(kind.all(), GuardedQuerySet)
        assert_refused(lambda kind=kind: kind.update(ttl=1))


@pytest.mark.parametrize("manager", MANAGERS)
def test_related_and_prefetched_rows_are_guarded(manager: str) -> None:
    source = Stream.objects.create(path="room")
    source.fork("fork")
    room = proxy_of(Stream, plain=MANAGERS[manager]())
    fetched = Stream.objects.prefetch_related(models.Prefetch("forks", queryset=room.plain.all())).get(path="room")
    for rows in (
        fetched.forks.all(),
        source.forks,
        source.forks(manager="objects"),
        room.plain.get(pk=source.pk).forks,
    ):
        assert_refused(lambda rows=rows: rows.update(ttl=1))
        assert_refused(lambda rows=rows: rows.all()._raw_delete("default"))
        assert_refused(lambda rows=rows: rows.all().bulk_create([Stream(path="new")]))


@pytest.mark.parametrize("model", [Chunk, Producer])
def test_chunks_and_producers_are_guarded_the_same_way(model: Any) -> None:
    stream = Stream.objects.create(path="room", content_type="text/plain")
    stream.append("one", producer=("p", 0, 0))
    room = proxy_of(model, objects=models.Manager())
    assert room.objects.count() == 1
    before = list(model.objects.values())
    with pytest.raises(ReadOnlyModelError):
        room.objects.update(stream=None)
    with pytest.raises(ReadOnlyModelError):
        room.objects.all()._raw_delete("default")
    assert list(model.objects.values()) == before


def test_a_proxys_managers_still_read_and_keep_their_own_methods() -> None:
    for path in ("room", "hall"):
        Stream.objects.create(path=path, content_type="text/plain", data=path)
    for manager in MANAGERS.values():
        room = proxy_of(Stream, objects=manager())
        (room_stream,) = room.objects.filter(path="room")
        assert type(room_stream) is room
        assert [*room_stream.read()] == ["room"]
    documented = proxy_of(Stream, objects=Documented())
    assert [stream.path for stream in documented.objects.rooms()] == ["room"]
    assert [stream.path for stream in documented.objects.all().rooms().reverse()] == ["room"]
    room_stream.append("x")
    assert [*Stream.objects.prefetch_related("chunks").get(path="room").read()] == ["room", "x"]


def test_a_guarded_queryset_can_be_pickled() -> None:
    """As projects do that cache querysets."""
    Stream.objects.create(path="room")
    for kind in (OwnQuerySet, models.QuerySet, StreamQuerySet):
        rows = pickle.loads(pickle.dumps(guarded_queryset_class(kind)(Stream).filter(path="room")))
        assert isinstance(rows, kind)
        assert [stream.path for stream in rows] == ["room"]
        assert_refused(lambda rows=rows: rows.update(ttl=1))


def test_migrations_know_the_managers_by_their_own_classes() -> None:
    room = proxy_of(Stream, objects=Migrated())
    ((name, manager),) = ModelState.from_model(room).managers
    assert name == "objects"
    assert manager.deconstruct()[1] == f"{__name__}.Migrated"


def test_a_model_with_a_table_of_its_own_is_an_error_of_the_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    meta = type("Meta", (), {"app_label": LABEL})
    members = {"objects": models.Manager(), "Meta": meta, "__module__": __name__}
    room: Any = type("Room", (Stream,), members)
    monkeypatch.setattr("django_durable_streams.checks.models.apps", room._meta.apps)
    (message,) = check_inheritance(None)
    assert (message.id, message.obj) == ("durable_streams.E008", room)
    writes: list[Callable[[], Any]] = [
        lambda: room.objects.update(ttl=1),
        lambda: room(path="a").save(),
        lambda: room.objects.create(),
    ]
    for write in writes:
        with pytest.raises(ReadOnlyModelError):
            write()


def test_a_proxy_is_no_error_of_the_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    room = proxy_of(Stream, objects=models.Manager())
    monkeypatch.setattr("django_durable_streams.checks.models.apps", room._meta.apps)
    assert check_inheritance(None) == []


NO_STREAMS: dict[str, Callable[[Any], Any]] = {
    "values": lambda rows: rows.values("path"),
    "values of nothing": lambda rows: rows.values(),
    "values_list": lambda rows: rows.values_list("path", "ttl"),
    "a flat list": lambda rows: rows.values_list("pk", flat=True),
    "named rows": lambda rows: rows.values_list("path", named=True),
    "dates": lambda rows: rows.dates("created_at", "day"),
    "datetimes": lambda rows: rows.datetimes("created_at", "hour"),
    "groups": lambda rows: rows.values("content_type").annotate(n=Count("pk")),
    "a filter of values": lambda rows: rows.values("path").filter(path="a"),
    "a slice": lambda rows: rows.all()[:1],
    "a union": lambda rows: rows.union(rows.filter(path="a")),
    "an intersection": lambda rows: rows.intersection(rows.all()),
}

STREAMS: dict[str, Callable[[Any], Any]] = {
    "annotate": lambda rows: rows.annotate(n=Count("forks")).filter(n=0),
    "alias": lambda rows: rows.alias(n=Count("forks")).filter(n=0),
    "only": lambda rows: rows.only("path"),
    "defer": lambda rows: rows.defer("path"),
    "order": lambda rows: rows.order_by("-path").reverse(),
    "distinct": lambda rows: rows.distinct(),
    "select_related": lambda rows: rows.select_related("source"),
    "prefetch_related": lambda rows: rows.prefetch_related("chunks", "forks"),
    "a combination": lambda rows: rows.filter(path="a") | rows.filter(path="b"),
    "complex filters": lambda rows: rows.filter(pk__in=rows.values("pk")),
}


@pytest.mark.parametrize("how", NO_STREAMS)
def test_a_query_that_yields_no_streams_cannot_be_deleted_and_says_what_can(how: str) -> None:
    Stream.objects.create(path="a")
    rows = NO_STREAMS[how](Stream.objects)
    for delete in (rows.delete, lambda: wait(rows.adelete())):
        with pytest.raises(TypeError, match=r"Stream.objects.filter"):
            delete()
    assert Stream.objects.alive().count() == 1


@pytest.mark.parametrize("how", NO_STREAMS)
@pytest.mark.parametrize("write", ["update", "bulk_update", "bulk_create", "get_or_create", "update_or_create"])
def test_nor_is_it_written_otherwise(how: str, write: str) -> None:
    Stream.objects.create(path="a")
    arguments: dict[str, tuple[Any, ...]] = {
        "bulk_update": ([Stream.objects.get(path="a")], ["ttl"]),
        "bulk_create": ([Stream(path="new")],),
    }
    with pytest.raises(ReadOnlyModelError, match=r"[Cc]all"):
        getattr(NO_STREAMS[how](Stream.objects), write)(*arguments.get(write, ()))


@pytest.mark.parametrize("how", STREAMS)
def test_a_query_for_streams_is_deleted_however_it_is_made(how: str) -> None:
    for path in ("a", "b"):
        Stream.objects.create(path=path, data=b"x")
    assert STREAMS[how](Stream.objects).delete()[0] == 2
    assert not Stream.objects.alive().exists()
