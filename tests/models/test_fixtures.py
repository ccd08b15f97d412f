"""Fixtures name streams by their paths, so that their rows find them in another database, under other numbers."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.contenttypes.fields import GenericForeignKey
from django.contrib.contenttypes.models import ContentType
from django.core import serializers
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import models

from django_durable_streams.contrib.ai.models import Chat, Run
from django_durable_streams.models import DatabaseIdentity, ReadOnlyModelError, Stream
from django_durable_streams.store import database_identity
from django_durable_streams.store.archive import transfer
from tests import preloaded
from tests.referring import LABEL, Make, referring_models
from tests.servers import ROOT
from tests.store.archive.test_archive import empty

JSON = "application/json"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def make() -> Iterator[Make]:
    with referring_models() as make:
        yield make


def dump(tmp_path: Path, *labels: str, **options: Any) -> Path:
    file = tmp_path / f"dump.{options.get('format', 'json')}"
    call_command("dumpdata", *labels, output=str(file), **options)
    return file


def load(file: Path, **options: Any) -> None:
    call_command("loaddata", str(file), verbosity=0, **options)


def move_streams(tmp_path: Path) -> None:
    """Export the streams, empty the tables, and import them under other numbers."""
    archive = tmp_path / "archive"
    list(transfer.export_streams(archive, "default", ()))
    empty()
    for number in range(3):
        Stream.objects.create(path=f"others/{number}")
    list(transfer.import_streams(archive, "default", ()))


def chat_at(path: str, text: str) -> Chat:
    return Chat.objects.create(stream=Stream.objects.create(path=path, content_type=JSON, data={"text": text}))


WRITES_OLD_DATABASE = """
import django
django.setup()
from django.contrib.auth.models import User
from django_durable_streams.contrib.ai.models import Chat, Run
from django_durable_streams.models import Stream
for name in ("zoe", "ada"):  # not in the order of their paths, in which an archive has them
    user = User.objects.create(username=name)
    stream = Stream.objects.create(path=f"chats/{name}", content_type="application/json", data={"of": name})
    chat = Chat.objects.create(stream=stream, owner=str(user.pk))
    Run.objects.create(chat=chat, state="done", message_id=name, start_offset=stream.next_offset)
    stream.append({"answer": name})
