"""A process sends its signals and messages before it ends, however soon that is."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import EXAMPLE, example_environment, migrated_sqlite_file

COMMAND = """
import asyncio, sys, time
import django
django.setup()
from django_durable_streams.engine.wakeup.base import InProcessWakeup
from django_durable_streams.models import Stream
from django_durable_streams.signals import stream_closed

def receive(path, **arguments):
    time.sleep(0.3)  # it is still at it when the rest of the process is done
    print("closed", path, flush=True)

InProcessWakeup.stop = lambda self: print("the wake-ups have ended", flush=True)
stream_closed.connect(receive)
stream = Stream.objects.create(path="a", content_type="text/plain")

async def write():
    async with stream.awriter() as writer:
        await writer.write("hello")

asyncio.run(write())
"""


def test_signals_and_wake_ups_of_a_short_command_are_sent(tmp_path: Path) -> None:
    file = shutil.copyfile(migrated_sqlite_file(), tmp_path / "db.sqlite3")
    done = subprocess.run(
        [sys.executable, "-c", COMMAND],
        cwd=EXAMPLE,
        env=example_environment({"DATABASE_URL": f"sqlite:///{file}"}),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["closed a", "the wake-ups have ended"]


FOLLOW = """
import asyncio, os, signal, sys, threading
import django
django.setup()
from django_durable_streams.engine.engine import running_engines
from django_durable_streams.models import Stream

stream = Stream.objects.create(path="a", content_type="text/plain")

def end():
    while not any(
        watch.listeners
        for engine in running_engines()
        for hub in list(engine._hubs.values())
        for watch in list(hub._watches.values())
    ):
        pass
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=end, daemon=True).start()

async def follow():
    async for page in stream.atail("now"):
        pass

if sys.argv[1] == "tail":
    for page in stream.tail("now"):
        pass
else:
    asyncio.run(follow())
print("ended", flush=True)
threading.Event().wait()
"""


@pytest.mark.parametrize("way", ["tail", "atail"])
def test_a_command_that_follows_a_stream_ends_at_sigterm_and_has_a_moment_for_it(tmp_path: Path, way: str) -> None:
    file = shutil.copyfile(migrated_sqlite_file(), tmp_path / "db.sqlite3")
    done = subprocess.run(
        [sys.executable, "-c", FOLLOW, way],
        cwd=EXAMPLE,
        env=example_environment({"DATABASE_URL": f"sqlite:///{file}"}),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGTERM, "ended\n", "")
