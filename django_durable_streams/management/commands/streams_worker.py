"""`manage.py streams_worker`: delivers the wakes of subscriptions, runs consumers, and writes AI answers."""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import time
from argparse import ArgumentParser
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from threading import Event, Thread
from types import FrameType
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import router
from django.utils.text import get_text_list

from ...contrib.ai import worker as answers
from ...engine.engine import stop_engines
from ...models import Stream
from ...runtime.printable import printable
from ...subscriptions.consumers.declarations import Consumer, find
from ...subscriptions.consumers.runner import Report
from ...subscriptions.consumers.worker import Worker
from ...subscriptions.service import service_for
from .. import worker_process

logger = logging.getLogger(__name__)

CHECK_SECONDS = 0.5
"""How often a worker looks whether its threads are alive."""

END_SECONDS = 10.0
"""Time for a process to end, beyond the lease of its handlers."""

RESTART_SECONDS = 1.0
"""Time until a process that has ended is replaced."""


class Command(BaseCommand):
    """Deliver wakes, run consumers and write AI answers until SIGTERM or Ctrl-C."""

    help = (
        "Delivers the wakes of subscriptions, runs consumers, and writes AI answers if AI_RUNS_IN says so, until "
        "SIGTERM or Ctrl-C. Any number of processes can do this at once. Servers deliver wakes, too, unless "
        "SUBSCRIPTION_DELIVERY is False."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--database", help="Alias of the database. Default: the database of the streams.")
        parser.add_argument("--consumers", help="Names of consumers, joined by commas. Default: all that no task runs.")
        parser.add_argument("--processes", type=int, default=1, help="Number of processes that run consumers.")
        parser.add_argument("--no-delivery", action="store_true", help="Run consumers only, and deliver no wakes.")

    def handle(self, *args: Any, **options: Any) -> None:
        consumers = self._consumers(options)
        if options["processes"] < 1:
            raise CommandError("--processes must be 1 or more.")
        if options["no_delivery"] and not (consumers or answers.is_wanted()):
            raise CommandError("There is nothing to do: no consumers need a worker, and wakes are not delivered.")
        if options["verbosity"]:
            parts = [] if options["no_delivery"] else ["delivering the wakes of subscriptions"]
            parts += [f"running {', '.join(consumer.name for consumer in consumers)}"] if consumers else []
            parts += ["writing AI answers"] if answers.is_wanted() else []
            self.stdout.write(f"{get_text_list(parts, 'and').capitalize()}. Quit with Ctrl-C.")
        with _signals() as ended:
            if options["processes"] > 1:
                self._supervise(options, ended)
            else:
                self._work(consumers, options, ended)

    def _consumers(self, options: Mapping[str, Any]) -> list[Consumer]:
        names = [name.strip() for name in (options["consumers"] or "").split(",") if name.strip()]
        try:
            consumers = find(names)
        except LookupError as error:
            raise CommandError(str(error)) from error
        # Tasks run the others. A worker may run them, too, if it is told to.
        return consumers if names else [consumer for consumer in consumers if not consumer.tasks_alias]

    def _work(self, consumers: list[Consumer], options: Mapping[str, Any], ended: Event) -> None:
        by_alias: defaultdict[str, list[Consumer]] = defaultdict(list)
        for consumer in consumers:
            by_alias[consumer.alias].append(consumer)
        report = self._print if options["verbosity"] > 1 else None
        workers: list[Worker] = []
        try:
            if not options["no_delivery"]:
                service_for(options["database"] or router.db_for_write(Stream)).start()
            if answers.is_wanted():
                answers.start_taking()
            for alias, group in by_alias.items():
                worker = Worker(group, alias, report)
                worker.start()
                workers.append(worker)
            while not ended.wait(CHECK_SECONDS):
                if not all(worker.is_alive for worker in workers):
                    raise CommandError("A worker has ended. The log says why.")
        finally:
            for worker in workers:
                worker.stop()
            until = time.monotonic() + _longest_lease(consumers)
            have_ended = [worker.join(max(until - time.monotonic(), 0.0)) for worker in workers]
            stop_engines()
            if not all(have_ended):
                _end_now()

    def run_child(self, options: dict[str, Any]) -> None:
        """Be one of several processes. It ends with its parent, however that ends."""
        parent = multiprocessing.parent_process()
        with _signals() as ended:
            if parent is not None:
                Thread(target=_end_with, args=(parent, ended), daemon=True).start()
            self._work(self._consumers(options), options, ended)

    def _print(self, report: Report) -> None:
        milliseconds = report.seconds * 1000
        with suppress(OSError):  # nobody reads the output any more
            self.stdout.write(
                f"{report.consumer}: {report.outcome} {report.messages} of {printable(report.stream)} "
                f"in {milliseconds:.1f} ms"
            )

    def _supervise(self, options: Mapping[str, Any], ended: Event) -> None:
        """Keep a number of processes running. The first one also delivers wakes."""
        context = multiprocessing.get_context("spawn")
        children: dict[int, BaseProcess] = {}
        try:
            while not ended.is_set():
                for number in range(options["processes"]):
                    if number not in children or not children[number].is_alive():
                        no_delivery = options["no_delivery"] or number > 0
                        own = {name: options[name] for name in ("database", "consumers", "verbosity")}
                        own["no_delivery"] = no_delivery
                        children[number] = context.Process(target=worker_process.run, args=(own,))
                        children[number].start()
                multiprocessing.connection.wait([child.sentinel for child in children.values()], CHECK_SECONDS)
                if not all(child.is_alive() for child in children.values()):
                    ended.wait(RESTART_SECONDS)
        finally:
            for child in children.values():
                child.terminate()
            until = time.monotonic() + END_SECONDS + _longest_lease(self._consumers(options))
            for child in children.values():
                child.join(max(until - time.monotonic(), 0.0))
                child.kill()


@contextmanager
def _signals() -> Iterator[Event]:
    """Yield an event that SIGTERM and Ctrl-C set."""
    ended = Event()

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    previous = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield ended
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _longest_lease(consumers: Collection[Consumer]) -> float:
    return max((consumer.lease for consumer in consumers), default=0.0)


def _end_now() -> None:
    """End the process although a handler runs. Python would wait for the threads that the handler waits for."""
    logger.error(
        "A handler has not ended within its lease. This process ends now, and the database rolls the handler's "
        "transaction back. Another worker will handle its messages."
    )
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(1)


def _end_with(parent: BaseProcess, ended: Event) -> None:
    multiprocessing.connection.wait([parent.sentinel])
    ended.set()
