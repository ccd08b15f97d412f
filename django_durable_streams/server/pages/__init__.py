"""Event sources for pages: the messages of a stream as events, rendered once for all readers of a page.

The protocol's own SSE is in `server.sse_reader`. Its clients want offsets and arrays. Pages want one event for each
message, as HTML or as JSON, and an `EventSource` that goes on by itself.
"""