"""


def test_chats_of_two_users_move_from_a_file_of_sqlite(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'old.sqlite3'}"
    old = {**os.environ, "DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    fixture, archive = tmp_path / "rows.json", tmp_path / "archive"
    left_out = ["durable_streams", "contenttypes", "auth.permission", "admin.logentry", "sessions"]
    rows = ["--natural-foreign", *(f"--exclude={label}" for label in left_out), "--output", str(fixture)]
    for arguments in (
        ["-m", "django", "migrate", "--verbosity", "0"],
        ["-c", WRITES_OLD_DATABASE],
        ["-m", "django", "dumpdata", *rows],
        ["-m", "django", "streams", "export", str(archive)],
    ):
        done = preloaded.run([sys.executable, *arguments], cwd=ROOT, env=old, timeout=300)
        assert done.returncode == 0, done.stderr
    for number in range(5):
        Stream.objects.create(path=f"here/{number}", content_type=JSON)
    call_command("streams", "import", str(archive), verbosity=0)
    load(fixture)
    for name in ("zoe", "ada"):
        chat = Chat.objects.get(owner=str(get_user_model().objects.get(username=name).pk))
        assert chat.path == f"chats/{name}"
        assert list(chat.stream.read()) == [{"of": name}, {"answer": name}]
        run = Run.objects.get(chat=chat)
        assert (run.message_id, list(chat.stream.read(run.start_offset))) == (name, [{"answer": name}])


@pytest.mark.parametrize("format", ["json", "jsonl", "xml"])
def test_rows_find_their_streams_under_other_numbers(tmp_path: Path, make: Make, format: str) -> None:
    note = make("Note", models.CASCADE)
    paths = {note.objects.create(stream=Stream.objects.create(path=path)).pk: path for path in ("z", "a", "m/\u00e9")}
    empty_note = note.objects.create(stream=None).pk
    file = dump(tmp_path, LABEL, use_natural_foreign_keys=True, format=format)
    note.objects.all().delete()
    move_streams(tmp_path)
    load(file)
    assert {row.pk: row.stream and row.stream.path for row in note.objects.all()} == {**paths, empty_note: None}


@pytest.mark.parametrize("format", ["json", "jsonl", "xml"])
def test_a_number_is_refused_even_if_a_stream_has_it(tmp_path: Path, make: Make, format: str) -> None:
    note = make("Note", models.CASCADE)
    note.objects.create(stream=Stream.objects.create(path="a"))
    file = dump(tmp_path, LABEL, format=format)
    note.objects.all().delete()
    with pytest.raises(Exception, match=r"'stream' of .*Note \d+ names a stream by its number.*--natural-foreign"):
        load(file)
    assert not note.objects.exists()


def test_chats_by_number_are_refused(tmp_path: Path) -> None:
    chat_at("a", "one")
    file = dump(tmp_path, "durable_streams_ai")
    Chat.objects.all().delete()
    with pytest.raises(Exception, match="--natural-foreign"):
        load(file)
    assert not Chat.objects.exists()


@pytest.mark.parametrize("key", [["a"], [None]])
def test_a_chat_whose_stream_is_missing_is_refused(tmp_path: Path, key: list[str | None]) -> None:
    chat_at("a", "one")
    file = dump(tmp_path, "durable_streams_ai", use_natural_foreign_keys=True)
    file.write_text(file.read_text().replace('["a"]', json.dumps(key)))
    Chat.objects.all().delete()
    empty()
    with pytest.raises(Exception, match=r"'stream' of durable_streams_ai.Chat \d+ .* Import the streams first"):
        load(file)
    assert not Chat.objects.exists()


def test_a_nullable_key_whose_stream_is_missing_is_refused_with_its_path(tmp_path: Path, make: Make) -> None:
    note = make("Note", models.CASCADE)
    note.objects.create(stream=Stream.objects.create(path="notes/1"))
    file = dump(tmp_path, LABEL, use_natural_foreign_keys=True)
    note.objects.all().delete()
    empty()
    with pytest.raises(Exception, match=r"There is no stream at 'notes/1'\. Import the streams first"):
        load(file)
    assert not note.objects.exists()


def test_a_dump_of_all_tables_loads_without_the_tables_of_streams(tmp_path: Path) -> None:
    chat_at("z", "one")
    chat_at("a", "two")
    Stream.objects.create(path="gone", data=b"x").delete()  # its rows wait for the purge
    options = {"use_natural_foreign_keys": True, "use_natural_primary_keys": True}
    file = dump(tmp_path, "durable_streams", "durable_streams_ai", **options)
    Chat.objects.all().delete()
    move_streams(tmp_path)
    with pytest.raises(ReadOnlyModelError, match="loaddata --exclude durable_streams"):
        load(file)
    load(file, exclude=["durable_streams"])
    assert {(chat.path, *(message["text"] for message in chat.stream.read())) for chat in Chat.objects.all()} == {
        ("z", "one"),
        ("a", "two"),
    }


def test_a_primary_key_that_is_a_number_is_refused(tmp_path: Path, make: Make) -> None:
    key = models.OneToOneField(Stream, models.CASCADE, primary_key=True, related_name="+")
    title = make("Title", models.SET_NULL, of=key)
    title.objects.create(of=Stream.objects.create(path="a"))
    file = dump(tmp_path, LABEL, use_natural_foreign_keys=True)
    with pytest.raises(Exception, match="A fixture cannot have this primary key"):
        load(file)


@pytest.fixture
def boards(make: Make) -> Iterator[tuple[Any, Any]]:
    """A model with many streams, and that of the table between them."""
    board = make("Board", models.CASCADE, streams=models.ManyToManyField(Stream, related_name="+"))
    yield board, board.streams.through
    del apps.all_models[LABEL]["board_streams"]


Boards = tuple[Any, Any]


@pytest.mark.parametrize("format", ["json", "jsonl", "xml"])
def test_many_streams_are_found_by_their_paths_and_refused_by_number(
    tmp_path: Path, boards: Boards, format: str
) -> None:
    board, between = boards
    made = board.objects.create()
    made.streams.set([Stream.objects.create(path=path) for path in ("z", "a", " b ")])
    by_number = dump(tmp_path, LABEL, format=format)
    by_number = by_number.rename(tmp_path / f"numbers.{format}")
    file = dump(tmp_path, LABEL, use_natural_foreign_keys=True, format=format)
    made.delete()
    move_streams(tmp_path)
    with pytest.raises(Exception, match=r"names a stream by its number.*--natural-foreign"):
        load(by_number)
    assert not board.objects.exists()
    assert not between.objects.exists()
    load(file)
    assert {stream.path for stream in board.objects.get().streams.all()} == {"z", "a", " b "}


def test_numbers_of_the_table_between_are_refused(tmp_path: Path, boards: Boards) -> None:
    """Django sends no signal for the rows of a table that it has made itself."""
    board, between = boards
    made = board.objects.create()
    made.streams.add(Stream.objects.create(path="a"))
    label = between._meta.label
    by_number = dump(tmp_path, label).rename(tmp_path / "numbers.json")
    file = dump(tmp_path, label, use_natural_foreign_keys=True)
    between.objects.all().delete()
    with pytest.raises(Exception, match=r"names a stream by its number.*--natural-foreign"):
        load(by_number)
    assert not between.objects.exists()
    load(file)
    assert made.streams.get().path == "a"


def test_a_row_of_a_proxy_model_is_refused_too(tmp_path: Path, make: Make) -> None:
    note = make("Note", models.CASCADE)
    meta = type("Meta", (), {"app_label": LABEL, "proxy": True})
    type("NoteProxy", (note,), {"Meta": meta, "__module__": __name__})
    file = tmp_path / "rows.json"
    number = Stream.objects.create(path="a").pk
    file.write_text(json.dumps([{"model": f"{LABEL}.noteproxy", "pk": 1, "fields": {"stream": number}}]))
    with pytest.raises(Exception, match=r"'stream' of .*NoteProxy 1 names a stream by its number"):
        load(file)
    del apps.all_models[LABEL]["noteproxy"]
    assert not note.objects.exists()


def test_a_number_in_the_key_of_another_model_is_refused(tmp_path: Path, make: Make) -> None:
    """A comment refers to a title by the title's primary key, which is the number of a stream."""
    key = models.OneToOneField(Stream, models.CASCADE, primary_key=True, related_name="+")
    title = make("Title", models.SET_NULL, of=key)
    comment = make("Comment", models.SET_NULL, title=models.ForeignKey(title, models.CASCADE, related_name="+"))
    comment.objects.create(title=title.objects.create(of=Stream.objects.create(path="a")))
    file = dump(tmp_path, comment._meta.label)
    comment.objects.all().delete()
    with pytest.raises(Exception, match="names a stream by its number"):
        load(file)
    assert not comment.objects.exists()


