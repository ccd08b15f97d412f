"""Objects that a process has once for each database."""

import os
import threading

import pytest

from django_durable_streams.runtime import lifecycle
from django_durable_streams.runtime.process_objects import ProcessObjects


class Thing:
    def __init__(self, log: list[str], name: str) -> None:
        self._log = log
        self.name = name

    def stop(self) -> None:
        self._log.append(self.name)


@pytest.fixture(autouse=True)
def _own_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of these tests stops with the engines of later ones."""
    monkeypatch.setattr(lifecycle, "_functions", [])
    monkeypatch.setattr(lifecycle, "_before_stop_functions", [])
    monkeypatch.setattr(os, "register_at_fork", lambda **functions: None)


def test_a_key_has_one_object_however_many_threads_ask() -> None:
    things = ProcessObjects[Thing]()
    meeting = threading.Barrier(8, timeout=10)
    results: list[Thing] = []
    made: list[Thing] = []

    def make() -> Thing:
        made.append(Thing([], "a"))
        return made[-1]

    def ask() -> None:
        meeting.wait()
        results.append(things.get("a", make))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(made) == 1
    assert results == made * 8
    assert things.get("b", lambda: Thing([], "b")) is not made[0]
    assert (things.existing("a"), things.existing("c")) == (made[0], None)


def test_an_object_that_cannot_be_made_leaves_no_lock_and_no_object() -> None:
    things = ProcessObjects[Thing]()
    with pytest.raises(ZeroDivisionError):
        things.get("a", lambda: 1 // 0)  # type: ignore[arg-type, return-value]
    assert things.get("a", lambda: Thing([], "a")).name == "a"


def test_objects_stop_before_the_engines_or_after_them() -> None:
    log: list[str] = []
    after, before = ProcessObjects[Thing](), ProcessObjects[Thing](before_engines=True)
    for things, name in ((after, "after"), (before, "before")):
        for key in ("one", "two"):
            things.get(key, lambda name=name, key=key: Thing(log, f"{name} {key}"))
    for _ in range(2):
        lifecycle.run_before_stop_functions()
        lifecycle.run_stop_functions()
    assert log == ["before one", "before two", "after one", "after two"]
    assert after.all() == before.all() == []


def test_an_object_may_ask_for_another_one_while_it_stops() -> None:
    """The lock is free then: the end of an object may run code of the project."""
    things = ProcessObjects[Thing]()

    class Asking(Thing):
        def stop(self) -> None:
            things.get("new", lambda: Thing([], "new"))

    things.get("a", lambda: Asking([], "a"))
    things.stop()
    assert [thing.name for thing in things.all()] == ["new"]


def test_a_child_process_has_no_objects_and_a_free_lock() -> None:
    things = ProcessObjects[Thing]()
    first = things.get("a", lambda: Thing([], "a"))
    with things._lock:  # a thread of the parent is making one
        things._forget()
        assert things.get("a", lambda: Thing([], "a")) is not first


def test_an_object_that_cannot_be_stopped_does_not_keep_the_others(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Thing):
        def stop(self) -> None:
            raise OSError("gone")

    log: list[str] = []
    things, later = ProcessObjects[Thing](), ProcessObjects[Thing]()
    things.get("a", lambda: Broken(log, "a"))
    things.get("b", lambda: Thing(log, "b"))
    later.get("c", lambda: Thing(log, "c"))
    lifecycle.run_stop_functions()
    assert log == ["b", "c"]
    assert things.all() == []
    assert "Broken could not be stopped" in caplog.text
