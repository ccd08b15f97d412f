"""`manage.py streams replay`, `pause` and `resume`: work of operators on consumers and subscriptions."""

from __future__ import annotations

import time
from argparse import ArgumentParser

from ...models import Subscription
from ...protocol import arguments
from ...protocol.producers import SERVER_MARK
from ...subscriptions import operating
from ...subscriptions.consumers import replaying
from ...subscriptions.consumers.cursors import unhandled_bytes
from ...subscriptions.consumers.declarations import Consumer, find, of_stored_name
from ...subscriptions.selection import Selection
from .base import Console, Options, Subcommand, add_no_input

PROGRESS_SECONDS = 0.5
"""How often the progress of a replay is queried."""

IDLE_SECONDS = 30.0
"""Time without progress after which no worker seems to run."""


class Pause(Subcommand):
    """Lets a consumer or subscription rest."""

    name = "pause"
    help = "let a consumer handle no messages, or a subscription wake nobody, until it is resumed"
    has_json = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        _add_name(parser)

    def run(self, console: Console, options: Options) -> None:
        stored_name, using = _find(console, options)
        is_new = operating.perform(using, operating.pause, stored_name, using)
        console.write(f"{options['name']} is paused." if is_new else f"{options['name']} was paused already.")


class Resume(Subcommand):
    """Ends a pause."""

    name = "resume"
    help = "end a pause, and let stopped streams go on"
    has_json = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        _add_name(parser)
        parser.add_argument(
            "--streams", default="", help="let only streams go on that match this pattern, and leave the pause as it is"
        )

    def run(self, console: Console, options: Options) -> None:
        stored_name, using = _find(console, options)
        was_held = not options["streams"] and operating.perform(using, operating.resume, stored_name, using)
        count = operating.perform(using, operating.retry, stored_name, using, Selection(options["streams"]))
        if options["subscription"]:
            outcome = "goes on" if was_held or count else "was not paused"
            console.write(f"{options['name']} {outcome}.")
        else:
            console.write(f"{options['name']} goes on with {count} streams.")


def _add_name(parser: ArgumentParser) -> None:
    parser.add_argument("name", help="name of the consumer, or id of the subscription")
    parser.add_argument("--subscription", action="store_true", help="the name is the id of a subscription")


def _find(console: Console, options: Options) -> tuple[str, str]:
    """Return the stored name of a consumer or subscription, and the alias of its database."""
    name, using = options["name"], console.using
    if options["subscription"]:
        return name, using
    consumer = of_stored_name(SERVER_MARK + name)
    if consumer is not None:
        using = options["database"] or consumer.alias
        replaying.subscription_of(consumer, using)
    elif not Subscription.objects.using(using).filter(name=SERVER_MARK + name).exists():
        find([name])  # the error names the consumers
    return SERVER_MARK + name, using


class Replay(Subcommand):
    """Lets a consumer handle messages once more."""

    name = "replay"
    help = "let a consumer handle messages once more"
    has_json = False
    has_database = False
    examples = """
streams replay order-totals --from -1
streams replay order-totals --from -1 --streams 'orders/7/**' --dry-run
"""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="name of the consumer")
        parser.add_argument(
            "--from", dest="start", required=True, help="an offset, -1 for the beginning, or now for the end"
        )
        parser.add_argument("--streams", default="", help="pattern of the paths of streams (default: all)")
        parser.add_argument("--dry-run", action="store_true", help="print what would be done")
        add_no_input(parser)
        parser.add_argument("--no-wait", action="store_false", dest="waits", help="do not wait for the workers")

    def run(self, console: Console, options: Options) -> None:
        (consumer,) = find([options["name"]])
        start, using = arguments.offset(options["start"]), consumer.alias
        which = Selection(options["streams"])
        cursors = replaying.plan(consumer, start, which, using)
        size = sum(cursor.bytes_to_handle for cursor in cursors)
        effects = "calls its reset function" if consumer.reset_function else "has no reset function"
        console.write(
            f"The replay of {consumer.name} from {options['start']} sets the cursors of {len(cursors)} streams, with "
            f"{size} bytes to handle, and {effects}."
        )
        if options["dry_run"]:
            for cursor in cursors if options["verbosity"] > 1 else ():
                console.write(f"{cursor.info.path}: {cursor.bytes_to_handle} bytes")
            return
        console.confirm("Go on?", options)
        count = replaying.replay(consumer, start, which, using)
        console.write(f"The cursors of {count} streams are set.")
        if options["waits"]:
            _follow(console, consumer)


def _follow(console: Console, consumer: Consumer) -> None:
    """Print the progress until all is handled, or no worker seems to run."""
    subscription_id = replaying.subscription_of(consumer, consumer.alias).pk
    rest = whole = unhandled_bytes(subscription_id, consumer.alias)
    last_change = time.monotonic()
    while rest:
        if time.monotonic() - last_change > IDLE_SECONDS:
            console.write("Nothing was handled for a while. Is manage.py streams_worker running?")
            return
        time.sleep(PROGRESS_SECONDS)
        before, rest = rest, unhandled_bytes(subscription_id, consumer.alias)
        whole = max(whole, rest)
        if rest != before:
            last_change = time.monotonic()
            console.write(f"{100 * (whole - rest) // max(whole, 1)} %, {rest} bytes left")
    console.write("All messages are handled.")
