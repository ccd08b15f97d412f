"""Futures that outlast their waiters: none of them can cancel one, and it gets the first outcome that comes."""

from __future__ import annotations

from concurrent.futures import Future


def lasting_future() -> Future[None]:
    """Return a future that its waiters cannot cancel."""
    future: Future[None] = Future()
    future.set_running_or_notify_cancel()
    return future


def resolve(future: Future[None], error: BaseException | None) -> None:
    """Let a future end, with an error or without one, unless it has ended."""
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
