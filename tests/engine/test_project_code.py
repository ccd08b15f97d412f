"""Whatever a project's code raises, in whichever place: no thread, no event loop and no other work ends by it."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.core.serializers.json import DjangoJSONEncoder
from django.db import OperationalError, connections, models
from django.db.backends.signals import connection_created
from django.db.models.signals import post_delete, pre_delete

from django_durable_streams.engine import housekeeping_failures
from django_durable_streams.engine.housekeeping_tasks import PurgeTask
from django_durable_streams.engine.wakeup.base import InProcessWakeup
from django_durable_streams.models import Stream
from django_durable_streams.permissions import AccessRequest, Permission
from django_durable_streams.runtime import background
from django_durable_streams.runtime.connection import DedicatedConnection
from django_durable_streams.runtime.results import as_failure, contained
from django_durable_streams.server.asgi import DurableStreams
from django_durable_streams.signals import stream_appended
from django_durable_streams.store.operations import Delete
from django_durable_streams.store.write import group_commit
from tests.asgi_client import AsgiClient
from tests.engine.test_housekeeping_tasks import PATHS, drain, make, number, place
from tests.overriding import override_streams
from tests.referring import referring_models

HERE = __name__


class Odd(BaseException):
    """No Exception, as some libraries have it."""


KINDS = [RuntimeError, SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, StopIteration, Odd]


def in_thread(work: Callable[[], Any]) -> Any:
    """Do something in a thread, in which no signal handler can have raised anything."""

    def run() -> Any:
        try:
            return work()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result(60)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("signal", [pre_delete, post_delete], ids=["pre_delete", "post_delete"])
@pytest.mark.django_db(transaction=True)
@pytest.mark.slow
def test_a_receiver_that_raises_in_a_purge_delays_one_stream_only(
    kind: type[BaseException], signal: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with referring_models() as make_model:
        note = make_model("Note", models.CASCADE)
        make(*PATHS)
        bad = number(PATHS[7])
        ids = {*Stream.objects.values_list("pk", flat=True)}
        for stream in Stream.objects.all():
            note.objects.create(stream=stream)
        group_commit.apply([Delete(path) for path in PATHS], "default")

        def receive(instance: Any, **arguments: Any) -> None:
            if instance.stream_id == bad:
                raise kind("a bug of the project's")

        signal.connect(receive, sender=note)
        try:
            in_thread(lambda: drain(PurgeTask(place())))
            assert {*Stream._base_manager.values_list("pk", flat=True)} == {bad}
            assert len(ids) == len(PATHS)
            (record,) = [each for each in caplog.records if each.levelno >= logging.ERROR]
            assert f"(id {bad})" in record.getMessage()
            assert record.name == housekeeping_failures.__name__
        finally:
            signal.disconnect(receive, sender=note)
        in_thread(lambda: drain(PurgeTask(place())))
        assert not Stream._base_manager.exists()


class Failing(Permission):
    """Raises what it is told, in the event loop."""

    in_memory = True
    needs_user = False
    raises: type[BaseException] | None = None

    def can_create(self, user: Any, path: str, request: AccessRequest) -> bool:
        if Failing.raises is not None:
            raise Failing.raises("a bug of the project's")
        return True


class FailingInCoroutine(Failing):
    """The same, after a wait."""

    async def can_create(self, user: Any, path: str, request: AccessRequest) -> bool:  # type: ignore[override]
        await asyncio.sleep(0)
        return super().can_create(user, path, request)


class FailingInThread(Failing):
    """The same, in a thread."""

    in_memory = False


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("permission", [Failing, FailingInCoroutine, FailingInThread])
@pytest.mark.parametrize("loop", ["of the main thread", "of another thread"])
@pytest.mark.usefixtures("engines", "transactional_db")
@pytest.mark.slow
def test_a_permission_that_raises_ends_no_event_loop(
    kind: type[BaseException], permission: type[Permission], loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if permission is FailingInCoroutine and kind is GeneratorExit:
        pytest.skip("nobody can tell it from the end of the coroutine")
    if loop == "of the main thread" and kind is KeyboardInterrupt and permission is not FailingInThread:
        pytest.skip("nobody can tell it from Ctrl-C")

    async def ask() -> None:
        client = AsgiClient(DurableStreams())
        async with asyncio.timeout(30):
            monkeypatch.setattr(Failing, "raises", kind)
            for path in ("a", "b"):
                assert (await client.request("PUT", path)).status == 500
            monkeypatch.setattr(Failing, "raises", None)
            assert (await client.request("PUT", "a")).status == 201

    with override_streams(PERMISSION_CLASSES=f"{HERE}.{permission.__name__}"):
        if loop == "of the main thread":
            asyncio.run(ask())
        else:
            in_thread(lambda: asyncio.run(ask()))


@pytest.mark.usefixtures("engines", "transactional_db")
@pytest.mark.parametrize("permission", [Failing, FailingInCoroutine])
async def test_a_request_that_is_cancelled_in_its_permission_is_cancelled(permission: type[Permission]) -> None:
    began = asyncio.Event()

    async def wait(*arguments: Any) -> bool:
        began.set()
        await asyncio.Event().wait()
        return True

    with override_streams(PERMISSION_CLASSES=f"{HERE}.{permission.__name__}"), pytest.MonkeyPatch.context() as patches:
        patches.setattr(permission, "can_create", wait)
        task = asyncio.ensure_future(AsgiClient(DurableStreams()).request("PUT", "a"))
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["sync", "async", "in its own commit"])
@pytest.mark.usefixtures("engines", "transactional_db")
def test_an_error_message_that_raises_ends_its_stream_and_not_the_loop_of_writers(
    kind: type[BaseException], how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Stream.objects.create(path="a", content_type="text/plain")

    def message(error: BaseException) -> str:
        raise kind("a bug of the project's")

    options: Any = {"on_error": "close", "error_message": message}

    async def awrite() -> None:
        async with stream.awriter(**options) as writer:
            await writer.write("data")
            raise KeyError("the job's own")

    def write() -> None:
        with stream.writer(**options) as writer:
            writer.write("data")
            raise KeyError("the job's own")

    def fail_to_commit() -> None:
        with stream.writer(**options) as writer:
            writer.write("data")
            writer.flush()
            monkeypatch.setattr(writer._writer.core.appender, "append", _refuse)
            writer.write("lost")

    if how == "in its own commit":
        with pytest.raises(ValueError, match="refused"):
            fail_to_commit()
    else:
        # A KeyboardInterrupt is a signal's: it passes, and waits for nothing.
        with pytest.raises(KeyboardInterrupt if kind is KeyboardInterrupt else KeyError):
            write() if how == "sync" else asyncio.run(awrite())
    deadline = time.monotonic() + 20
    while not stream.closed:
        assert time.monotonic() < deadline
        stream.refresh_from_db()
    assert [*stream.read()] == ["data", "The writer failed."]
    assert stream.closed
    assert background.loop().is_running()


async def _refuse(batch: Any) -> None:
    raise ValueError("refused")


class Encoder(DjangoJSONEncoder):
    def default(self, value: Any) -> Any:
        if isinstance(value, type):
            raise value("a bug of the project's")
        return super().default(value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("engines", "transactional_db")
def test_an_encoder_that_raises_ends_nothing(kind: type[BaseException]) -> None:
    with override_streams(JSON_ENCODER=f"{HERE}.Encoder"):
        stream = Stream.objects.create(path="a", content_type="application/json")
        with pytest.raises(RuntimeError, match="a bug of the project's"):
            in_thread(lambda: stream.append(kind))

        async def write() -> None:
            async with stream.awriter() as writer:
                with pytest.raises(RuntimeError, match="a bug of the project's"):
                    await writer.write(kind)
                await writer.write(1)

        in_thread(lambda: asyncio.run(write()))
        assert [*stream.read()] == [1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", ["publish", "receiver"])
async def test_a_commit_is_acknowledged_whatever_follows_it(
    engines: None, kind: type[BaseException], step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise kind("a bug of the project's")

    client = AsgiClient(DurableStreams())
    if step == "publish":
        monkeypatch.setattr(InProcessWakeup, "publish", fail)
    else:
        stream_appended.connect(fail)
    try:
        await client.create("a")
        for expected in (b"x", b"xx", b"xxx"):
            assert (await client.append("a", b"x")).status == 204
            assert (await client.get("a")).body == expected
    finally:
        stream_appended.disconnect(fail)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not StopIteration])
@pytest.mark.django_db(transaction=True)
def test_a_receiver_that_raises_in_a_callers_thread_gives_its_caller_no_error(kind: type[BaseException]) -> None:
    def fail(**arguments: Any) -> None:
        raise kind("a bug of the project's")

    stream = Stream.objects.create(path="a", content_type="text/plain")
    stream_appended.connect(fail)
    try:
        in_thread(lambda: stream.append("x"))
    finally:
        stream_appended.disconnect(fail)
    assert [*stream.read()] == ["x"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.django_db(transaction=True)
def test_a_connection_whose_receivers_raise_is_one_that_could_not_be_opened(kind: type[BaseException]) -> None:
    def fail(**arguments: Any) -> None:
        raise kind("a bug of the project's")

    def connect() -> None:
        connection = DedicatedConnection("default")
        with pytest.raises(OperationalError, match="a bug of the project's"):
            connection.open()
        connection_created.disconnect(fail)
        assert connection.open()
        connection.close()

    connection_created.connect(fail)
    try:
        in_thread(connect)
    finally:
        connection_created.disconnect(fail)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_what_ends_the_process_in_the_main_thread_ends_it(kind: type[BaseException]) -> None:
    """A signal handler may have raised it."""
    with pytest.raises(kind), contained:
        raise kind
    with pytest.raises(RuntimeError):
        in_thread(lambda: contained(_raise)(kind))


async def test_only_ctrl_c_may_come_from_a_signal_handler_in_an_event_loop() -> None:
    with pytest.raises(KeyboardInterrupt):
        as_failure(KeyboardInterrupt())
    assert isinstance(as_failure(SystemExit(2)), RuntimeError)


def _raise(kind: type[BaseException]) -> None:
    raise kind


def test_errors_of_other_kinds_pass_as_they_are() -> None:
    error = json.JSONDecodeError("x", "y", 0)
    assert as_failure(error) is error
    with pytest.raises(json.JSONDecodeError) as raised, contained:
        raise error
    assert raised.value is error
    assert isinstance(as_failure(StopIteration(1)), RuntimeError)
