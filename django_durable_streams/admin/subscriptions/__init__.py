"""Subscriptions and consumers in Django's admin: their state and links, and what operators do with them."""

from .options import SubscriptionAdmin

__all__ = ["SubscriptionAdmin"]
