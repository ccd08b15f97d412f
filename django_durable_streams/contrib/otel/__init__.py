"""Traces of OpenTelemetry: spans of requests, of the batches in which they are done, and of commits.

Needs the extra `otel`. Add `"django_durable_streams.contrib.otel"` to INSTALLED_APPS, and see docs/metrics.md.
"""
