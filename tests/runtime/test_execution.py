"""The inline mode: no threads, no dedicated connections, and no row cache."""

import asyncio
from threading import Event, current_thread

import pytest
from django.db import connections

from django_durable_streams.runtime import background, execution
from django_durable_streams.runtime.connection import DedicatedConnection


def test_a_thread_of_the_service_is_a_daemon_with_its_name() -> None:
    names: list[str] = []
    thread = execution.start_thread(lambda: names.append(current_thread().name), "durable-streams-test")
    thread.join(10)
    assert (names, thread.daemon) == (["durable-streams-test"], True)


def test_inline_a_thread_does_nothing_and_has_ended() -> None:
    has_run = Event()
    with execution.inline():
        thread = execution.start_thread(has_run.set, "durable-streams-test")
        thread.join()
    assert not thread.is_alive()
    assert not has_run.wait(0.05)


def test_the_mode_ends_with_its_block_also_after_an_error() -> None:
    with execution.inline():
        with pytest.raises(KeyError), execution.inline():
            raise KeyError
        assert execution.is_inline()
    assert not execution.is_inline()


@pytest.mark.django_db
def test_inline_a_dedicated_connection_leaves_the_projects_connection_in_place() -> None:
    project_connection = connections["default"]
    with execution.inline():
        connection = DedicatedConnection("default")
        assert not connection.open()
        connection.close()
    assert connections["default"] is project_connection
    assert project_connection.connection is not None


async def test_inline_the_loop_that_runs_is_the_background_loop() -> None:
    loop = asyncio.get_running_loop()
    assert background.loop() is not loop
    with execution.inline():
        assert background.loop() is loop
