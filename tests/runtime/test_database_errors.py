"""Errors of the database, after their frames were dropped."""

import gc
import sys
from collections.abc import Callable

import pytest

from django_durable_streams.runtime.database_errors import drop_frames


def fail(error: Exception, cause: Exception | None, body: bytes) -> Exception:
    """Raise an error in a frame that has a body, and return it."""
    try:
        raise error from cause
    except Exception as caught:
        return caught


def one_after_the_other(body: bytes) -> Exception:
    return fail(ValueError(), fail(ValueError(), None, body), body)


def while_another_is_handled(body: bytes) -> Exception:
    """Its cause is not the error that is being handled, whose frames have the body."""
    another = fail(KeyError(), None, body)
    try:
        raise another
    except KeyError:
        return fail(ValueError(), ValueError(), b"")


def causing_itself(body: bytes) -> Exception:
    """An error that is raised in place of another one, which it has caused."""
    error = fail(ValueError(), None, body)
    another = fail(ValueError(), error, body)
    error.__context__ = another
    return error


@pytest.mark.parametrize("make", [one_after_the_other, while_another_is_handled, causing_itself])
def test_an_error_holds_no_frames_of_itself_or_of_those_behind_it(make: Callable[[bytes], Exception]) -> None:
    body = bytes(1000)
    before = sys.getrefcount(body)
    error = make(body)
    assert sys.getrefcount(body) > before
    gc.disable()
    try:
        drop_frames(error)
        assert sys.getrefcount(body) == before
    finally:
        gc.enable()
