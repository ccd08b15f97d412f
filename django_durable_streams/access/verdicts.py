"""What the answer of a permission means. Knows no permission and no request.

Code of a project may answer with an object that Python takes for true whatever is in it, by mistake: a method without
its parentheses, a generator, the coroutine of an `async def` that nobody awaits. None of them allows anything.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterator

_ALWAYS_TRUE = (Awaitable, Iterator, AsyncIterator, BaseException)


def allows(answer: object, name: str) -> bool:
    """Return whether a permission's answer allows an action.

    Args:
        answer: what the method has returned, after the wait where it is asynchronous.
        name: the name of the method, for the message.

    Raises:
        TypeError: the answer is neither a yes nor a no.
    """
    if answer is True or answer is False or answer is None:
        return answer is True
    if answer is NotImplemented or callable(answer) or isinstance(answer, _ALWAYS_TRUE):
        raise TypeError(f"{name} has returned {answer!r}, which is neither a yes nor a no. Return True or False.")
    return bool(answer)
