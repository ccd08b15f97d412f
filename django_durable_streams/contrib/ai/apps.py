"""The Django application of AI answers."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class AIConfig(AppConfig):
    """AI answers in a Django project."""

    name = "django_durable_streams.contrib.ai"
    label = "durable_streams_ai"
    verbose_name = _("AI answers")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from ...runtime.lifecycle import call_at_start
        from . import checks  # noqa: F401  registers the system checks
        from .service import start_with_engine

        call_at_start(start_with_engine)
