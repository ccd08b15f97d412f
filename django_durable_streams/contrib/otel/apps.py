"""The Django application of traces."""

from django.apps import AppConfig


class OpenTelemetryConfig(AppConfig):
    """Traces of streams in a Django project."""

    name = "django_durable_streams.contrib.otel"
    label = "durable_streams_otel"
    verbose_name = "Traces of streams"

    def ready(self) -> None:
        from ...runtime import tracing
        from .tracer import OpenTelemetryTracer

        tracing.use(OpenTelemetryTracer())
