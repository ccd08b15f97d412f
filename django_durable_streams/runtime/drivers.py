"""The driver of PostgreSQL: Django works with psycopg2 too, and this package needs psycopg 3."""

from __future__ import annotations

from django.core.exceptions import ImproperlyConfigured

PROBLEM = "Streams on PostgreSQL need psycopg 3, and Django does not find it."
REMEDY = (
    "Install it: pip install 'django-durable-streams[postgresql]'. Django takes it in place of psycopg2 by itself, for "
    "the whole project."
)


def has_psycopg() -> bool:
    """Return whether Django uses psycopg 3. It uses psycopg2 also where psycopg 3 finds no libpq."""
    try:
        from django.db.backends.postgresql.psycopg_any import is_psycopg3
    except ImportError:  # there is neither
        return False
    return is_psycopg3


def require_psycopg() -> None:
    """Check that psycopg 3 is installed.

    Raises:
        ImproperlyConfigured: it is not.
    """
    if not has_psycopg():
        raise ImproperlyConfigured(f"{PROBLEM} {REMEDY}")
