"""The commands of docs/deployment/backups.md work as they are printed, after a crash and without special rights."""

import contextlib
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks, section
from tests.services import PostgreSQL

PAGE = ROOT / "docs" / "deployment" / "backups.md"
COMMANDS = {
    name: [block.text for block in blocks(PAGE, "sh") if name in block.text]
    for name in ("sqlite3 db", "rm -f db", "pg_dump", "createdb", "DATABASE_NAME", "new-identity", "doctor --url")
}
BACKUPS = COMMANDS["sqlite3 db"][0].splitlines()

# Commits rows, waits for its backup, commits others, and ends without a word: as after a power cut, the log stays.
CRASHES = """
import os, sqlite3
database = sqlite3.connect("db.sqlite3", isolation_level=None)
database.execute("PRAGMA journal_mode=WAL")
database.execute("CREATE TABLE message (text)")
database.executemany("INSERT INTO message VALUES (?)", [("kept" * 500,)] * 100)
print("ready", flush=True)
input()
database.execute("DELETE FROM message")
database.execute("CREATE TABLE later (text)")
database.executemany("INSERT INTO later VALUES (?)", [("lost" * 500,)] * 50)
os._exit(9)
"""


def shell(script: str, folder: Path, **variables: str) -> None:
    done = subprocess.run(
        ["bash", "-ec", script],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def crash_after(backup: str, folder: Path) -> None:
    """Make a database, back it up while it is in use, change it, and crash."""
    command = [sys.executable, "-c", CRASHES]
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        shell(backup, folder)
        process.communicate("go on\n")
    assert (folder / "db.sqlite3-wal").stat().st_size


def texts(file: Path) -> list[str]:
    """Return what a database has, after its own examination."""
    with contextlib.closing(sqlite3.connect(file)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [text for (text,) in database.execute("SELECT text FROM message")]


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="the shell of SQLite is not installed")
@pytest.mark.parametrize("backup", BACKUPS)
def test_a_file_of_sqlite_is_restored_after_a_crash(backup: str, tmp_path: Path) -> None:
    crash_after(backup, tmp_path)
    (restore,) = COMMANDS["rm -f db"]
    shell(restore, tmp_path)
    assert texts(tmp_path / "db.sqlite3") == ["kept" * 500] * 100


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="the shell of SQLite is not installed")
def test_the_log_that_a_crash_leaves_damages_a_file_that_is_only_copied(tmp_path: Path) -> None:
    crash_after(BACKUPS[0], tmp_path)
    shell(COMMANDS["rm -f db"][0].splitlines()[1], tmp_path)
    with pytest.raises((sqlite3.DatabaseError, AssertionError)):
        assert texts(tmp_path / "db.sqlite3") == ["kept" * 500] * 100


def test_a_copy_has_an_identity_of_its_own_before_anything_else_runs_on_it() -> None:
    """The command itself is that of `test_operations_pages`."""
    text = section(PAGE, "PostgreSQL")
    steps = [COMMANDS[name] for name in ("createdb", "DATABASE_NAME", "new-identity", "doctor --url")]
    places = [text.index(command) for (command,) in steps]
    assert places == sorted(places)
    assert text.index("Start the workers") > places[2]
    (restore,), (name,) = COMMANDS["createdb"], COMMANDS["DATABASE_NAME"]
    assert f"--dbname={name.strip().partition('=')[2]} " in restore


@pytest.mark.cluster
def test_a_database_of_postgresql_is_restored_by_a_user_without_the_right_to_create_one(tmp_path: Path) -> None:
    (dump,), (restore,) = COMMANDS["pg_dump"], COMMANDS["createdb"]
    (name,) = re.findall(r"--dbname=(\w+)", restore)
    with PostgreSQL() as server:
        server.execute("CREATE ROLE mysite LOGIN")
        server.new_database("mysite")
        server.execute("ALTER DATABASE mysite OWNER TO mysite")
        programs = str(server.program.resolve().parent)
        variables = {"PGPORT": str(server.port), "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
        fill = "psql --quiet --command 'CREATE TABLE message AS SELECT 7 AS number'"
        shell(f"PGHOST=127.0.0.1 PGUSER=mysite {fill} mysite", tmp_path, **variables)
        # The tests have no user `postgres` of the system, but the server has one.
        sudo = 'sudo() { [ "$1 $2" = "-u postgres" ]; shift 2; PGUSER=postgres "$@"; }\n'
        shell(f"{sudo}{dump}{restore}", tmp_path, **variables)
        with contextlib.closing(server.connect(name)) as connection:
            assert connection.execute("SELECT number FROM message").fetchall() == [(7,)]
            owners = connection.execute("SELECT tableowner FROM pg_tables WHERE tablename = 'message'").fetchall()
            assert owners == [("mysite",)]
