"""Every operation of the protocol, as a request that succeeds where it is allowed."""

from tests.access.visitors import Visitor
from tests.asgi_client import AsgiClient, Reply

TEXT = {"content-type": "text/plain"}
CLOSE = {"stream-closed": "true"}

# What is sent, and what of add, view, change, delete it needs by Django's permissions.
OPERATIONS: dict[str, tuple[str, str, dict[str, str], bytes, tuple[str, ...]]] = {
    "create": ("PUT", "made", TEXT, b"", ("add",)),
    "create-closed": ("PUT", "made", {**TEXT, **CLOSE}, b"all", ("add",)),
    "fork": ("PUT", "made", {"stream-forked-from": "/v1/stream/a"}, b"", ("add", "view")),
    "read": ("GET", "a", {}, b"", ("view",)),
    "state": ("HEAD", "a", {}, b"", ("view",)),
    "long-poll": ("GET", "a?offset=-1&live=long-poll", {}, b"", ("view",)),
    "sse": ("GET", "closed?offset=-1&live=sse", {}, b"", ("view",)),
    "append": ("POST", "a", TEXT, b"x", ("change",)),
    "close": ("POST", "a", CLOSE, b"", ("change",)),
    "append-and-close": ("POST", "a", {**TEXT, **CLOSE}, b"x", ("change",)),
    "delete": ("DELETE", "a", {}, b"", ("delete",)),
}


async def send(
    client: AsgiClient | Visitor, name: str, query: str = "", headers: dict[str, str] | None = None
) -> Reply:
    """Send an operation."""
    method, target, fields, body, _ = OPERATIONS[name]
    if query:
        target += ("&" if "?" in target else "?") + query
    return await client.request(method, target, {**fields, **(headers or {})}, body)
