"""The write lock is never left held, whenever a signal handler raises."""

import dis
import sys
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from types import FrameType
from typing import Any

import pytest

from django_durable_streams.runtime import write_lock as module
from django_durable_streams.runtime.write_lock import WriteLock

SIGNALS_AFTER = ("CALL", "CALL_FUNCTION_EX", "CALL_KW", "RESUME", "JUMP_BACKWARD")
"""Instructions after which the interpreter may run signal handlers."""


class _Interruption:
    """Raises KeyboardInterrupt in a module, at one of the moments at which a signal handler may."""

    def __init__(self, number: int, code_of: set[str]) -> None:
        self.has_come = False
        self._left = number
        self._code_of = code_of
        self._last: dict[FrameType, int] = {}

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename not in self._code_of:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            last = self._last.get(frame)
            self._last[frame] = frame.f_lasti
            if last is not None and dis.opname[frame.f_code.co_code[last]] in SIGNALS_AFTER:
                self._left -= 1
                if self._left < 0:
                    self.has_come = True
                    raise KeyboardInterrupt
        return self


def interrupted(number: int, work: Callable[[], object]) -> bool:
    """Do work that a signal interrupts at the moment with this number. Return False if there are fewer moments."""
    interruption = _Interruption(number, {module.__file__, __file__})
    previous = sys.gettrace()
    sys.settrace(interruption)
    try:
        with suppress(KeyboardInterrupt):
            work()
    finally:
        sys.settrace(previous)
    return interruption.has_come


def test_a_signal_at_any_moment_leaves_the_lock_free() -> None:
    write_lock = WriteLock(is_one=True)

    def work() -> None:
        with write_lock.hold():
            str(1)

    moments = 0
    for number in count():
        if not interrupted(number, work):
            break
        moments += 1
        assert write_lock._lock is not None
        assert not write_lock._lock.locked(), f"moment {number}"
    assert moments > 2


@pytest.mark.parametrize("is_one", [True, False])
def test_the_lock_is_held_in_the_block_only(is_one: bool) -> None:
    write_lock = WriteLock(is_one=is_one)
    for _ in range(2):
        with write_lock.hold(), write_lock.try_hold() as is_held_again:
            assert is_held_again is not is_one
        with write_lock.hold(lambda: None), write_lock.try_hold() as is_held_again:
            assert is_held_again is not is_one
