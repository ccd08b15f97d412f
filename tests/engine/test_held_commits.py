"""Commits that a committer has not announced yet, and threads that wait for their announcement."""

from __future__ import annotations

import sys
from threading import Event, Thread
from types import FrameType
from typing import Any

from django_durable_streams.engine.committer_context import HeldCommits
from django_durable_streams.store.operations import Commit


def test_waiting_ends_with_the_last_announcement() -> None:
    seen: list[list[Commit]] = []
    is_waiting, is_over = Event(), Event()
    held = HeldCommits(seen.append)

    def wait() -> None:
        is_waiting.set()
        held.wait(60)
        is_over.set()

    held.wait(60)  # nothing is held
    first: list[Commit] = []
    second: list[Commit] = []
    held.hold(first)
    held.hold(second)
    Thread(target=wait, daemon=True).start()
    assert is_waiting.wait(30)
    assert not is_over.is_set()
    held.announce()
    assert is_over.wait(30)
    assert seen[0] is first
    assert seen[1] is second


def interrupt_at(number: int) -> Any:
    """Return a tracing function that raises at an instruction of `wait`, as a signal handler may."""
    left = number

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if frame.f_code is not HeldCommits.wait.__code__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left < 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    return trace


def test_a_signal_that_ends_a_wait_does_not_stop_the_committer() -> None:
    held = HeldCommits(lambda commits: None)
    for number in range(1000):
        before = sys.gettrace()
        sys.settrace(interrupt_at(number))
        try:
            held.wait(60)
        except KeyboardInterrupt:
            pass
        else:
            break
        finally:
            sys.settrace(before)
        committer = Thread(target=lambda: (held.hold([]), held.announce()), daemon=True)
        committer.start()
        committer.join(30)
        assert not committer.is_alive(), f"it waits after a signal at instruction {number}"
    assert number > 5
