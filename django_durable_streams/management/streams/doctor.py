"""`manage.py streams doctor`."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator

from django.core.management.base import CommandError

from ..doctor.database import examine_database
from ..doctor.findings import Finding, Level
from ..doctor.project import examine_migrations, examine_rate_limits, examine_settings
from ..doctor.public_url import PublicURL, examine_url
from ..doctor.wakeups import examine_wakeups
from .base import Console, Options, Subcommand


class Doctor(Subcommand):
    """Examines an installation."""

    name = "doctor"
    help = "examine the settings, the database, Redis, and the way from clients to the servers"
    examples = """
streams doctor
streams doctor --url https://example.org/v1/stream/
streams doctor --url https://example.org/v1/stream/ --header 'Authorization: Bearer ...' --json

With --url, a stream below doctor/ is created, read through the URL, and deleted. So proxies that buffer are found.
The status is 1 if there is an error, and with --strict also if there is a warning.
"""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--url", help="root of the streams as clients see it")
        parser.add_argument("--header", action="append", default=[], help="a header to send, such as 'Cookie: a=b'")
        parser.add_argument("--strict", action="store_true", help="fail at warnings, too")

    def run(self, console: Console, options: Options) -> None:
        url = _url(options)
        failing = {Level.ERROR, Level.WARNING} if options["strict"] else {Level.ERROR}
        failures = 0
        for finding in _examine(url, console.using):
            failures += finding.level in failing
            remedy = f" {finding.remedy}" if finding.remedy else ""
            console.write(
                f"{finding.level.value:8} {finding.subject}: {finding.text}{remedy}",
                level=finding.level.value,
                subject=finding.subject,
                text=finding.text,
                remedy=finding.remedy,
            )
            console.flush()
        if failures:
            raise CommandError(f"{failures} of the findings must be corrected.")


def _url(options: Options) -> PublicURL | None:
    headers = {}
    for line in options["header"]:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise CommandError(f"{line!r} is not a header. Write 'Name: value'.")
        headers[name.strip()] = value.strip()
    if options["url"] is None:
        return None
    try:
        return PublicURL.of(options["url"], headers)
    except ValueError as error:
        raise CommandError(str(error)) from error


def _examine(url: PublicURL | None, using: str) -> Iterator[Finding]:
    yield from examine_settings()
    yield from examine_migrations(using)
    database = list(examine_database(using))
    yield from database
    yield from examine_rate_limits()
    if any(finding.level is Level.ERROR for finding in database):
        return  # nothing else can work
    yield from examine_wakeups(using)
    if url is not None:
        yield from examine_url(url, using)
