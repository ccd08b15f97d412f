"""The base of commands whose output is a few lines that a person or a script wants."""

from __future__ import annotations

from typing import Any

from django.core.checks import run_checks
from django.core.management.base import BaseCommand


class ErrorsOnlyCommand(BaseCommand):
    """Refuses to work if the system checks have errors, and prints no warnings of theirs around its own lines.

    `manage.py check`, `runserver` and `streams doctor` show the warnings.
    """

    def check(self, *args: Any, **options: Any) -> Any:
        """See `BaseCommand`."""
        if any(message.is_serious() and not message.is_silenced() for message in run_checks()):
            return super().check(*args, **options)
        return None
