"""What the answer of a permission means. Knows no permission and no request.

Code of a project may answer with an object that Python takes for true whatever it means, by mistake: a method without
its parentheses, a response with status 403, a policy such as `{"allowed": False}`. None of them allows anything. An
answer counts only if its class has a truth of its own (`__bool__`), as numbers do. A member of an enum never counts.
Proxies such as lazy objects of Django answer as the object behind them: they have each method, and its class.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from enum import Enum

_NO_ANSWERS = (Awaitable, Iterator, Enum)


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
    has_truth = all(hasattr(kind, "__bool__") for kind in (type(answer), answer.__class__))
    is_answer = has_truth and answer is not NotImplemented
    if not is_answer or callable(answer) or isinstance(answer, _NO_ANSWERS):
        raise TypeError(f"{name} has returned {answer!r}, which is neither a yes nor a no. Return True or False.")
    return bool(answer)
