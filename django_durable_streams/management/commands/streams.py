"""`manage.py streams`: replays consumers, lets stopped ones go on, and deletes the cursors of old ones."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import router

from ...models import Stream
from ...protocol import arguments
from ...protocol.errors import DurableStreamsError
from ...protocol.producers import SERVER_MARK
from ...subscriptions import registry
from ...subscriptions.consumers import replaying
from ...subscriptions.consumers.cursors import unhandled_bytes
from ...subscriptions.consumers.declarations import Consumer, find
from ...subscriptions.consumers.replaying import ReplayError

PROGRESS_SECONDS = 0.5
"""How often the progress of a replay is queried."""

IDLE_SECONDS = 30.0
"""Time without progress after which no worker seems to run."""


class Command(BaseCommand):
    """Replay, resume and delete consumers."""

    help = "Replays consumers, lets stopped ones go on, and deletes the cursors of old ones."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="action")
        replay = actions.add_parser("replay", help="handle messages once more")
        replay.add_argument("name", help="name of the consumer")
        replay.add_argument(
            "--from", dest="start", required=True, help="an offset, -1 for the beginning, or now for the end"
        )
        replay.add_argument("--streams", default="", help="pattern of the paths of streams (default: all)")
        replay.add_argument("--dry-run", action="store_true", help="print what would be done")
        replay.add_argument("--no-input", action="store_false", dest="interactive", help="do not ask")
        replay.add_argument("--no-wait", action="store_false", dest="waits", help="do not wait for the workers")
        delete = actions.add_parser(
            "delete", help="delete the cursors of a consumer that the code does not have any more"
        )
        delete.add_argument("name", help="name of the consumer")
        delete.add_argument("--database", help="alias of the database (default: the database of the streams)")
        resume = actions.add_parser("resume", help="let stopped streams go on")
        resume.add_argument("name", help="name of the consumer")
        resume.add_argument("--streams", default="", help="pattern of the paths of streams (default: all)")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            if options["action"] == "delete":
                self._delete(options)
                return
            (consumer,) = find([options["name"]])
            if options["action"] == "replay":
                self._replay(consumer, options)
            else:
                count = replaying.resume(consumer, options["streams"], consumer.alias)
                self.stdout.write(f"{consumer.name} goes on with {count} streams.")
        except (LookupError, ReplayError) as error:
            raise CommandError(str(error)) from error
        except DurableStreamsError as error:
            raise CommandError(error.detail) from error

    def _delete(self, options: dict[str, Any]) -> None:
        name = options["name"]
        if name in {consumer.name for consumer in find([])}:
            raise CommandError(f"The code still has the consumer {name}. Remove it first, and stop its workers.")
        registry.delete(SERVER_MARK + name, options["database"] or router.db_for_write(Stream))
        self.stdout.write(f"The cursors of {name} are deleted.")

    def _replay(self, consumer: Consumer, options: dict[str, Any]) -> None:
        start, using = arguments.offset(options["start"]), consumer.alias
        cursors = replaying.plan(consumer, start, options["streams"], using)
        size = sum(cursor.bytes_to_handle for cursor in cursors)
        effects = "calls its reset function" if consumer.reset_function else "has no reset function"
        self.stdout.write(
            f"The replay of {consumer.name} from {options['start']} sets the cursors of {len(cursors)} streams, with "
            f"{size} bytes to handle, and {effects}."
        )
        if options["dry_run"]:
            for cursor in cursors if options["verbosity"] > 1 else ():
                self.stdout.write(f"{cursor.info.path}: {cursor.bytes_to_handle} bytes")
            return
        if options["interactive"] and input("Go on? [y/N] ").strip().lower() not in ("y", "yes"):
            raise CommandError("Nothing was changed.")
        count = replaying.replay(consumer, start, options["streams"], using)
        self.stdout.write(f"The cursors of {count} streams are set.")
        if options["waits"]:
            self._follow(consumer)

    def _follow(self, consumer: Consumer) -> None:
        """Print the progress until all is handled, or no worker seems to run."""
        subscription_id = replaying.subscription_of(consumer, consumer.alias).pk
        rest = whole = unhandled_bytes(subscription_id, consumer.alias)
        last_change = time.monotonic()
        while rest:
            if time.monotonic() - last_change > IDLE_SECONDS:
                self.stdout.write("Nothing was handled for a while. Is manage.py streams_worker running?")
                return
            time.sleep(PROGRESS_SECONDS)
            before, rest = rest, unhandled_bytes(subscription_id, consumer.alias)
            whole = max(whole, rest)
            if rest != before:
                last_change = time.monotonic()
                self.stdout.write(f"{100 * (whole - rest) // max(whole, 1)} %, {rest} bytes left")
        self.stdout.write("All messages are handled.")
