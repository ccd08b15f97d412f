"""System checks: they report mistakes in the settings at start. `docs/checks.md` lists all of them."""

from . import access, database, deployment, models, settings, urls, webhooks

__all__ = ["access", "database", "deployment", "models", "settings", "urls", "webhooks"]
