"""`manage.py streams prune-answers`."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import timedelta

from django.apps import apps
from django.core.management.base import CommandError
from django.utils import timezone

from .base import Console, Options, Subcommand, add_dry_run, add_hint, counted, duration
from .progress import progress

APP = "django_durable_streams.contrib.ai"


class PruneAnswers(Subcommand):
    """Removes the rows of AI answers that have ended. Nothing of a chat is lost, for its stream has the messages."""

    name = "prune-answers"
    help = "remove the rows of AI answers that ended long ago; their chats stay as they are"
    examples = """
streams prune-answers 30d --dry-run    count the answers that ended more than 30 days ago
streams prune-answers 30d --no-input   remove their rows, as a daily job does
"""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("age", type=duration, metavar="DURATION", help="how long ago they ended, such as 30d")
        for option in ("--older-than", "--idle"):
            add_hint(parser, option, "Write the duration alone: streams prune-answers 30d")
        add_dry_run(parser, "count what would be removed")

    def run(self, console: Console, options: Options) -> None:
        if not apps.is_installed(APP):
            raise CommandError(f"There are no AI answers: {APP} is not in INSTALLED_APPS.")
        from ...contrib.ai import pruning

        try:
            moment = timezone.now() - timedelta(seconds=options["age"])
        except OverflowError:
            raise CommandError("The duration is too long.") from None
        count, is_dry = pruning.ended_before(moment, console.using).count(), options["dry_run"]
        if count and not is_dry:
            console.confirm(f"Remove the rows of {counted(count, 'answer')}?", options)
            with progress(console, "answers removed", count) as counting:
                count = 0
                for removed in pruning.prune(moment, console.using):
                    count += removed
                    counting.add(removed)
        console.write(
            f"{counted(count, 'answer')} {'would be ' if is_dry else ''}removed.", removed=count, dry_run=is_dry
        )
