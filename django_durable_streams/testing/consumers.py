"""Runs consumers in a test, in the test's thread and so in its transaction."""

from __future__ import annotations

import time
from collections import defaultdict

from ..subscriptions.consumers.declarations import Consumer, find
from ..subscriptions.consumers.runner import Report, Runner
from ..subscriptions.consumers.subscribing import link_existing, subscribe
from ..subscriptions.pending import look_at_unseen


def run_consumers(*names: str, raise_errors: bool = True) -> int:
    """Let consumers handle all that is pending, and return how many messages they have handled.

    A consumer handles all streams of the test from their beginning, whenever they were created.

    Args:
        *names: names of consumers. None: all that are registered.
        raise_errors: whether the first error of a handler is raised. Otherwise all attempts follow at once, up to the
            parked message or the stopped stream.

    Raises:
        LookupError: there is no consumer of a name.
        RuntimeError: a message could not be parked.
    """
    by_alias: defaultdict[str, list[Consumer]] = defaultdict(list)
    for consumer in find(names):
        by_alias[consumer.alias].append(consumer)
    handled = 0

    def count(report: Report) -> None:
        nonlocal handled
        if report.outcome == "handled":
            handled += report.messages
        elif report.outcome == "not parked":
            raise RuntimeError(f"A dead letter of the consumer {report.consumer} could not be appended.")

    for using, consumers in by_alias.items():
        by_subscription = {subscribe(one, using, from_beginning=True): one for one in consumers}
        for subscription_id in by_subscription:
            while not (progress := link_existing(subscription_id, using)).is_done:
                time.sleep(progress.pause)
        runner = Runner(by_subscription, using, report=count, delay=lambda failures: 0.0, raises=raise_errors)
        while look_at_unseen(using).through or runner.step():
            pass
    return handled
