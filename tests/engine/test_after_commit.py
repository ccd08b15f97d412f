"""A step that follows a commit may fail: the commit is done, and its caller gets no error."""

import asyncio
import shutil
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, transaction

from django_durable_streams.api import transactions
from django_durable_streams.engine import announcements, engine_for, signal_dispatcher
from django_durable_streams.engine.checkpoints import Checkpointer
from django_durable_streams.engine.compaction_tracker import CompactionTracker
from django_durable_streams.engine.engine import Engine, running_engines
from django_durable_streams.engine.housekeeping import Housekeeper
from django_durable_streams.engine.startup import check_startup
from django_durable_streams.engine.wakeup.base import InProcessWakeup
from django_durable_streams.models import Stream
from django_durable_streams.runtime import after_commit
from django_durable_streams.server.asgi import DurableStreams
from django_durable_streams.signals import stream_appended
from tests.asgi_client import AsgiClient
from tests.server.waiting import until
from tests.servers import EXAMPLE, example_environment, migrated_sqlite_file

TEXT = "text/plain"


class Broken(Exception):
    pass


def fail(*arguments: Any, **options: Any) -> Any:
    raise Broken("what follows")


def cannot_start(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread at interpreter shutdown")


def wrong_wakeup(patches: pytest.MonkeyPatch, settings: Any) -> None:
    announcements._lone_wakeups.stop()
    settings.DURABLE_STREAMS = {**settings.DURABLE_STREAMS, "WAKEUP": {"BACKEND": "no.such.Backend"}}


def wrong_options_of_wakeup(patches: pytest.MonkeyPatch, settings: Any) -> None:
    announcements._lone_wakeups.stop()
    backend = "django_durable_streams.engine.wakeup.redis.RedisWakeup"
    settings.DURABLE_STREAMS = {**settings.DURABLE_STREAMS, "WAKEUP": {"BACKEND": backend, "WHAT": 1}}


def patched(owner: Any, name: str, by: Any = fail) -> Callable[[pytest.MonkeyPatch, Any], None]:
    return lambda patches, settings: patches.setattr(owner, name, by)


def heard_but_without_threads(patches: pytest.MonkeyPatch, settings: Any) -> None:
    patches.setattr(signal_dispatcher, "_has_any_listeners", lambda: True)
    patches.setattr(stream_appended, "has_listeners", lambda sender: True)
    patches.setattr(threading.Thread, "start", cannot_start)


WITHOUT_ENGINE = {
    "no such wake-up backend": wrong_wakeup,
    "wrong options of the wake-up backend": wrong_options_of_wakeup,
    "publishing": patched(InProcessWakeup, "publish"),
    "signals": patched(announcements, "send_signals"),
    "a listener": patched(transactions, "_listeners", [fail]),
}

WITH_ENGINE = {
    "publishing": patched(InProcessWakeup, "publish"),
    "feeding": patched(Engine, "feed"),
    "signals of others": patched(signal_dispatcher.SignalDispatcher, "send_soon"),
    "the thread of signals": heard_but_without_threads,
    "housekeeping": patched(Housekeeper, "count"),
    "growth": patched(CompactionTracker, "count"),
    "checkpoints": patched(Checkpointer, "count"),
}


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    after_commit._failing_purposes.clear()
    yield
    after_commit._failing_purposes.clear()
    announcements._lone_wakeups.stop()


@pytest.mark.parametrize("in_transaction", [False, True])
@pytest.mark.parametrize("step", WITHOUT_ENGINE)
def test_python_callers_get_no_error(
    engines: None,
    step: str,
    in_transaction: bool,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stream = Stream.objects.create(path="a", content_type=TEXT)
    WITHOUT_ENGINE[step](monkeypatch, settings)
    after: list[str] = []
    for word in ("one", "two", "three"):
        if in_transaction:
            with transaction.atomic():
                stream.append(word)
                transaction.on_commit(lambda: after.append("a callback of the project's"))
        else:
            stream.append(word)
    assert not running_engines()
    assert list(stream.read()) == ["one", "two", "three"]
    assert len(after) == (3 if in_transaction else 0)
    assert caplog.text.count("a step after it failed") == 1, caplog.text
    assert "manage.py check" in caplog.text


ONLY_ON_SQLITE = pytest.mark.skipif(connection.vendor != "sqlite", reason="the others look after their logs themselves")


@pytest.mark.parametrize(
    "step", [pytest.param(step, marks=ONLY_ON_SQLITE if step == "checkpoints" else ()) for step in WITH_ENGINE]
)
async def test_requests_get_no_error(
    engines: None, step: str, settings: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = AsgiClient(DurableStreams())
    await client.create("a")
    WITH_ENGINE[step](monkeypatch, settings)
    for word in (b"one", b"two", b"three"):
        assert (await client.append("a", word)).status == 204
    assert (await client.request("DELETE", "a")).status == 204
    monkeypatch.undo()
    assert (await client.get("a")).status == 404
    assert caplog.text.count("a step after it failed") == 1, caplog.text


async def test_a_step_that_fails_stops_no_other_step(engines: None, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []

    def receive(path: str, **arguments: Any) -> None:
        heard.append(path)

    stream_appended.connect(receive)
    try:
        client = AsgiClient(DurableStreams())
        await client.create("a", b"x")
        monkeypatch.setattr(InProcessWakeup, "publish", fail)
        monkeypatch.setattr(CompactionTracker, "count", fail)
        async with client.follow("a", "now") as live:
            assert await live.chunk()
            await client.append("a", b"news")
            assert b"news" in await live.chunk()  # type: ignore[operator]
        engine_for().send_pending()
        await until(lambda: len(heard) > 1)  # the answer and the reader come before the signals
    finally:
        stream_appended.disconnect(receive)
    assert heard == ["a", "a"]


@pytest.mark.parametrize("error", [SystemExit(1), asyncio.CancelledError(), GeneratorExit()], ids=repr)
async def test_a_step_that_exits_takes_no_commit_back(
    engines: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    def leave(*arguments: Any) -> None:
        raise error

    client = AsgiClient(DurableStreams())
    await client.create("a")
    monkeypatch.setattr(InProcessWakeup, "publish", leave)
    assert (await client.append("a", b"one")).status == 204
    assert (await client.get("a")).body == b"one"
    await until(lambda: "a step after it failed" in caplog.text)  # the answer came first


def test_a_failure_is_logged_again_after_a_success(caplog: pytest.LogCaptureFixture) -> None:
    for step in (fail, fail, bool, fail, fail):
        after_commit.follow_up("Nothing comes of it.", step)
    assert caplog.text.count("Nothing comes of it.") == 2
    with pytest.raises(KeyboardInterrupt):
        after_commit.follow_up("Nothing comes of it.", interrupt)


def interrupt() -> None:
    raise KeyboardInterrupt


def test_the_thread_of_signals_is_started_again(engines: None, monkeypatch: pytest.MonkeyPatch) -> None:
    dispatcher = signal_dispatcher.SignalDispatcher()
    with monkeypatch.context() as patches:
        patches.setattr(threading.Thread, "start", cannot_start)
        with pytest.raises(RuntimeError):
            dispatcher._put((stream_appended, {}))
    assert dispatcher._thread._thread is None
    dispatcher._put((stream_appended, {}))
    assert dispatcher._thread._thread is not None
    dispatcher.stop()


class TestStart:
    """What cannot work is found before anything is committed, or served."""

    def test_an_engine_that_cannot_be_made_leaves_no_threads(self, engines: None, settings: Any) -> None:
        before = threading.active_count()
        settings.DURABLE_STREAMS = {"WAKEUP": {"BACKEND": "no.such.Backend"}}
        for _ in range(3):
            with pytest.raises(ImproperlyConfigured, match="BACKEND"):
                engine_for()
        assert threading.active_count() == before
        assert not running_engines()

    def test_the_check_at_the_start_raises(self, settings: Any) -> None:
        check_startup()
        settings.DURABLE_STREAMS = {"WAKEUP": {"BACKEND": "no.such.Backend"}}
        with pytest.raises(ImproperlyConfigured, match="BACKEND"):
            check_startup()

    async def test_the_start_of_a_server_fails_with_the_reason(self, settings: Any) -> None:
        application = DurableStreams()
        settings.DURABLE_STREAMS = {"WAKEUP": {"BACKEND": "no.such.Backend"}}
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "lifespan.startup"}

        async def send(message: Any) -> None:
            sent.append(message)

        await application({"type": "lifespan"}, receive, send)
        ((kind, message),) = [(one["type"], one["message"]) for one in sent]
        assert kind == "lifespan.startup.failed"
        assert "WAKEUP" in message

    @pytest.mark.parametrize(
        ("library", "module", "patched_modules"),
        [
            ("gevent", "gevent.monkey", {"threading"}),
            ("gevent", "gevent.monkey", {"thread"}),
            ("eventlet", "eventlet.patcher", {"thread"}),
        ],
    )
    def test_replaced_threads_are_refused(
        self,
        engines: None,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        library: str,
        module: str,
        patched_modules: set[str],
    ) -> None:
        fake = types.ModuleType(module)
        asks = {"gevent": "is_module_patched", "eventlet": "is_monkey_patched"}[library]
        monkeypatch.setitem(fake.__dict__, asks, patched_modules.__contains__)
        monkeypatch.setitem(sys.modules, module, fake)
        with pytest.raises(ImproperlyConfigured, match=f"{library}.*uvicorn"):
            engine_for()
        with pytest.raises(ImproperlyConfigured, match=library):
            check_startup()
        # Said once, as Django starts, and no reason not to: such a process may append.
        apps.get_app_config("durable_streams").ready()
        assert caplog.text.count("cannot be served from this process") == 1
        stream = Stream.objects.create(path="a", content_type=TEXT)
        stream.append("x")
        assert list(stream.read()) == ["x"]
        with pytest.raises(ImproperlyConfigured, match=library):
            list(stream.tail())

    def test_a_process_appends_whose_poll_a_library_has_removed(self, tmp_path: Path) -> None:
        """As eventlet does: what is left of `select` is `select` alone."""
        file = shutil.copyfile(migrated_sqlite_file(), tmp_path / "db.sqlite3")
        code = (
            "import select; del select.poll, select.epoll\n"
            "import django; django.setup()\n"
            "from django_durable_streams.models import Stream\n"
            "Stream.objects.create(path='a', content_type='text/plain').append('x')\n"
            "print(list(Stream.objects.get(path='a').read()))"
        )
        environment = example_environment({"DATABASE_URL": f"sqlite:///{file}"})
        command = [sys.executable, "-c", code]
        done = subprocess.run(
            command, cwd=EXAMPLE, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout) == (0, "['x']\n"), done.stderr

    def test_a_library_that_has_patched_nothing_is_accepted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for module, asks in (("gevent.monkey", "is_module_patched"), ("eventlet.patcher", "is_monkey_patched")):
            fake = types.ModuleType(module)
            fake.__dict__[asks] = set[str]().__contains__
            monkeypatch.setitem(sys.modules, module, fake)
        check_startup()
