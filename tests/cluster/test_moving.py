"""Streams move from SQLite to a database server, by the commands, with nothing changed. And Redis carries messages."""

import shutil
from pathlib import Path

import msgspec

from tests.management.commands import Shell
from tests.servers import example_environment, migrate, migrated_sqlite_file
from tests.services import Database, Redis


def shell(database_url: str, **variables: str) -> Shell:
    return Shell(example_environment({"DATABASE_URL": database_url, **variables}))


def contents(archive: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in archive.rglob("*") if path.is_file()}


def test_an_archive_of_sqlite_is_that_of_the_database_into_which_it_is_imported(
    database: Database, tmp_path: Path
) -> None:
    shutil.copyfile(migrated_sqlite_file(), tmp_path / "db.sqlite3")
    here = shell(f"sqlite:///{tmp_path / 'db.sqlite3'}")
    there = shell(database.new_database())
    migrate(there.env)
    lines = b"".join(b'{"n": %d, "text": "\xc3\xa9"}\n' % number for number in range(5000))
    here.output("append", "a/\u00e9", "--create", "json", "--producer", "job", stdin=lines)
    here.output("fork", "a/\u00e9", "a/fork", "--ttl", "7d")
    here.output("append", "a/fork", "1")
    here.output("append", "b", "--create", "bytes", "--close", stdin=bytes(range(256)) * 5000)
    here.output("delete", "a/\u00e9")
    here.output("export", str(tmp_path / "first"))
    there.output("import", str(tmp_path / "first"))
    there.output("export", str(tmp_path / "second"))
    assert contents(tmp_path / "first") == contents(tmp_path / "second")
    assert there.output("read", "b") == bytes(range(256)) * 5000
    messages = [msgspec.json.decode(line) for line in here.output("read", "a/fork", "--json").splitlines()]
    offset = messages[2000]["offset"]
    assert there.output("read", "a/fork", "--offset", offset) == here.output("read", "a/fork", "--offset", offset)
    assert there.output("read", "a/fork") == lines + b"1\n"


def test_the_doctor_hears_another_process_through_redis(redis: Redis, tmp_path: Path) -> None:
    shutil.copyfile(migrated_sqlite_file(), tmp_path / "db.sqlite3")
    done = shell(f"sqlite:///{tmp_path / 'db.sqlite3'}", REDIS_URL=redis.url).run("doctor")
    assert done.returncode == 0, done.stdout.decode()
    assert b"ok       wake-ups: A message of another process arrived" in done.stdout
