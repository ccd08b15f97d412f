"""System checks: mistakes that are cheaper to hear of at start than in production. docs/checks.md has all of them."""

from . import access, database, deployment, settings, urls

__all__ = ["access", "database", "deployment", "settings", "urls"]
