"""The models of migrations, which `RunPython` gets, only read the tables of this app."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, migrations, models
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.state import ModelState, ProjectState
from django.db.migrations.writer import MigrationWriter

from django_durable_streams.models import Chunk, ReadOnlyModelError, RegistryEntry, Stream
from django_durable_streams.models.guard import ReadOnlyRows
from tests.models.test_guard import OWN

pytestmark = pytest.mark.django_db(transaction=True)

HISTORICAL = MigrationLoader(None).project_state().apps
HistoricalStream: Any = HISTORICAL.get_model("durable_streams", "Stream")

WRITES: dict[str, Callable[[Any], object]] = {
    "save": lambda row: row.save(),
    "save of one column": lambda row: row.save(update_fields=["ttl"]),
    "save_base": lambda row: row.save_base(raw=True),
    "delete": lambda row: row.delete(),
    "create": lambda row: type(row).objects.create(path="new"),
    "a new row": lambda row: type(row)(path="new").save(),
    "get_or_create": lambda row: type(row).objects.get_or_create(path="new"),
    "update_or_create": lambda row: type(row).objects.update_or_create(path="a", defaults={"ttl": 60}),
    "bulk_create": lambda row: type(row).objects.bulk_create([type(row)(path="new")]),
    "bulk_update": lambda row: type(row).objects.bulk_update([row], ["ttl"]),
    "update": lambda row: type(row).objects.update(ttl=60),
    "delete of many": lambda row: type(row).objects.all().delete(),
    "by the base manager": lambda row: type(row)._base_manager.update(ttl=60),
    "by a new manager": lambda row: type(row).forks.rel.related_model.objects.filter(pk=row.pk).update(ttl=60),
}


@pytest.mark.parametrize("way", WRITES)
def test_no_way_of_writing_passes(way: str) -> None:
    Stream.objects.create(path="a", content_type="text/plain", data="one")
    before = list(Stream.objects.values()), list(Chunk.objects.values())
    row = HistoricalStream.objects.get(path="a")
    row.ttl = 60
    with pytest.raises(ReadOnlyModelError, match=r"^Stream\.\w+\(\) is refused"):
        WRITES[way](row)
    assert (list(Stream.objects.values()), list(Chunk.objects.values())) == before


@pytest.mark.parametrize("model", OWN)
def test_the_error_names_the_model_to_import_and_the_method_to_call(model: Any) -> None:
    historical: Any = HISTORICAL.get_model("durable_streams", model.__name__)
    assert issubclass(historical, ReadOnlyRows)
    assert historical is not model
    imported = f"from django_durable_streams.models import {model.__name__}."
    for kind, write in {
        "add": lambda: historical().save(),
        "change": lambda: historical.objects.update(),
        "delete": lambda: historical(pk=1).delete(),
    }.items():
        with pytest.raises(ReadOnlyModelError) as refused:
            write()  # type: ignore[no-untyped-call]
        assert f"{imported} {model.instead[kind]}" in str(refused.value)


def test_they_read() -> None:
    stream = Stream.objects.create(path="a", content_type="text/plain", data="one")
    assert HistoricalStream.objects.filter(path="a").values_list("pk", flat=True).get() == stream.pk
    assert HISTORICAL.get_model("durable_streams", "Chunk").objects.get(stream_id=stream.pk).end == 3


def test_migrations_of_this_app_write_as_they_have_to() -> None:
    model: Any = HISTORICAL.get_model("durable_streams", "RegistryEntry")
    rows = model.objects.all().unguarded()
    rows.bulk_create([model(message="a"), model(message="b")])
    rows.filter(message="a").update(message="c")
    rows.filter(message="b").delete()
    assert list(RegistryEntry.objects.values_list("message", flat=True)) == ["c"]


def test_a_proxy_of_the_project_only_reads_as_well() -> None:
    state = MigrationLoader(None).project_state()
    managers: Any = [("all", models.Manager())]
    bases = ("durable_streams.stream",)
    proxy = migrations.CreateModel("News", fields=[], options={"proxy": True}, bases=bases, managers=managers)
    proxy.state_forwards("sessions", state)
    News: Any = state.apps.get_model("sessions", "News")
    with pytest.raises(ReadOnlyModelError, match=r"from django_durable_streams\.models import Stream"):
        News.all.create(path="new")
    with pytest.raises(ReadOnlyModelError):
        News(path="new").save()


def test_a_model_that_a_later_version_has_removed_says_to_import() -> None:
    state = ProjectState()
    key: Any = models.AutoField(primary_key=True)
    bases: Any = (ReadOnlyRows, models.Model)
    state.add_model(ModelState("durable_streams", "Gone", [("id", key)], bases=bases))
    with pytest.raises(ReadOnlyModelError, match="is a historical model"):
        state.apps.get_model("durable_streams", "Gone").objects.create()


def test_a_new_migration_has_the_guard_among_its_bases() -> None:
    """So that a model which a later version adds is guarded, too."""
    for model in OWN:
        bases: Any = ModelState.from_model(model).bases
        assert ReadOnlyRows in bases
        text, imports = MigrationWriter.serialize(ReadOnlyRows)
        assert (text, imports) == (f"{ReadOnlyRows.__module__}.ReadOnlyRows", {f"import {ReadOnlyRows.__module__}"})


def test_a_change_of_a_table_that_sqlite_makes_anew_works() -> None:
    state = MigrationLoader(None).project_state()
    after = state.clone()
    operation = migrations.AlterField("RegistryEntry", "message", models.TextField(null=True))
    operation.state_forwards("durable_streams", after)
    with connection.schema_editor() as editor:
        operation.database_forwards("durable_streams", editor, state, after)
        operation.database_backwards("durable_streams", editor, after, state)
