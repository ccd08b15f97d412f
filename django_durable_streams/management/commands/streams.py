"""`manage.py streams`: replays, pauses, resumes and deletes consumers, and pauses and resumes subscriptions."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import router

from ...models import Stream, Subscription
from ...protocol import arguments
from ...protocol.errors import DurableStreamsError
from ...protocol.producers import SERVER_MARK
from ...subscriptions import operating
from ...subscriptions.consumers import replaying
from ...subscriptions.consumers.cursors import unhandled_bytes
from ...subscriptions.consumers.declarations import Consumer, ConsumerError, find, of_stored_name
from ...subscriptions.selection import Selection

PROGRESS_SECONDS = 0.5
"""How often the progress of a replay is queried."""

IDLE_SECONDS = 30.0
"""Time without progress after which no worker seems to run."""


class Command(BaseCommand):
    """Replay, pause, resume and delete consumers."""

    help = "Replays, pauses, resumes and deletes consumers, and pauses and resumes subscriptions."

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
        pause = actions.add_parser("pause", help="handle no messages until it is resumed")
        resume = actions.add_parser("resume", help="end a pause, and let stopped streams go on")
        resume.add_argument(
            "--streams", default="", help="let only streams go on that match this pattern, and leave the pause as it is"
        )
        for one in (pause, resume):
            one.add_argument("name", help="name of the consumer, or id of the subscription")
            one.add_argument("--subscription", action="store_true", help="the name is the id of a subscription")
        for one in (delete, pause, resume):
            one.add_argument("--database", help="alias of the database (default: the database of the streams)")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            match options["action"]:
                case "delete":
                    self._delete(options)
                case "pause":
                    self._pause(options)
                case "resume":
                    self._resume(options)
                case _:
                    (consumer,) = find([options["name"]])
                    self._replay(consumer, options)
        except (LookupError, ConsumerError) as error:
            raise CommandError(str(error)) from error
        except DurableStreamsError as error:
            raise CommandError(error.detail) from error

    def _delete(self, options: dict[str, Any]) -> None:
        name, using = options["name"], options["database"] or router.db_for_write(Stream)
        operating.perform(using, operating.delete, SERVER_MARK + name, using)
        self.stdout.write(f"The cursors of {name} are deleted.")

    def _pause(self, options: dict[str, Any]) -> None:
        stored_name, using = self._find(options)
        is_new = operating.perform(using, operating.pause, stored_name, using)
        self.stdout.write(f"{options['name']} is paused." if is_new else f"{options['name']} was paused already.")

    def _resume(self, options: dict[str, Any]) -> None:
        stored_name, using = self._find(options)
        was_held = not options["streams"] and operating.perform(using, operating.resume, stored_name, using)
        count = operating.perform(using, operating.retry, stored_name, using, Selection(options["streams"]))
        if options["subscription"]:
            outcome = "goes on" if was_held or count else "was not paused"
            self.stdout.write(f"{options['name']} {outcome}.")
        else:
            self.stdout.write(f"{options['name']} goes on with {count} streams.")

    def _find(self, options: dict[str, Any]) -> tuple[str, str]:
        """Return the stored name of a consumer or subscription, and the alias of its database."""
        name, using = options["name"], options["database"] or router.db_for_write(Stream)
        if options["subscription"]:
            return name, using
        consumer = of_stored_name(SERVER_MARK + name)
        if consumer is not None:
            using = options["database"] or consumer.alias
            replaying.subscription_of(consumer, using)
        elif not Subscription.objects.using(using).filter(name=SERVER_MARK + name).exists():
            find([name])  # the error names the consumers
        return SERVER_MARK + name, using

    def _replay(self, consumer: Consumer, options: dict[str, Any]) -> None:
        start, using = arguments.offset(options["start"]), consumer.alias
        which = Selection(options["streams"])
        cursors = replaying.plan(consumer, start, which, using)
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
        count = replaying.replay(consumer, start, which, using)
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
