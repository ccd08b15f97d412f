"""Run in a project: everything that streams do, through each entry point and in Python, and what came of it.

Prints what differs from what should be; nothing, where all is well.
"""

import json
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import django
from django.conf import settings
from django.db import connections, router
from django.utils import timezone

from tests.projects import migrate

TEXT = "text/plain"
BIG = b"x" * (3 * 1024 * 1024)
SECONDS = 20.0
MIGRATE = "--migrate"
"""The argument with which the tables are made first, in the same process."""


class Tour:
    """Goes through an entry point."""

    def __init__(self, name: str) -> None:
        from tests.projects.callers import ENTRY_POINTS, root

        self.name = name
        self.root = root()
        self.call = ENTRY_POINTS[name]()
        self.wrong: list[str] = []

    def expect(self, what: str, actual: object, expected: object) -> None:
        """Note what is not as it should be."""
        if actual != expected:
            self.wrong.append(f"{self.name}: {what} is {str(actual)[:300]!r}, and not {str(expected)[:300]!r}")

    def go(self) -> None:
        """Do everything."""
        for step in (self.lives, self.appends, self.forks, self.follows, self.ends):
            try:
                step()
            except Exception as error:
                self.wrong.append(f"{self.name}: {step.__name__} raised {type(error).__name__}: {error}")

    def lives(self) -> None:
        """Streams with a TTL and with an expiry."""
        answer = self.call("PUT", f"{self.name}/ttl", content_type=TEXT, stream_ttl="3600")
        self.expect("a create with a TTL", answer.status, 201)
        location = f"http://testserver{self.root}{self.name}/ttl"
        self.expect("its Location", answer.headers.get("location"), location)
        moment = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=2)
        expires_at = moment.isoformat().replace("+00:00", "Z")
        for status in (201, 200):
            answer = self.call("PUT", f"{self.name}/expiry", content_type=TEXT, stream_expires_at=expires_at)
            self.expect("a create with an expiry", (answer.status, answer.body), (status, b""))
        answer = self.call("HEAD", f"{self.name}/expiry")
        self.expect("its expiry", answer.headers.get("stream-expires-at"), expires_at)
        self.expect(
            "a short life", self.call("PUT", f"{self.name}/short", content_type=TEXT, stream_ttl="1").status, 201
        )

    def appends(self) -> None:
        """Appends and reads, of little and of much."""
        path = f"{self.name}/log"
        self.expect("a create", self.call("PUT", path, b"one ", content_type=TEXT).status, 201)
        self.expect("an append", self.call("POST", path, b"two ", content_type=TEXT).status, 204)
        answer = self.call("GET", path)
        self.expect("a read", (answer.status, answer.body), (200, b"one two "))
        self.expect("a large append", self.call("POST", path, BIG, content_type=TEXT).status, 204)
        offset = answer.headers["stream-next-offset"]
        self.expect("a large read", len(self.call("GET", f"{path}?offset={offset}").body), len(BIG))

    def forks(self) -> None:
        """A fork, whose source is named by its whole path."""
        answer = self.call("PUT", f"{self.name}/fork", stream_forked_from=f"{self.root}{self.name}/log")
        self.expect("a fork", (answer.status, answer.body), (201, b""))
        answer = self.call("PUT", f"{self.name}/expiry/fork", stream_forked_from=f"{self.root}{self.name}/expiry")
        self.expect("a fork that will end", (answer.status, answer.body), (201, b""))
        self.expect("what it has", self.call("GET", f"{self.name}/fork").body[:8], b"one two ")

    def follows(self) -> None:
        """A live read of a closed stream, to its end."""
        path = f"{self.name}/live"
        self.call("PUT", path, b"all", content_type=TEXT, stream_closed="true")
        answer = self.call("GET", f"{path}?offset=-1&live=sse")
        if self.name == "wsgi":
            self.expect("a live read", answer.status, 501)
            return
        self.expect("a live read", (answer.status, b"event: data\ndata:all" in answer.body), (200, True))
        self.expect("its end", b'"streamClosed":true' in answer.body, True)

    def ends(self) -> None:
        """A delete."""
        self.expect("a delete", self.call("DELETE", f"{self.name}/ttl").status, 204)
        self.expect("what was deleted", self.call("GET", f"{self.name}/ttl").status, 404)


def python() -> list[str]:
    """Do the same in Python, with datetimes as the project has them."""
    from django_durable_streams.models import Stream

    wrong = []
    soon = timezone.now() + timedelta(hours=1)
    stream = Stream.objects.create(path="python", content_type="application/json", expires_at=soon)
    stream.append({"a": 1})
    fork = stream.fork("python/fork", ttl=60)
    if list(fork.read()) != [{"a": 1}]:
        wrong.append(f"python: the fork has {list(fork.read())}")
    for example in (stream, Stream.objects.get(path="python"), Stream.objects.get(path="asgi/expiry")):
        if example.expires_at is None or timezone.is_aware(example.expires_at) != settings.USE_TZ:
            wrong.append(f"python: an expiry is {example.expires_at!r}")
    if stream.expires_at != soon:
        wrong.append(f"python: an expiry of {soon!r} is {stream.expires_at!r}")
    if not Stream.objects.alive().filter(path="python", deadline__gt=timezone.now()).exists():
        wrong.append("python: it is not found by its deadline")
    if not Stream.objects.filter(created_at__lte=timezone.now(), appended_at__isnull=False, path="python").exists():
        wrong.append("python: it is not found by its creation")
    return wrong


def admin() -> list[str]:
    """Open the admin's pages as a superuser."""
    from django.contrib.auth import get_user_model
    from django.test import Client

    from django_durable_streams.models import Stream

    client = Client()
    client.force_login(get_user_model().objects.create_superuser("ada", "ada@example.com"))  # a password takes a second
    before = settings.FORCE_SCRIPT_NAME or ""
    wrong = []
    # The short ones may be removed at any moment.
    streams = Stream.objects.filter(path__isnull=False).exclude(path__endswith="/short")
    pages = ["", "add/", "?expiry=day", *(f"{stream.pk}/change/" for stream in streams)]
    for page in pages:
        url = f"/admin/durable_streams/stream/{page}"
        answer = client.get(url)
        if answer.status_code != 200:
            wrong.append(f"admin: {before}{url} is {answer.status_code} {answer.headers.get('Location')}")
    return wrong


def housekeeping() -> list[str]:
    """Wait until what has expired is removed by the engine's own thread."""
    from django_durable_streams.models import Stream

    until = time.monotonic() + SECONDS
    while left := list(Stream.objects.filter(path__endswith="/short").values_list("path", flat=True)):
        if time.monotonic() > until:
            return [f"housekeeping: {left} are still there"]
        time.sleep(0.1)
    return []


def main(entry_points: list[str]) -> dict[str, Any]:
    """Go through everything."""
    from django_durable_streams.models import Stream
    from django_durable_streams.testing import stop_engines

    wrong: list[str] = []
    for name in entry_points:
        tour = Tour(name)
        tour.go()
        wrong += tour.wrong
    for step in (python, admin, housekeeping):
        try:
            wrong += step()
        except Exception as error:
            wrong.append(f"{step.__name__}: {type(error).__name__}: {error}")
    stop_engines()
    alias = router.db_for_write(Stream)
    connections.close_all()
    return {"wrong": wrong, "streams": Stream.objects.using(alias).count()}


if __name__ == "__main__":
    django.setup()
    arguments = sys.argv[1:]
    if MIGRATE in arguments:
        arguments.remove(MIGRATE)
        migrate.main()
    print(json.dumps(main(arguments)))
