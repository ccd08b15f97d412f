"""The settings, the system checks, the entry points, the migrations, and the cache of rate limits."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

from django.conf import settings
from django.core.cache import caches
from django.core.checks import ERROR, WARNING, run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import get_commands
from django.db import Error, connections
from django.db.migrations.executor import MigrationExecutor

from ...conf import config
from ...models import Stream
from ...runtime.configuration_errors import find_problem
from ...server.entry_points import asgi_module, asgi_module_serves_streams, has_url_entry_point, views_of_urls
from .findings import Finding, error, note, ok, warning

_PREFIX = "durable_streams."


def examine_settings() -> Iterator[Finding]:
    """Run the system checks of this app, those for a deployment too."""
    try:
        messages = run_checks(include_deployment_checks=True)
    except ImproperlyConfigured as problem:
        yield error("settings", str(problem), "Correct the settings.")
        return
    own = [message for message in messages if str(message.id).startswith(_PREFIX) and not message.is_silenced()]
    for message in own:
        make = error if message.level >= ERROR else warning if message.level >= WARNING else note
        yield make("settings", f"{message.msg} ({message.id})", message.hint or "")
    if not own:
        yield ok("settings", "The system checks have found nothing.")


def examine_entry_points() -> Iterator[Finding]:
    """Look for a place where the project serves streams. Where that cannot be told, there is no finding."""
    if has_url_entry_point():
        yield ok("entry points", "The URLs of the project serve the streams.")
        return
    serves = asgi_module_serves_streams()
    if serves:
        unloaded = " Django's own runserver does not load it." if settings.DEBUG and _runserver_is_of_django() else ""
        yield ok("entry points", f"The ASGI application in {asgi_module()} serves the streams.{unloaded}")
    elif serves is False and not any(_sends_streams(view) for view in views_of_urls()):
        yield note(
            "entry points",
            f"Neither the URLs of the project nor the ASGI application in {asgi_module()} serve the streams.",
            "If clients shall read them, mount DurableStreams in asgi.py, or include django_durable_streams.urls.",
        )


def _runserver_is_of_django() -> bool:
    """Return whether `runserver` is a WSGI server: no app such as daphne has another one."""
    return str(get_commands().get("runserver")).startswith("django.")


def _sends_streams(view: object) -> bool:
    """Return whether a view sends messages of streams in another way: as events of a page, or as answers of a chat."""
    return hasattr(view, "event_source_settings") or hasattr(view, "chat_views")


def examine_migrations(using: str) -> Iterator[Finding]:
    """Look for migrations of this app that the database lacks."""
    label = Stream._meta.app_label
    try:
        executor = MigrationExecutor(connections[using])
        targets = [node for node in executor.loader.graph.leaf_nodes() if node[0] == label]
        plan = [migration.name for migration, _ in executor.migration_plan(targets) if migration.app_label == label]
    except Error as problem:
        yield database_error(problem)
        return
    if plan:
        yield error(
            "migrations",
            f"The database lacks the migration {', '.join(plan)} of {label}.",
            f"Run manage.py migrate --database {using}",
        )
    else:
        yield ok("migrations", "All migrations are applied.")


def database_error(problem: Error) -> Finding:
    """Return the finding for an error of the database."""
    known_problem = find_problem(problem)
    text = " ".join(str(problem).split())
    if known_problem is None:
        return error("database", f"The database does not answer: {text}", "Start it, or correct DATABASES.")
    return error("database", f"{known_problem.message} ({text})", known_problem.remedy)


def examine_rate_limits() -> Iterator[Finding]:
    """Store and count in the cache of the rate limits, if there are limits."""
    settings = config()
    if not settings.rate_limits:
        yield ok("caches", "There are no rate limits, so no cache is needed.")
        return
    alias = settings.rate_limit_cache
    key = f"durable-streams-doctor-{secrets.token_hex(8)}"
    remedy = "Correct CACHES, or set RATE_LIMIT_CACHE to another cache that all processes share."
    try:
        cache = caches[alias]
        cache.set(key, 1, 60)
        count = cache.incr(key)
        cache.delete(key)
    except Exception as problem:  # the classes of errors are those of the backend
        reason = str(problem).rstrip(".")
        yield error("caches", f"The cache {alias!r} that counts RATE_LIMITS fails: {reason}.", remedy)
        return
    if count != 2:
        yield error("caches", f"The cache {alias!r} that counts RATE_LIMITS counts wrongly.", remedy)
    else:
        yield ok("caches", f"The cache {alias!r} counts the rate limits.")
