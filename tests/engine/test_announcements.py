"""Python callers never wait for Redis, and a process announces its last commits before it ends."""

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

pytest.importorskip("redis")

from django_durable_streams.contrib.ai.wakeups import tell_runners_now
from django_durable_streams.engine.engine import running_engines
from django_durable_streams.engine.wakeup.redis import RedisWakeup
from django_durable_streams.models import Stream
from django_durable_streams.store.operations import Commit
from django_durable_streams.testing import stop_engines
from tests.servers import EXAMPLE, example_environment, migrated_sqlite_file

SECONDS = 30.0
WAKEUP = {"BACKEND": "django_durable_streams.engine.wakeup.redis.RedisWakeup", "URL": "redis://127.0.0.1:1/0"}


class FrozenRedis:
    """Answers no message until the test ends."""

    def __init__(self) -> None:
        self.is_asked = threading.Event()
        self.thaws = threading.Event()
        self.threads: set[threading.Thread] = set()

    def publish_now(self, commits: list[Commit]) -> None:
        """Wait, as a backend does whose Redis does not answer."""
        self.threads.add(threading.current_thread())
        self.is_asked.set()
        assert self.thaws.wait(SECONDS)


@pytest.fixture
def frozen(engines: None, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[FrozenRedis]:
    stop_engines()  # also the backends of earlier tests
    frozen = FrozenRedis()
    monkeypatch.setattr(RedisWakeup, "publish_now", lambda self, commits: frozen.publish_now(commits))
    settings.DURABLE_STREAMS = {**settings.DURABLE_STREAMS, "WAKEUP": WAKEUP}
    yield frozen
    frozen.thaws.set()
    stop_engines()


def test_an_append_returns_while_redis_does_not_answer(frozen: FrozenRedis) -> None:
    stream = Stream.objects.create(path="a", content_type="text/plain")
    for _ in range(5):
        stream.append("x")
    assert not running_engines()
    assert frozen.is_asked.wait(SECONDS)
    assert threading.current_thread() not in frozen.threads
    assert not frozen.thaws.is_set()


def test_a_change_of_an_answer_returns_while_redis_does_not_answer(frozen: FrozenRedis) -> None:
    tell_runners_now("default")
    assert frozen.is_asked.wait(SECONDS)
    assert threading.current_thread() not in frozen.threads


def test_a_process_without_redis_has_no_further_thread(engines: None) -> None:
    stop_engines()
    before = set(threading.enumerate())
    Stream.objects.create(path="a", content_type="text/plain").append("x")
    assert set(threading.enumerate()) <= before  # threads of earlier tests may end


COMMAND = """
import atexit, sys

if "late" in sys.argv:
    atexit.register(lambda: append("late"))  # called after all that the package has registered

import multiprocessing, os, threading, time
import django
django.setup()
from django_durable_streams.engine import announcements
from django_durable_streams.engine.wakeup.redis import RedisWakeup
from django_durable_streams.models import Stream

def publish_now(self, commits):
    if "frozen" in sys.argv:
        threading.Event().wait()
    time.sleep(0.3)  # it is still at it when the rest of the process is done
    print(*[commit.path for commit in commits], flush=True)

RedisWakeup.publish_now = publish_now
if "frozen" not in sys.argv:
    announcements.EXIT_SECONDS = 30.0  # the machine may be busy

def append(path):
    Stream.objects.create(path=path, content_type="text/plain")

append("first")
if "vanish" in sys.argv:
    if not os.fork():
        if "request" in sys.argv:
            from django.test import Client
            Client().get("/healthz", HTTP_HOST="localhost")
            sys.argv.append("frozen")
        append("second")
        print("appended", flush=True)
        os._exit(0)
    os.wait()
if "fork" in sys.argv:
    child = multiprocessing.get_context("fork").Process(target=append, args=("second",))
    child.start()
    child.join()
    print("status", child.exitcode)
"""


def run_command(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    file = shutil.copyfile(migrated_sqlite_file(), tmp_path / "db.sqlite3")
    environment = example_environment(
        {"DATABASE_URL": f"sqlite:///{file}", "REDIS_URL": "redis://127.0.0.1:1/0", "PYTHONWARNINGS": "ignore"}
    )
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments],
        cwd=EXAMPLE, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip


def test_a_process_that_ends_right_after_an_append_announces_it(tmp_path: Path) -> None:
    done = run_command(tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "first\n", "")


def test_a_forked_child_announces_its_own_appends_before_it_ends(tmp_path: Path) -> None:
    done = run_command(tmp_path, "fork")
    assert (done.returncode, sorted(done.stdout.splitlines()), done.stderr) == (0, ["first", "second", "status 0"], "")


def test_a_forked_process_that_vanishes_after_an_append_has_announced_it(tmp_path: Path) -> None:
    """The process of a job of RQ ends by `os._exit`."""
    done = run_command(tmp_path, "vanish")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert sorted(lines) == ["appended", "first", "second"]
    assert lines.index("second") < lines.index("appended")


def test_a_forked_process_waits_a_moment_only_for_a_frozen_redis(tmp_path: Path) -> None:
    done = run_command(tmp_path, "vanish", "frozen")
    assert (done.returncode, done.stdout, done.stderr) == (0, "appended\n", "")


def test_a_forked_server_does_not_wait_for_redis(tmp_path: Path) -> None:
    """Such as a worker of gunicorn with --preload."""
    done = run_command(tmp_path, "vanish", "request")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == ["appended", "first"]


def test_an_append_after_the_end_of_the_thread_is_announced(tmp_path: Path) -> None:
    done = run_command(tmp_path, "late")
    assert (done.returncode, done.stdout, done.stderr) == (0, "first\nlate\n", "")


def test_messages_are_sent_where_no_thread_can_start(
    engines: None, settings: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """From Python 3.12 on, no thread starts once the main thread has ended. A process may also have too many."""
    stop_engines()
    sent: list[str] = []
    monkeypatch.setattr(RedisWakeup, "publish_now", lambda self, commits: sent.extend(each.path for each in commits))
    settings.DURABLE_STREAMS = {**settings.DURABLE_STREAMS, "WAKEUP": WAKEUP}
    monkeypatch.setattr(threading.Thread, "start", Mock(side_effect=RuntimeError("can't start new thread")))
    for path in ("a", "b"):
        Stream.objects.create(path=path, content_type="text/plain")
    assert sent == ["a", "b"]
    assert not caplog.records


def test_a_frozen_redis_does_not_hold_up_the_end_of_a_process(tmp_path: Path) -> None:
    done = run_command(tmp_path, "frozen")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
