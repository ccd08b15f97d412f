"""AI answers that outlive the request: a language model's answer runs on the server, whatever its readers do.

Add `"django_durable_streams.contrib.ai"` to INSTALLED_APPS, and see `docs/ai.md`. The functions are in `answers`, the
events that a source yields in `events`, and the views for each client in `views`.
"""