@pytest.mark.parametrize("natural", [True, False])
def test_a_generic_key_to_a_stream_is_refused(tmp_path: Path, make: Make, natural: bool) -> None:
    tag = make(
        "Tag",
        models.CASCADE,
        kind=models.ForeignKey(ContentType, models.CASCADE, related_name="+", null=True),
        number=models.CharField(max_length=40, null=True),
        thing=GenericForeignKey("kind", "number"),
    )
    stream, note = Stream.objects.create(path="a"), make("Note", models.CASCADE).objects.create()
    tag.objects.create(thing=note)
    tag.objects.create()
    others = dump(tmp_path, tag._meta.label, use_natural_foreign_keys=natural).rename(tmp_path / "others.json")
    tag.objects.create(thing=stream)
    file = dump(tmp_path, tag._meta.label, use_natural_foreign_keys=natural)
    tag.objects.all().delete()
    with pytest.raises(Exception, match=r"'thing' of .*Tag \d+ names a stream by its number.*by a script"):
        load(file)
    assert not tag.objects.exists()
    load(others)
    assert tag.objects.count() == 2


def test_a_generic_key_may_come_before_its_content_type(tmp_path: Path, make: Make) -> None:
    tag = make(
        "Tag",
        models.CASCADE,
        kind=models.ForeignKey(ContentType, models.CASCADE, related_name="+"),
        number=models.IntegerField(),
        thing=GenericForeignKey("kind", "number"),
    )
    rows = [
        {"model": tag._meta.label_lower, "pk": 1, "fields": {"kind": 54321, "number": 1}},
        {"model": "contenttypes.contenttype", "pk": 54321, "fields": {"app_label": "shop", "model": "article"}},
    ]
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(rows))
    load(file)
    assert tag.objects.get().kind.model == "article"


