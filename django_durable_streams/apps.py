"""The Django application."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class DurableStreamsConfig(AppConfig):
    """Durable Streams in a Django project."""

    name = "django_durable_streams"
    label = "durable_streams"
    verbose_name = _("Durable Streams")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from .access import forgetting

        forgetting.connect()
        from .store.identity import create_after_migrate

        create_after_migrate(self)
        from . import (
            checks,  # noqa: F401  registers the system checks
            engine,  # noqa: F401  tells readers of what is committed
        )
