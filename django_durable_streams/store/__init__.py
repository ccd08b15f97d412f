"""The log: synchronous functions over the ORM, the only code that writes the tables.

Nothing here knows a request, an event loop, or a thread.
"""