@pytest.mark.parametrize("format", ["json", "jsonl", "xml"])
@pytest.mark.parametrize(("path", "other"), [(" a", "a"), ("a\u00a0", "a"), ("a b ", "a b"), (None, "None")])
def test_a_row_gets_no_stream_with_a_similar_path(
    tmp_path: Path, make: Make, format: str, path: str | None, other: str
) -> None:
    note = make("Note", models.CASCADE)
    Stream.objects.create(path=other)
    stream = Stream.objects.create(path=path or "removed")
    note.objects.create(stream=stream)
    if path is None:
        unguarded = Stream.objects.unguarded().filter(pk=stream.pk)  # as it is until housekeeping removes the row
        unguarded.update(path=None)
    file = dump(tmp_path, LABEL, use_natural_foreign_keys=True, format=format)
    note.objects.all().delete()
    if path is None:
        with pytest.raises(Exception, match=r"There is no stream at ''\. Import the streams first"):
            load(file)
    else:
        load(file)
        assert note.objects.get().stream.path == path


def test_excluded_rows_may_have_numbers(tmp_path: Path) -> None:
    chat_at("a", "one")
    file = dump(tmp_path, "durable_streams", "durable_streams_ai", use_natural_foreign_keys=False)
    load(file, exclude=["durable_streams", "durable_streams_ai"])
    with pytest.raises(CommandError):
        load(file, exclude=["none"])


def test_a_form_and_a_copy_of_a_row_take_numbers(make: Make) -> None:
    note = make("Note", models.CASCADE)
    number = Stream.objects.create(path="a").pk
    row = note(stream_id=str(number))
    row.full_clean()
    row.save()
    assert (type(row.stream_id), note.objects.get().stream.path) == (int, "a")


def test_a_fixture_changes_no_identity_and_no_version_of_the_rules(tmp_path: Path) -> None:
    """With an earlier version, processes would take other rules for the current ones, and link no new streams."""
    DatabaseIdentity.objects.update_or_create(id=1, defaults={"value": "old", "link_rules_version": 3})
    file = dump(tmp_path, "durable_streams")
    DatabaseIdentity.objects.update(value="new", link_rules_version=7)
    load(file)
    assert list(DatabaseIdentity.objects.values_list("value", "link_rules_version")) == [("new", 7)]
    DatabaseIdentity.objects.all().delete()
    load(file)
    assert not DatabaseIdentity.objects.exists()
    assert database_identity.identity("default") != "old"


def test_a_row_that_is_only_deserialized_leads_to_its_stream(make: Make) -> None:
    """As in a cache of rows, in the same database."""
    note = make("Note", models.CASCADE)
    row = note.objects.create(stream=Stream.objects.create(path="a"))
    (deserialized,) = serializers.deserialize("json", serializers.serialize("json", [row]))
    twin: Any = deserialized.object
    assert twin.stream.path == "a"
    assert note.objects.get(stream=twin.stream_id) == row
    assert Stream.objects.get(pk=twin.stream_id).path == "a"


def test_the_project_stores_a_row_that_it_has_deserialized(make: Make, boards: Boards) -> None:
    note, board = make("Note", models.CASCADE, text=models.TextField(default="")), boards[0]
    row = note.objects.create(stream=Stream.objects.create(path="a"))
    (deserialized,) = serializers.deserialize("json", serializers.serialize("json", [row]))
    twin: Any = deserialized.object
    twin.text = "new"
    twin.save()
    assert note.objects.get().text == "new"
    copy = note.objects.create(stream_id=twin.stream_id)
    note.objects.filter(pk=row.pk).update(stream_id=twin.stream_id)
    board.objects.create().streams.set([twin.stream_id])
    assert copy.stream.path == board.objects.get().streams.get().path == "a"
