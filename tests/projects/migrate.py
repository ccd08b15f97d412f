"""Run in a project: make its tables, in all of its databases, and see that no migration is missing."""

import json

import django
from django.conf import settings
from django.core.management import call_command

if __name__ == "__main__":
    django.setup()
    call_command("check")
    call_command("makemigrations", "durable_streams", check=True, dry_run=True, verbosity=0)
    for alias in settings.DATABASES:
        call_command("migrate", database=alias, verbosity=0, run_syncdb=True)
    print(json.dumps({}))
