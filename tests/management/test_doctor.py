"""`manage.py streams doctor`: each fault is planted, and found by name."""

import asyncio
import contextlib
import itertools
import re
import shutil
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management.base import CommandError
from django.db import connection
from django.test import override_settings

from django_durable_streams.management.doctor import database, project, public_url, wakeups
from django_durable_streams.management.doctor.findings import Finding, Level
from django_durable_streams.management.doctor.public_url import PublicURL
from django_durable_streams.models import Stream
from tests import preloaded
from tests.certificates import tls_contexts
from tests.listening import Listener
from tests.management import silent
from tests.management.commands import Shell, rows, streams
from tests.overriding import override_streams
from tests.servers import EXAMPLE, Server, free_port, migrated_sqlite_file
from tests.services import Nginx, Redis, shared

LOCMEM = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
DUMMY = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}


def worst(findings: Iterator[Finding] | list[Finding]) -> tuple[str, str]:
    """Return the worst level, and the texts and remedies of that level."""
    order = [Level.OK, Level.NOTE, Level.WARNING, Level.ERROR]
    examined = list(findings)
    level = max((finding.level for finding in examined), key=order.index)
    return level.value, " ".join(f"{one.text} {one.remedy}" for one in examined if one.level is level)


# --- the project and the database


@pytest.mark.django_db
def test_an_installation_is_examined() -> None:
    examined = rows("doctor")
    assert {row["subject"] for row in examined} >= {"migrations", "database", "caches", "wake-ups", "clocks"}
    assert not [row for row in examined if row["level"] == "error"]
    assert not Stream.objects.exists()
    assert "ok       migrations: All migrations are applied." in streams("doctor")


@pytest.mark.django_db
@pytest.mark.parametrize("arguments", [("--url", "example.org"), ("--url", "ftp://x/"), ("--header", "x")])
def test_wrong_arguments_are_refused(arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError, match="Write"):
        streams("doctor", *arguments)


@pytest.mark.django_db
def test_findings_of_the_system_checks_are_shown() -> None:
    with override_streams(PERMISSION_CLASSES="nothing.Here"):
        level, text = worst(project.examine_settings())
    assert level == "error"
    assert "nothing.Here" in text


@pytest.mark.django_db
def test_a_missing_migration_is_named() -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'durable_streams' AND name = '0001_initial'")
    level, text = worst(project.examine_migrations("default"))
    assert level == "error"
    assert "0001_initial" in text
    assert "manage.py migrate" in text


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("caches", "limits", "expected"),
    [
        (LOCMEM, {"read": "1/s"}, "ok"),
        (DUMMY, {"read": "1/s"}, "error"),
        (DUMMY, {}, "ok"),
        ({}, {"read": "1/s"}, "error"),
    ],
)
def test_a_cache_that_does_not_count_is_found(caches: Any, limits: dict[str, str], expected: str) -> None:
    with override_settings(CACHES=caches), override_streams(RATE_LIMITS=limits):
        assert worst(project.examine_rate_limits())[0] == expected


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("vendor", "values", "expected", "named"),
    [
        ("sqlite", {"journal_mode": "delete", "synchronous": 2}, "warning", "journal mode is delete"),
        ("sqlite", {"journal_mode": "wal", "synchronous": 0}, "error", "synchronous is OFF"),
        ("sqlite", {"journal_mode": "wal", "synchronous": 1}, "warning", "synchronous is NORMAL"),
        ("sqlite", {"journal_mode": "wal", "synchronous": 2}, "ok", "survives"),
        ("postgresql", {"recovery": True, "fsync": "on", "commit": "on"}, "error", "standby"),
        ("postgresql", {"recovery": False, "fsync": "off", "commit": "on"}, "error", "fsync is off"),
        (
            "postgresql",
            {"recovery": False, "fsync": "on", "synchronous_commit": "off"},
            "warning",
            "synchronous_commit",
        ),
        ("postgresql", {"recovery": False, "fsync": "on", "synchronous_commit": "on"}, "ok", "survives"),
        ("mysql", {"flush": 2}, "warning", "innodb_flush_log_at_trx_commit"),
        ("mysql", {"flush": 1}, "ok", "survives"),
    ],
)
def test_unsafe_options_of_a_database_are_found(
    monkeypatch: pytest.MonkeyPatch, vendor: str, values: dict[str, Any], expected: str, named: str
) -> None:
    def value(using: str, sql: str) -> Any:
        return next((answer for name, answer in values.items() if name in sql), "on")

    monkeypatch.setattr(database, "_value", value)
    level, text = worst(getattr(database, f"_{vendor}")("default"))
    assert level == expected
    assert named in text


