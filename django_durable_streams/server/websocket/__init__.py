"""WebSockets that follow many streams: an entry point for Channels' routing, and for every other ASGI application.

Frames become the same requests as at the other entry points, and the same handlers and guard answer them.
"""
