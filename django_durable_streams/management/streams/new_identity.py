"""`manage.py streams new-identity`."""

from __future__ import annotations

from argparse import ArgumentParser

from django.db import connections

from ...store.database_identity import renew_identity
from .base import Console, Options, Subcommand, add_no_input


class NewIdentity(Subcommand):
    """Distinguishes a copy of a database from its original."""

    name = "new-identity"
    help = "give a copy of a database an identity of its own, before anything else runs on the copy"
    examples = """
streams new-identity               asks, and names the database
streams new-identity --no-input

Wake-ups tell a copy from its original by its location. A copy of all files of a database server may have the same one.
Give it a new identity, if it uses the same Redis and SECRET_KEY. Processes that already use the database take it
within a minute, or at once after a restart.
"""

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_no_input(parser)

    def run(self, console: Console, options: Options) -> None:
        name = str(connections[console.using].settings_dict["NAME"])
        console.confirm(f"Give the database {name} a new identity?", options)
        renew_identity(console.using)
        console.write(f"The database {name} has a new identity.", database=name)
