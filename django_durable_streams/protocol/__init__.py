"""The Durable Streams Protocol as pure functions and small value objects.

This package does not import Django, does no I/O, and does not know how streams are stored.
"""
