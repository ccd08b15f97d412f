"""Dedicated connections can be cut as soon as the server has accepted them."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread
from typing import Any

import pytest
from django.db import Error, connection, connections

from django_durable_streams.runtime.connection import DedicatedConnection

SLEEP = {"postgresql": "SELECT pg_sleep(30)", "mysql": "SELECT SLEEP(30)"}


@pytest.mark.skipif(connection.vendor == "sqlite", reason="nothing cuts a connection to a file")
@pytest.mark.django_db
def test_a_connection_is_cut_while_it_is_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Django's own statements come first. A database that freezes then would hold the thread forever."""
    is_accepted = Event()

    def wait(self: Any) -> None:
        is_accepted.set()
        with self.cursor() as cursor:
            cursor.execute(SLEEP[self.vendor])

    monkeypatch.setattr(type(connections["default"]), "init_connection_state", wait)
    dedicated = DedicatedConnection("default")
    with ThreadPoolExecutor(1) as pool:
        opened = pool.submit(dedicated.open)
        assert is_accepted.wait(30)
        dedicated.cut()
        with pytest.raises(Error):
            opened.result(20)
        pool.submit(dedicated.close).result(20)


@pytest.mark.django_db
def test_whoever_wants_to_know_hears_of_each_connection_that_is_made() -> None:
    opened: list[bool] = []
    dedicated = DedicatedConnection("default", on_open=lambda: opened.append(connections["default"].is_usable()))

    def use() -> None:
        for _ in range(2):
            dedicated.open()
        dedicated.mark_outdated()
        dedicated.open()
        dedicated.close()

    with ThreadPoolExecutor(1) as thread:
        thread.submit(use).result(10)
    assert opened == [True, True]


@pytest.mark.django_db
def test_a_connection_that_is_outdated_is_replaced_once() -> None:
    dedicated = DedicatedConnection("default")
    with ThreadPoolExecutor(1) as pool:
        assert [pool.submit(dedicated.open).result(20) for _ in range(2)] == [True, False]
        dedicated.mark_outdated()
        assert [pool.submit(dedicated.open).result(20) for _ in range(2)] == [True, False]
        pool.submit(dedicated.close).result(20)


def test_a_thread_that_hangs_is_left(caplog: pytest.LogCaptureFixture) -> None:
    """Code of the project may wait in it for anything: a receiver, or a method of a permission."""
    released = Event()
    thread = Thread(target=released.wait, args=(20,), name="the-thread")
    thread.start()
    dedicated = DedicatedConnection("default")
    assert not dedicated.end(thread, 0, 0)
    assert "The thread the-thread does not end." in caplog.text
    released.set()
    assert dedicated.end(thread, 20)
