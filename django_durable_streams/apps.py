"""The Django application."""

import sys
from pathlib import Path

from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy as _


class DurableStreamsConfig(AppConfig):
    """Durable Streams in a Django project."""

    name = "django_durable_streams"
    label = "durable_streams"
    verbose_name = _("Durable Streams")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from .access import invalidation

        invalidation.connect()
        from .store.database_identity import create_after_migrate

        create_after_migrate(self)
        from . import (
            checks,  # noqa: F401  registers the system checks
            engine,  # noqa: F401  tells readers about commits
        )
        from .engine.startup import warn_of_threads
        from .runtime.lifecycle import call_at_start
        from .server import control, listing
        from .server.validation import check_configuration
        from .server.wsgi_paths import keep_sent_paths
        from .subscriptions.routes import respond_control
        from .subscriptions.service import start_with_engine

        control.register(respond_control, "subscriptions", "jwks.json")
        control.register(listing.respond_listing, "streams")
        call_at_start(start_with_engine)
        keep_sent_paths()
        autodiscover_modules("streams")  # where the apps of the project declare consumers
        warn_of_threads()
        if not _is_command():
            check_configuration()


def _is_command() -> bool:
    """Whether this process runs a management command. Commands run the system checks, which report the same."""
    program = Path(sys.argv[0])
    return program.stem in ("manage", "django-admin") or program.parts[-2:] == ("django", "__main__.py")
