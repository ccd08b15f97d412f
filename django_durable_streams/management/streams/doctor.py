"""`manage.py streams doctor`."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from django.core.management.base import CommandError

from ...access.users import User
from ..doctor.database import examine_database
from ..doctor.findings import Finding, Level
from ..doctor.login import may_read, session_cookie
from ..doctor.project import examine_entry_points, examine_migrations, examine_rate_limits, examine_settings
from ..doctor.public_url import PublicURL, examine_url
from ..doctor.wakeups import examine_wakeups
from ..users import find_user
from .base import Console, Options, Subcommand, header_argument


class Doctor(Subcommand):
    """Examines an installation."""

    name = "doctor"
    help = "examine the settings, the database, Redis, and the way from clients to the servers"
    examples = """
streams doctor
streams doctor --url https://example.org/v1/stream/
streams doctor --url https://example.org/v1/stream/ --user ada
streams doctor --url https://example.org/v1/stream/ --header 'Authorization: Bearer ...' --json

With --url, a stream below doctor/ is created, read through the URL, and deleted. So proxies that buffer are found.
The status is 1 if there is an error, and with --strict also if there is a warning.
"""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--url", help="root of the streams as clients see it")
        parser.add_argument(
            "--header",
            action="append",
            default=[],
            type=header_argument,
            help="a header to send, such as 'Cookie: a=b'",
        )
        parser.add_argument("--user", help="read through the URL as this user, by a session of some minutes")
        parser.add_argument("--strict", action="store_true", help="fail at warnings, too")

    def run(self, console: Console, options: Options) -> None:
        user = find_user(options["user"]) if options["user"] is not None and options["url"] is not None else None
        with _credentials(user, options) as headers:
            self._examine(console, user, _url(options, headers), options)

    def _examine(self, console: Console, user: User | None, url: PublicURL | None, options: Options) -> None:
        failing = {Level.ERROR, Level.WARNING} if options["strict"] else {Level.ERROR}
        failures = 0
        for finding in _examine(user, url, console.using):
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


@contextmanager
def _credentials(user: User | None, options: Options) -> Iterator[dict[str, str]]:
    """Return the headers to send, with the session of `--user` while the block runs."""
    headers = dict(options["header"])
    if user is None:
        yield headers
        return
    try:
        with session_cookie(user) as cookie:
            yield {**headers, "Cookie": cookie}
    except ValueError as error:
        raise CommandError(str(error)) from error


def _url(options: Options, headers: dict[str, str]) -> PublicURL | None:
    if options["url"] is None:
        return None
    try:
        return PublicURL.of(options["url"], headers, options["user"] or "")
    except ValueError as error:
        raise CommandError(str(error)) from error


def _examine(user: User | None, url: PublicURL | None, using: str) -> Iterator[Finding]:
    yield from examine_settings()
    yield from examine_entry_points()
    yield from examine_migrations(using)
    database = list(examine_database(using))
    yield from database
    yield from examine_rate_limits()
    if any(finding.level is Level.ERROR for finding in database):
        return  # nothing else can work
    wakeups = list(examine_wakeups(using))
    yield from wakeups
    if url is not None:
        wakes = all(finding.level is Level.OK for finding in wakeups)
        yield from examine_url(url, using, wakes=wakes, may_read=partial(may_read, user, url))
