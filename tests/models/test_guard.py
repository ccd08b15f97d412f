"""Whatever way of writing Django has: none writes past the protocol, and none takes back what was acknowledged."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.apps import apps
from django.contrib.auth import get_user_model
from django.core import serializers
from django.core.management import call_command
from django.db import connection, models, transaction
from django.forms import modelform_factory
from django.template import Context, Template
from django.utils import timezone

from django_durable_streams.models import (
    Chunk,
    DatabaseIdentity,
    Producer,
    ReadOnlyModelError,
    RegistryEntry,
    Retention,
    SigningKey,
    StagedChunk,
    Stream,
    Subscription,
    SubscriptionLink,
)
from django_durable_streams.models.guard import GuardedModel, GuardedQuerySet

pytestmark = pytest.mark.django_db(transaction=True)


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


wait = async_to_sync(_awaited)

OWN: list[type[models.Model]] = [
    Stream,
    Chunk,
    StagedChunk,
    Producer,
    RegistryEntry,
    Retention,
    Subscription,
    SubscriptionLink,
    SigningKey,
]


def changed(stream: Stream) -> Stream:
    """An instance with values of its own in every column that somebody may want to edit."""
    stream.ttl, stream.content_type, stream.closed, stream.tail_position = 60, "text/html", True, 1
    return stream


def fixture(stream: Stream) -> str:
    """The stream, and what belongs to it, as it was when it was loaded."""
    rows = [stream, *Chunk.objects.filter(stream=stream), *Producer.objects.filter(stream=stream)]
    return serializers.serialize("json", rows)


def load(stream: Stream) -> None:
    with transaction.atomic():  # as `loaddata` does
        for row in serializers.deserialize("json", fixture(stream)):
            row.save()


def in_a_form(stream: Stream) -> None:
    form = modelform_factory(Stream, fields=["content_type", "ttl"])({"content_type": "a/b"}, instance=stream)
    assert form.is_valid()
    form.save()


WAYS: dict[str, Callable[[Stream], Any]] = {
    "save": lambda s: changed(s).save(),
    "save update_fields": lambda s: changed(s).save(update_fields=["ttl"]),
    "save force_update": lambda s: s.save(force_update=True),
    "save using": lambda s: s.save(using="default"),
    "save_base": lambda s: s.save_base(),
    "save_base raw": lambda s: s.save_base(raw=True),
    "asave": lambda s: wait(changed(s).asave()),
    "the base class's save": lambda s: models.Model.save(changed(s)),
    "the base class's save_base": lambda s: models.Model.save_base(changed(s)),
    "a fixture": load,
    "a form": in_a_form,
    "a new instance": lambda s: Stream(path="new").save(),
    "a new instance of the same path": lambda s: Stream(path=s.path).save(),
    "a new instance of the same id": lambda s: Stream(pk=s.pk, path=s.path).save(),
    "force_insert": lambda s: Stream(path="new").save(force_insert=True),
    "update": lambda s: Stream.objects.filter(pk=s.pk).update(ttl=60),
    "update of nothing": lambda s: Stream.objects.filter(pk=0).update(ttl=60),
    "aupdate": lambda s: wait(Stream.objects.filter(pk=s.pk).aupdate(tail_position=0)),
    "update of locked rows": lambda s: Stream.objects.select_for_update().filter(pk=s.pk).update(closed=True),
    "update by the base manager": lambda s: Stream._base_manager.filter(pk=s.pk).update(ttl=60),
    "_update": lambda s: Stream._base_manager.filter(pk=s.pk)._update([]),  # type: ignore[attr-defined]
    "_insert": lambda s: Stream._base_manager._insert([s], Stream._meta.concrete_fields),  # type: ignore[attr-defined]
    "_raw_delete": lambda s: Stream.objects.filter(pk=s.pk)._raw_delete("default"),
    "bulk_update": lambda s: Stream.objects.bulk_update([changed(s)], ["ttl", "tail_position"]),
    "abulk_update": lambda s: wait(Stream.objects.abulk_update([changed(s)], ["ttl"])),
    "bulk_create": lambda s: Stream.objects.bulk_create([Stream(path="new")]),
    "bulk_create over": lambda s: Stream.objects.bulk_create(
        [changed(s)], update_conflicts=True, update_fields=["tail_position"], unique_fields=["path"]
    ),
    "bulk_create by the base manager": lambda s: Stream._base_manager.bulk_create([Stream(path="new")]),
    "abulk_create": lambda s: wait(Stream.objects.abulk_create([Stream(path="new")])),
    "update_or_create": lambda s: Stream.objects.update_or_create(path=s.path, defaults={"content_type": "a/b"}),
    "aupdate_or_create": lambda s: wait(Stream.objects.aupdate_or_create(path=s.path, defaults={"ttl": 1})),
    "get_or_create": lambda s: Stream.objects.get_or_create(path="new"),
    "aget_or_create": lambda s: wait(Stream.objects.aget_or_create(path="new")),
    "forks.create": lambda s: s.forks.create(path="new"),
    "forks.add": lambda s: s.forks.add(Stream.objects.get(path="other")),
    "forks.add one by one": lambda s: s.forks.add(Stream.objects.get(path="other"), bulk=False),
    "forks.set": lambda s: s.forks.set([Stream.objects.get(path="other")]),
    "forks.clear": lambda s: s.forks.clear(),
    "forks.remove": lambda s: s.forks.remove(s.forks.get()),
    "forks.update": lambda s: s.forks.update(lineage=None),
    "chunks.create": lambda s: s.chunks.create(start=0, end=9, data=b"x"),
    "chunks.update": lambda s: s.chunks.update(data=b""),
    "chunks.delete": lambda s: s.chunks.all().delete(),
    "chunks.adelete": lambda s: wait(s.chunks.all().adelete()),
    "chunks.add": lambda s: s.chunks.add(Chunk(start=0, end=9, data=b""), bulk=False),
    "chunk.save": lambda s: s.chunks.first().save(),  # type: ignore[union-attr]
    "chunk.delete": lambda s: s.chunks.first().delete(),  # type: ignore[union-attr]
    "chunk.adelete": lambda s: wait(s.chunks.first().adelete()),  # type: ignore[union-attr]
    "new chunk": lambda s: Chunk(stream=s, start=0, end=9, data=b"").save(),
    "recent chunk": lambda s: StagedChunk(stream=s, start=0, end=9, data=b"", block=0).save(),
    "recent chunks": lambda s: StagedChunk.objects.bulk_create([StagedChunk(stream=s, start=0, end=9, block=0)]),
    "producers.create": lambda s: s.producers.create(producer_id="p", epoch=0, seq=9),
    "producers.update_or_create": lambda s: s.producers.update_or_create(producer_id="p", defaults={"epoch": 9}),
    "producers.update": lambda s: s.producers.update(seq=99),
    "producers.delete": lambda s: s.producers.all().delete(),
    "producer.save": lambda s: s.producers.first().save(),  # type: ignore[union-attr]
    "producer.delete": lambda s: s.producers.first().delete(),  # type: ignore[union-attr]
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.slow
def test_no_way_of_writing_takes_back_what_was_acknowledged(way: str) -> None:
    stream = Stream.objects.create(path="a", content_type="text/plain", data="one ")
    Stream.objects.create(path="other")
    stream.fork("fork")
    loaded = Stream.objects.get(path="a")
    stream.append("two ", producer=("job", 0, 0))
    before = Stream.objects.values().get(path="a")
    with pytest.raises(ReadOnlyModelError, match=r"[Cc]all|Leave them out"):
        WAYS[way](loaded)
    assert Stream.objects.values().get(path="a") == before
    stream.append("three", producer=("job", 0, 1))
    assert "".join(stream.read()) == "one two three"
    assert "".join(Stream.objects.get(path="fork").read()) == "one "
    assert not Stream.objects.filter(path="new").exists()


def test_every_model_of_the_app_is_guarded() -> None:
    own_models = set(apps.get_app_config("durable_streams").get_models()) - {
        DatabaseIdentity
    }  # has nothing of any stream
    assert own_models == set(OWN)
    for model in own_models:
        assert issubclass(model, GuardedModel)
        assert {"add", "change", "delete"} <= set(model.instead)
        for manager in (model._base_manager, model._default_manager):
            assert isinstance(manager.all(), GuardedQuerySet)


def test_every_method_of_django_that_writes_is_refused_or_is_the_protocols() -> None:
    """So that one which a later Django adds is seen here."""
    ours = {"create", "acreate", "delete", "adelete"}
    writing = {name for name, method in inspect.getmembers(models.QuerySet) if getattr(method, "alters_data", False)}
    asynchronous = {name for name in writing if name.startswith("a") and name[1:] in writing}
    for name in writing - asynchronous - ours:
        assert getattr(GuardedQuerySet, name) is not getattr(models.QuerySet, name), name
    for name in {"save", "save_base", "delete", "_save_table"}:
        assert getattr(GuardedModel, name) is not getattr(models.Model, name), name


@pytest.mark.parametrize("model", OWN)
def test_the_error_says_what_to_call(model: type[models.Model]) -> None:
    for kind, write in {
        "add": lambda: model().save(),
        "change": lambda: model._base_manager.update(),
        "delete": lambda: model._base_manager.all()._raw_delete("default"),
    }.items():
        with pytest.raises(ReadOnlyModelError) as refused:
            write()  # type: ignore[no-untyped-call]
        assert model.__name__ in str(refused.value)
        assert model.instead[kind] in str(refused.value)  # type: ignore[attr-defined]


def test_a_fixture_is_refused_whole_and_loads_without_streams(tmp_path: Any) -> None:
    Stream.objects.create(path="a", content_type="text/plain", data="one")
    get_user_model().objects.create(username="somebody")
    dump = tmp_path / "dump.json"
    call_command("dumpdata", "auth.user", "durable_streams", output=str(dump))
    get_user_model().objects.all().delete()
    Stream.objects.get().append(" two")
    with pytest.raises(ReadOnlyModelError, match="loaddata --exclude durable_streams"):
        call_command("loaddata", str(dump), verbosity=0)
    assert not get_user_model().objects.exists()
    call_command("loaddata", str(dump), exclude=["durable_streams"], verbosity=0)
    assert get_user_model().objects.exists()
    assert list(Stream.objects.get().read()) == ["one", " two"]


def test_what_only_reads_works_as_ever() -> None:
    stream = Stream.objects.create(path="a", content_type="text/plain", data="one")
    other = Stream.objects.get(path="a")
    other.append(" two")
    stream.refresh_from_db()
    assert stream.tail_position == 7
    assert stream.chunks.count() == 2
    assert stream.chunks.first().stream == stream  # type: ignore[union-attr]
    assert list(Stream.objects.only("path")) == [stream]
    with transaction.atomic():
        assert Stream.objects.select_for_update().get(path="a") == stream


def test_no_template_calls_what_changes_a_stream() -> None:
    stream = Stream.objects.create(path="a", content_type="text/plain", data="one")
    template = Template("{{ s.close }}{{ s.delete }}{{ s.aclose }}{{ s.adelete }}{{ s.set_lifetime }}{{ s.save }}")
    assert template.render(Context({"s": stream})) == ""
    stream.refresh_from_db()
    assert (stream.closed, stream.path) == (False, "a")


class TestLifetimes:
    """What `instance.ttl = None; instance.save()` was for."""

    def test_a_ttl_is_changed(self) -> None:
        stream = Stream.objects.create(path="a", ttl=60)
        stream.set_lifetime(ttl=3600)
        again = Stream.objects.get(path="a")
        assert (again.ttl, again.expires_at, stream.ttl) == (3600, None, 3600)
        assert again.deadline > timezone.now() + timedelta(seconds=3500)

    @pytest.mark.parametrize("beside", [0, 3])
    def test_a_stream_that_was_to_end_lives_on_and_the_other_way_round(self, beside: int) -> None:
        moment = timezone.now() + timedelta(hours=1)
        for number in range(beside):
            Stream.objects.create(path=f"beside/{number}")
        stream = Stream.objects.create(path="a", expires_at=moment)
        stream.set_lifetime()
        stored = Stream.objects.get(path="a")
        assert (stored.ttl, stored.expires_at, stored.deadline) == (None, None, None)
        stream.append(b"x")
        stream.set_lifetime(expires_at=moment)
        stream.append(b"y")
        stored = Stream.objects.get(path="a")
        assert (stored.ttl, stored.expires_at, stored.deadline) == (None, moment, moment)
        assert b"".join(stream.read()) == b"xy"

    def test_it_joins_the_callers_transaction(self) -> None:
        stream = Stream.objects.create(path="a", ttl=60)
        with transaction.atomic():
            stream.set_lifetime(ttl=120)
            stream.append(b"x")
            stream.set_lifetime(ttl=240)
            transaction.set_rollback(True)
        assert Stream.objects.get(path="a").ttl == 60
        wait(stream.aset_lifetime(ttl=120))
        assert Stream.objects.get(path="a").ttl == 120

    def test_a_put_that_repeats_the_old_one_is_refused(self) -> None:
        Stream.objects.create(path="a", ttl=60).set_lifetime(ttl=120)
        with pytest.raises(Exception, match="another"):
            Stream.objects.ensure("a", ttl=60)
        assert Stream.objects.ensure("a", ttl=120)[1] is False


def test_rows_can_be_locked_where_the_database_can() -> None:
    """What projects do to keep others out while they decide."""
    if connection.features.has_select_for_update:
        stream = Stream.objects.create(path="a")
        with transaction.atomic():
            Stream.objects.select_for_update().get(pk=stream.pk).append(b"x")
        assert b"".join(stream.read()) == b"x"
