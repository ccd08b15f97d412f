"""Consumers: Python handlers of the messages of many streams, whose cursors commit with their effects.

A consumer is a subscription without wakes. Its links are made by the same rules as all others. Each link is the cursor
on one stream, and one worker at a time has the lease of a link.

Invariant: a worker moves a cursor inside the handler's transaction, by one statement that changes the link only if the
worker still holds it and the cursor is where the worker has read. So the effects of a message are committed exactly
once, in the order of the stream, however workers end.
"""
