"""Metrics for Prometheus: a collector, multi-process mode, and a view.

Needs the extra `prometheus`. docs/metrics.md lists all metrics.
"""
