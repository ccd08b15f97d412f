"""Why the fast path hands requests over to uvicorn, which serves them through ASGI. `request_numbers` counts them.

Knows neither requests nor connections.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """A property of a request, or of the server, for which uvicorn serves the request. See docs/deployment."""

    __hash__ = str.__hash__  # Enum's own is a function in Python, and so is `value`

    WRAPPER = "wrapper"
    """A middleware or another application stands between the server and the streams."""
    OTHER_PATH = "other_path"
    """The path is not that of a stream."""
    METHOD = "method"
    """Another method than GET, HEAD, POST, PUT and DELETE, such as OPTIONS."""
    TARGET = "target"
    """The request line is malformed, or has another form of target or version."""
    HEAD_IN_PARTS = "head_in_parts"
    """The head did not arrive at once."""
    LARGE_HEAD = "large_head"
    """The head has too many bytes or headers."""
    REPEATED_HEADER = "repeated_header"
    """A header came in several lines."""
    MALFORMED_HEADER = "malformed_header"
    """A line is no header, or there is no `Host`."""
    CHUNKED_BODY = "chunked_body"
    """The body comes in chunks."""
    EXPECT = "expect"
    """The client waits for `100 Continue`."""
    CONNECTION = "connection"
    """The request has an unusual `Connection` header, or asks for a WebSocket."""
    LENGTH = "length"
    """The length of the body is malformed or too large, or the method has no body."""
    PIPELINED = "pipelined"
    """Uvicorn has not finished an earlier request of the connection."""
    CONCURRENCY = "concurrency"
    """The server is at its `--limit-concurrency`."""
