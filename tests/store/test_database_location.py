"""The location of a SQLite database: its file, by whatever name. Servers: tests/cluster/test_locations.py."""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from django.db.utils import ConnectionHandler

from django_durable_streams.store import database_location
from django_durable_streams.store.database_identity import identity, located_identity, renew_identity
from django_durable_streams.store.database_location import location, server_start

pytestmark = pytest.mark.django_db


def location_of(name: Path | str, **options: object) -> str:
    settings = {"ENGINE": "django.db.backends.sqlite3", "NAME": name, "OPTIONS": options}
    with closing(ConnectionHandler({"default": settings})["default"]) as connection:
        return database_location._sqlite(connection)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "original.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE a (b)")
    return path


def test_a_file_has_one_location_by_all_its_names(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = file.with_name("link.sqlite3")
    link.symlink_to(file)
    monkeypatch.chdir(file.parent)
    assert len({location_of(name) for name in (file, str(file), file.name, link)}) == 1
    assert location_of(f"file:{file}?mode=rw", uri=True) == location_of(file)


@pytest.mark.parametrize(
    "name", [b"stra\xc3\x9fe.sqlite3", b"stra\xdfe.sqlite3", b"%41?b#c'd.sqlite3", b"a\nb.sqlite3"]
)
def test_a_file_may_have_any_name(file: Path, name: bytes) -> None:
    other = Path(os.fsdecode(os.path.join(os.fsencode(file.parent), name)))
    os.link(file, other)
    assert location_of(other) == location_of(file)


def test_a_file_by_another_mount_has_the_same_location(file: Path) -> None:
    """As in another container: another path leads to the same file of the same device."""
    other = file.parent / "other" / "name.sqlite3"
    other.parent.mkdir()
    os.link(file, other)
    assert location_of(other) == location_of(file)


def test_a_file_that_grows_stays_in_its_location(file: Path) -> None:
    before = location_of(file)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("INSERT INTO a VALUES (zeroblob(100000))")
    assert location_of(file) == before


def test_a_copy_has_another_location(file: Path) -> None:
    copy = file.with_name("copy.sqlite3")
    shutil.copy2(file, copy)
    assert location_of(copy) != location_of(file)


def test_the_same_file_of_another_machine_has_another_location(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Machines that were made from one image have the same numbers of devices and files."""
    boots = [file.with_name(name) for name in ("one", "two", "missing")]
    for boot in boots[:2]:
        boot.write_text(f"{boot.name}\n")
    locations = set()
    for boot in boots:
        monkeypatch.setattr(database_location, "_BOOT", boot)
        locations.add(location_of(file))
    assert len(locations) == 3


def test_a_database_in_memory_belongs_to_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "file:location?mode=memory&cache=shared"
    here = location_of(name, uri=True)
    assert here == location_of(":memory:")
    monkeypatch.setattr(os, "getpid", lambda: 0)
    assert location_of(name, uri=True) != here


def test_a_new_identity_counts_without_a_restart() -> None:
    before = located_identity("default").name
    renew_identity("default")
    assert located_identity("default").name not in ("", before)


def test_the_identity_in_messages_has_the_location(monkeypatch: pytest.MonkeyPatch) -> None:
    here = located_identity("default")
    assert here == (f"{identity('default')} {location('default')}", server_start("default"))
    monkeypatch.setattr("django_durable_streams.store.database_identity.location", lambda using: "elsewhere")
    assert located_identity("default") != here
