"""The Django application of metrics for Prometheus."""

from django.apps import AppConfig


class PrometheusConfig(AppConfig):
    """Metrics for Prometheus in a Django project."""

    name = "django_durable_streams.contrib.prometheus"
    label = "durable_streams_prometheus"
    verbose_name = "Metrics for Prometheus"

    def ready(self) -> None:
        from .registration import register

        register()
