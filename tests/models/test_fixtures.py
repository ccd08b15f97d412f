"""Fixtures name streams by their paths, so that their rows find them in another database, under other numbers."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import models

from django_durable_streams.contrib.ai.models import Chat, Run
from django_durable_streams.models import ReadOnlyModelError, Stream
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
