"""`manage.py streams` as a process: signals, pipes, errors, and readers that follow."""

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.management.commands import Shell
from tests.servers import example_environment, migrated_sqlite_file

SECONDS = 60.0


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    path = tmp_path_factory.mktemp("commands") / "db.sqlite3"
    shutil.copyfile(migrated_sqlite_file(), path)
    return Shell(example_environment({"DATABASE_URL": f"sqlite:///{path}"}))


@pytest.fixture
def killer() -> Iterator["list[subprocess.Popen[bytes]]"]:
    """Ends processes of a test that has failed."""
    processes: list[subprocess.Popen[bytes]] = []
    timer = threading.Timer(SECONDS, lambda: [process.kill() for process in processes])
    timer.start()
    yield processes
    timer.cancel()
    for process in processes:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def test_bytes_go_through_unchanged(shell: Shell) -> None:
    data = os.urandom(600_000) + b"\r\n\n\x00"
    shell.output("append", "bytes", "--create", "bytes", stdin=data)
    assert shell.output("read", "bytes") == data


def test_errors_are_one_line_and_a_status(shell: Shell, tmp_path: Path) -> None:
    done = shell.run("show", "nothing")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"CommandError: There is no stream at nothing.\n"
    empty = Shell({**shell.env, "DATABASE_URL": f"sqlite:///{tmp_path / 'empty.sqlite3'}"})
    for arguments in (("list",), ("stats",), ("create", "a"), ("prune",)):
        done = empty.run(*arguments)
        assert done.returncode == 1
        assert b"Traceback" not in done.stderr
        assert b"manage.py migrate" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_nobody_reads_the_output_any_more(shell: Shell, killer: "list[subprocess.Popen[bytes]]") -> None:
    shell.output("append", "long", "--create", "text", stdin=b"0123456789\n" * 200_000)
    for arguments in (("read", "long"), ("read", "long", "--json")):
        process = shell.start(*arguments)
        killer.append(process)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(SECONDS) == 128 + signal.SIGPIPE
        assert process.stderr.read() == b""


def test_a_reader_follows_until_ctrl_c(shell: Shell, killer: "list[subprocess.Popen[bytes]]") -> None:
    shell.output("append", "followed/1", "1", "2", "--create", "json")
    process = shell.start("tail", "-f", "followed/*", "-n", "1", "--json")
    killer.append(process)
    assert process.stdout is not None
    assert process.stderr is not None
    assert b'"message":2' in process.stdout.readline()
    shell.output("append", "followed/1", "3.0")
    assert b'"message":3.0' in process.stdout.readline()
    shell.output("append", "followed/2", "x", "--create", "text")
    assert b'"message":"x"' in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(SECONDS) == 128 + signal.SIGINT
    assert process.stderr.read() == b"CommandError: Interrupted.\n"


def test_a_followed_stream_that_is_closed_ends_the_command(
    shell: Shell, killer: "list[subprocess.Popen[bytes]]"
) -> None:
    shell.output("append", "ending", "a\n", "--create", "text")
    process = shell.start("tail", "-f", "ending")
    killer.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == b"a\n"
    shell.output("append", "ending", "b\n", "--close")
    assert process.stdout.read() == b"b\n"
    assert process.wait(SECONDS) == 0


def test_input_is_appended_as_it_arrives(shell: Shell, killer: "list[subprocess.Popen[bytes]]") -> None:
    shell.output("create", "piped", "--type", "text")
    process = shell.start("append", "piped", "--close")
    follower = shell.start("tail", "-f", "piped")
    killer += [process, follower]
    assert process.stdin is not None
    assert follower.stdout is not None
    for line in (b"one\n", b"two\n"):
        process.stdin.write(line)
        process.stdin.flush()
        assert follower.stdout.readline() == line
    process.stdin.write(b"rest")
    process.stdin.close()
    assert follower.stdout.read() == b"rest"
    assert (process.wait(SECONDS), follower.wait(SECONDS)) == (0, 0)