@pytest.mark.django_db
def test_the_options_of_this_database_can_be_read() -> None:
    assert worst(database.examine_database("default"))[0] in ("ok", "warning")


@pytest.mark.django_db
def test_clocks_that_differ_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(database._TIME, connection.vendor, "SELECT 1000000000")
    level, text = worst(database._clocks("default", connection.vendor))
    assert level == "warning"
    assert "clock of the database" in text
    monkeypatch.undo()
    assert worst(database._clocks("default", connection.vendor))[0] == "ok"
    Stream.objects.create(path="a")
    Stream.objects.unguarded().update(generation=4 * 10**15)
    assert "in the future" in worst(database._clocks("default", connection.vendor))[1]


# --- wake-ups


def test_a_backend_without_messages_is_noted() -> None:
    assert worst(wakeups.examine_wakeups("default"))[0] == "note"


def test_a_backend_that_cannot_be_made_is_an_error() -> None:
    with override_streams(WAKEUP={"BACKEND": "nothing.Here"}):
        assert worst(wakeups.examine_wakeups("default"))[0] == "error"


def test_a_redis_that_is_away_is_an_error() -> None:
    backend = "django_durable_streams.engine.wakeup.redis.RedisWakeup"
    with override_streams(WAKEUP={"BACKEND": backend, "URL": f"redis://127.0.0.1:{free_port()}/0"}):
        level, text = worst(wakeups.examine_wakeups("default"))
    assert level == "error"
    assert "Redis does not answer" in text


BACKEND = "django_durable_streams.engine.wakeup.redis.RedisWakeup"


@pytest.mark.parametrize(
    "url",
    [
        "redis://:{port}/geheim@h:1/0",
        "redis://:{port}#geheim@h:1",
        "redis://:{port}?a@geheim",
        "redis://:{port}?geheim=a@h:1/0",
        "redis://:x@geheim/y@127.0.0.1:{port}/0",
        "redis://:x@geheim#y@127.0.0.1:{port}/0",
    ],
)
def test_no_part_of_a_password_that_is_not_encoded_is_named(url: str) -> None:
    with override_streams(WAKEUP={"BACKEND": BACKEND, "URL": url.format(port=free_port())}):
        _, text = worst(wakeups.examine_wakeups("default"))
    assert "/ as %2F" in text
    assert "geheim" not in text


def test_the_remedy_for_a_redis_that_is_away_names_the_setting_without_a_password(settings: Any) -> None:
    port = free_port()
    with override_streams(WAKEUP={"BACKEND": BACKEND, "URL": f"redis://:geheim@127.0.0.1:{port}/3?protocol=3"}):
        _, text = worst(wakeups.examine_wakeups("default"))
    assert text.endswith(f"correct the URL in DURABLE_STREAMS['WAKEUP'], which names redis://127.0.0.1:{port}/3")
    assert "CACHES" not in text
    assert "geheim" not in text
    location = f"redis://127.0.0.1:{port}/0"
    settings.CACHES = {"default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": location}}
    with override_streams(WAKEUP={"BACKEND": BACKEND, "CACHE": "default"}):
        _, text = worst(wakeups.examine_wakeups("default"))
    assert "correct the cache 'default' in CACHES" in text
    assert "URL" not in text


@pytest.mark.cluster
@pytest.mark.django_db
def test_a_message_that_does_not_arrive_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_durable_streams.management.doctor.child_process.send", silent.send)
    monkeypatch.setattr(wakeups, "CHILD_SECONDS", 0.2)
    backend = "django_durable_streams.engine.wakeup.redis.RedisWakeup"
    with override_streams(WAKEUP={"BACKEND": backend, "URL": shared(Redis).url}):
        level, text = worst(wakeups.examine_wakeups("default"))
    assert level == "error"
    assert "did not arrive" in text


