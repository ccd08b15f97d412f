"""The Durable Streams Protocol as pure functions and small value objects.

Nothing in this package imports Django, does I/O, or knows what stores the streams.
"""
