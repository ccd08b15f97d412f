"""Run in a project: make its tables, in all of its databases, and see that no migration is missing."""

import json

import django
from django.conf import settings
from django.core.management import call_command
from django.db import connections


def main() -> None:
    """Make the tables."""
    call_command("check")
    call_command("makemigrations", "durable_streams", check=True, dry_run=True, verbosity=0)
    for alias in settings.DATABASES:
        call_command("migrate", database=alias, verbosity=0, run_syncdb=True)
    connections.close_all()


if __name__ == "__main__":
    django.setup()
    main()
    print(json.dumps({}))