# --- through a URL


Fault = Callable[[bytes, AsyncIterator[bytes]], AsyncIterator[bytes]]


class Proxy:
    """A proxy with a fault, in front of a server, in a thread of its own.

    Args:
        port: the port of the server.
        fault: what it does to a response, given as its head and an iterator of the parts of its body.
    """

    def __init__(self, port: int, fault: Fault) -> None:
        self.port = free_port()
        self._target = port
        self._fault = fault
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Proxy":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *args: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        async with Listener(self._handle, port=self.port):
            self._ready.set()
            await self._stop.wait()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
            back.write(head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            try:
                answer = await there.readuntil(b"\r\n\r\n")
                async for part in self._fault(answer, _parts(there)):
                    writer.write(part)
                    await writer.drain()
            finally:
                back.close()


async def _parts(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while part := await reader.read(65536):
        yield part


async def passing(head: bytes, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for part in parts:
        yield part


async def buffering(head: bytes, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """What nginx does with `proxy_buffering on`, if it ignores X-Accel-Buffering."""
    yield head.replace(b"\r\n", b"\r\nServer: nginx/1.24.0\r\n", 1)
    yield b"".join([part async for part in parts])


async def stripping(head: bytes, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"stream-")]
    async for part in passing(b"\r\n".join(lines), parts):
        yield part


async def refusing(head: bytes, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


async def elsewhere(head: bytes, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"


async def missing(head: bytes, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 404 Not Found\r\nContent-Length: 13\r\nConnection: close\r\n\r\n<h1>404</h1>\r\n"


async def failing(head: bytes, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    body = b'{"type": "about:blank", "detail": "The migrations are missing."}'
    yield b"HTTP/1.1 503 Away\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body)


async def timing_out(head: bytes, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 504 Gateway Time-out\r\nContent-Length: 12\r\nConnection: close\r\n\r\n<h1>504</h1>"


async def limiting(head: bytes, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    body = b'{"detail": "Too many live readers."}'
    yield b"HTTP/1.1 429 Slow\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body)


def later(fault: Fault) -> Fault:
    """A fault that begins after the first response, which is the one of the plain read."""
    numbers = itertools.count()

    def choose(head: bytes, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        return fault(head, parts) if next(numbers) else passing(head, parts)

    return choose


async def redirecting(head: bytes, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 301 M\r\nLocation: https://x.example/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


async def in_another_time(head: bytes, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"date:")]
    lines.insert(1, b"Date: Sat, 01 Jan 2000 00:00:00 GMT")
    async for part in passing(b"\r\n".join(lines), parts):
        yield part


async def marking(head: bytes, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The header of a compression is enough: what is compressed is not looked into."""
    async for part in passing(head.replace(b"\r\n", b"\r\nContent-Encoding: identity2\r\n", 1), parts):
        yield part


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(long_poll_timeout=20) as running:
        yield running


@pytest.mark.parametrize(
    ("fault", "status", "named"),
    [
        (passing, 0, "SSE: An event arrived"),
        (buffering, 1, "names nginx. In nginx, set `proxy_buffering off`"),
        (stripping, 1, "removes Stream-Next-Offset"),
        (refusing, 1, "--header"),
        (elsewhere, 1, "does not show a stream of this database"),
        (missing, 1, "runserver does not load asgi.py, unless its output has the line 'Starting ASGI/Daphne'."),
        (failing, 1, "cannot answer (503). It says: The migrations are missing."),
        (redirecting, 1, "redirects to https://x.example/ (301)"),
        (in_another_time, 0, "clock of the server behind the URL"),
        (marking, 0, "compresses event streams"),
    ],
)
def test_a_fault_on_the_way_is_found(server: Server, fault: Fault, status: int, named: str) -> None:
    with Proxy(server.port, fault) as proxy:
        url = f"http://127.0.0.1:{proxy.port}/v1/stream/"
        done = Shell(server.env).run("doctor", "--url", url)
    assert named in done.stdout.decode(), done.stdout.decode() + done.stderr.decode()
    assert done.returncode == status
    assert Shell(server.env).output("list", "doctor/") == b""


OF_PROXIES = ("Let the proxy wait", "Serve the URL by ASGI")


@pytest.mark.parametrize(
    ("fault", "named", "is_proxy"),
    [
        (failing, "(status 503). It says: The migrations are missing. The log of the server has more.", False),
        (limiting, "(status 429). It says: Too many live readers. The log of the server has more.", False),
        (timing_out, "(status 504).", True),
    ],
)
def test_a_live_read_that_is_refused_has_the_words_of_the_server_and_no_hint_about_proxies(
    server: Server, fault: Fault, named: str, is_proxy: bool
) -> None:
    with Proxy(server.port, later(fault)) as proxy:
        done = Shell(server.env).run("doctor", "--url", f"http://127.0.0.1:{proxy.port}/v1/stream/")
    text = done.stdout.decode()
    assert f"A long-poll was not answered with the data that was appended {named}" in text
    assert f"No event arrived {named}" in text
    assert [hint in text for hint in OF_PROXIES] == [is_proxy] * 2
    assert done.returncode == 1


def test_the_url_is_read_as_a_user_by_a_session_that_is_deleted() -> None:
    code = (
        "from django.contrib.auth.models import User; from django.contrib.sessions.models import Session; "
        "print(User.objects.get(username='ada').last_login, Session.objects.count())"
    )
    create = (
        "from django.contrib.auth.models import User; User.objects.create_superuser('ada', password='tea'); "
        "User.objects.create_user('bob')"
    )
    with Server(env={"PERMISSION": "django_durable_streams.permissions.ModelPermissions"}) as running:
        shell = [sys.executable, "manage.py", "shell", "--verbosity", "0", "-c"]
        preloaded.run([*shell, create], cwd=EXAMPLE, env=running.env, timeout=60).check_returncode()
        url = f"http://127.0.0.1:{running.port}/v1/stream/"
        refused = Shell(running.env).run("doctor", "--url", url)
        assert b"--user NAME" in refused.stdout
        refused = Shell(running.env).run("doctor", "--url", url, "--user", "bob")
        assert b"bob may not read doctor/** (403)" in refused.stdout
        assert b'(OWNER: "doctor/**": ["read"])' in refused.stdout
        text = Shell(running.env).output("doctor", "--url", url, "--user", "ada").decode()
        assert "SSE: An event arrived" in text
        shown = preloaded.run([*shell, code], cwd=EXAMPLE, env=running.env, timeout=60)
        assert shown.stdout.split() == ["None", "0"]


def test_a_server_that_does_not_know_the_session_of_this_shell_is_told_from_one_that_refuses_the_user(
    tmp_path: Path,
) -> None:
    create = "from django.contrib.auth.models import User; User.objects.create_superuser('ada', password='tea')"
    shutil.copyfile(migrated_sqlite_file(), tmp_path / "db.sqlite3")
    with Server(env={"PERMISSION": "django_durable_streams.permissions.ModelPermissions"}) as running:
        other = {**running.env, "DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}", "SECRET_KEY": "x" * 60}
        shell = [sys.executable, "manage.py", "shell", "--verbosity", "0", "-c"]
        preloaded.run([*shell, create], cwd=EXAMPLE, env=other, timeout=60).check_returncode()
        url = f"http://127.0.0.1:{running.port}/v1/stream/"
        done = Shell(other).run("doctor", "--url", url, "--user", "ada", "--header", f"host: localhost:{running.port}")
    text = done.stdout.decode()
    assert "The server refuses ada (403), whom the settings of this shell let read doctor/**." in text
    assert "'user anonymous', and it has another database, SECRET_KEY" in text
    assert "ada may not read" not in text
    assert done.returncode == 1


@pytest.mark.cluster
def test_wake_ups_that_do_not_reach_the_server_are_found_by_the_time_of_events() -> None:
    with Server(long_poll_timeout=20, env={"REDIS_URL": shared(Redis).url}) as running, Redis() as other:
        url = f"http://127.0.0.1:{running.port}/v1/stream/"
        right = Shell(running.env).run("doctor", "--url", url)
        wrong = Shell({**running.env, "REDIS_URL": other.url}).run("doctor", "--url", url)
    for done, is_named in ((right, False), (wrong, True)):
        text = done.stdout.decode()
        assert "SSE: An event arrived" in text, text
        assert ("warning  SSE: Events arrive only by polling" in text) == is_named, text
        assert ("Compare DURABLE_STREAMS['WAKEUP'] of this shell and of the servers" in text) == is_named
        assert done.returncode == 0


def test_the_host_that_a_server_refuses_is_named_with_its_own_words(server: Server) -> None:
    url = f"http://127.0.0.1:{server.port}/v1/stream/"
    done = Shell(server.env).run("doctor", "--url", url, "--header", "Host: wrong.example")
    text = done.stdout.decode()
    assert "It says: The Host of the request is not allowed." in text
    assert "wrong.example" in text
    assert "database of this process" not in text
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b'{"detail": "Why."}', " It says: Why."),
        (b"<html>400</html>", ""),
        (b"[1]", ""),
        (b'{"detail": 5}', ""),
        (b"\xff", ""),
        (b"", ""),
    ],
)
def test_the_detail_of_a_problem_is_read(body: bytes, detail: str) -> None:
    assert public_url._detail(body) == detail


NGINX = """
server {{
    listen {{port}};
    location / {{
        proxy_pass http://127.0.0.1:{port};
        proxy_set_header Host $http_host;
        {options}
    }}
}}
"""


MODERN = 'proxy_http_version 1.1; proxy_set_header Connection "";'
BUFFERING = "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;"


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("options", "status", "named"),
    [
        (MODERN, 0, "SSE: An event arrived"),
        ("proxy_buffering on;", 0, "SSE: An event arrived"),  # X-Accel-Buffering switches it off
        ("gzip on; gzip_types text/event-stream; gzip_proxied any;", 0, "compresses event streams (gzip)"),
        ("proxy_hide_header Stream-Next-Offset;", 1, "removes Stream-Next-Offset"),
        ("proxy_read_timeout 300ms;", 1, "A long-poll was not answered"),
        ("rewrite ^/v1/(.*)$ /v2/$1 break;", 1, "does not run asgi.py"),
    ],
    ids=["right", "buffers-others", "compresses", "hides", "impatient", "elsewhere"],
)
def test_a_fault_of_nginx_is_found(server: Server, options: str, status: int, named: str) -> None:
    with Nginx(NGINX.format(port=server.port, options=options)) as nginx:
        done = Shell(server.env).run("doctor", "--url", f"{nginx.url}/v1/stream/")
    assert named in done.stdout.decode(), done.stdout.decode() + done.stderr.decode()
    assert done.returncode == status


@pytest.mark.cluster
def test_nginx_that_buffers_is_found() -> None:
    """nginx passes the chunks of uvicorn on at once, though it buffers. Over HTTP/1.0 Daphne sends none."""
    with Server("daphne") as server, Nginx(NGINX.format(port=server.port, options=BUFFERING)) as nginx:
        done = Shell(server.env).run("doctor", "--url", f"{nginx.url}/v1/stream/")
    assert "names nginx. In nginx, set `proxy_buffering off`" in done.stdout.decode(), done.stdout.decode()
    assert done.returncode == 1


@pytest.mark.django_db
def test_a_url_that_nobody_serves_is_an_error() -> None:
    url = PublicURL.of(f"http://127.0.0.1:{free_port()}/v1/stream", {})
    level, text = worst(public_url.examine_url(url, "default"))
    assert level == "error"
    assert re.search(r"does not answer: .+[^.]\. Check the URL", text)
    assert not Stream.objects.alive().exists()


@pytest.mark.django_db
def test_a_certificate_that_signs_itself_is_an_error_with_its_remedy() -> None:
    context, _ = tls_contexts("127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def shake_hands() -> None:
            peer, _ = listener.accept()
            with peer, contextlib.suppress(OSError):
                context.wrap_socket(peer, server_side=True)

        thread = threading.Thread(target=shake_hands)
        thread.start()
        url = PublicURL.of(f"https://127.0.0.1:{listener.getsockname()[1]}/v1/stream", {})
        level, text = worst(public_url.examine_url(url, "default"))
        thread.join(10)
    assert level == "error"
    assert "does not trust the certificate: self-signed certificate" in text
    assert "SSL_CERT_FILE=" in text
