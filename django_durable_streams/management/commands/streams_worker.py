"""`manage.py streams_worker`: delivers the wakes of subscriptions, besides the servers or in their place."""

from __future__ import annotations

import signal
from argparse import ArgumentParser
from threading import Event
from types import FrameType
from typing import Any

from django.core.management.base import BaseCommand
from django.db import DEFAULT_DB_ALIAS

from ...engine.engine import stop_engines
from ...subscriptions.service import service_for


class Command(BaseCommand):
    """Deliver wakes until SIGTERM or Ctrl-C."""

    help = (
        "Delivers the wakes of subscriptions until SIGTERM or Ctrl-C. Any number of processes can do this at once. "
        "Servers do it, too, unless SUBSCRIPTION_DELIVERY is False."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--database", default=DEFAULT_DB_ALIAS, help="alias of the database (default: default)")

    def handle(self, *args: Any, **options: Any) -> None:
        ended = Event()

        def end(number: int, frame: FrameType | None) -> None:
            ended.set()

        previous = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            service_for(options["database"]).start()
            if options["verbosity"]:
                self.stdout.write("Delivering the wakes of subscriptions. Quit with Ctrl-C.")
            ended.wait()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            stop_engines()
