"""`manage.py streams_rotate_key`: makes a new key that signs webhooks."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError
from django.db import router

from ...models import Stream
from ...protocol.errors import DurableStreamsError
from ...subscriptions import signing_keys
from ..errors_only import ErrorsOnlyCommand


class Command(ErrorsOnlyCommand):
    """Rotates the key that signs webhooks."""

    help = (
        "Makes a new key that signs webhooks. It is published now and signs six minutes later, when caches have it. "
        "The old key then stays published for an hour."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--database", help="Alias of the database. Default: the database of the streams.")
        parser.add_argument(
            "--revoke",
            action="store_true",
            help="Delete the old keys now, because somebody else may have one. Receivers then refuse their signatures.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        using = options["database"] or router.db_for_write(Stream)
        try:
            key = signing_keys.rotate(using, revoke=options["revoke"])
            signs_now = signing_keys.active_key(using).kid == key.kid
        except DurableStreamsError as error:
            raise CommandError(error.detail) from error
        when = "now" if signs_now else f"in {signing_keys.HEAD_START_SECONDS // 60} minutes"
        self.stdout.write(f"{key.kid} signs webhooks {when}.")
