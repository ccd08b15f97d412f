"""The Django application of metrics for Prometheus."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class PrometheusConfig(AppConfig):
    """Metrics for Prometheus in a Django project."""

    name = "django_durable_streams.contrib.prometheus"
    label = "durable_streams_prometheus"
    verbose_name = _("Metrics for Prometheus")

    def ready(self) -> None:
        from .registration import register

        register()
