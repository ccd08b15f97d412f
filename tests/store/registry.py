"""What the registry tells, and whether that is true."""

from collections.abc import Sequence
from typing import Any

from django_durable_streams.models import Stream

REGISTRY = "__registry__"


def brief(message: dict[str, Any]) -> str:
    """Return what a message tells: an operation, a path, and what else is to be known of the stream."""
    state = message.get("value") or message["old_value"]
    marks = [name for name in ("closed", "expired") if state.get(name)]
    assert state["path"] == message["key"]
    return " ".join([message["headers"]["operation"], message["key"], *marks])


def check_replay(messages: Sequence[dict[str, Any]]) -> None:
    """Check that each message follows from those before it, and that they lead to the streams that are there."""
    streams: dict[str, dict[str, Any]] = {}
    for message in messages:
        path, operation = message["key"], message["headers"]["operation"]
        assert (operation == "insert") == (path not in streams), brief(message)
        if operation == "delete":
            # A close in the transaction of the delete is not told by itself.
            last, old = streams.pop(path), message["old_value"]
            assert old == {**last, "closed": last["closed"] or old["closed"], "expired": old["expired"]}
        else:
            assert operation == "insert" or not streams[path]["closed"], brief(message)
            streams[path] = message["value"]
    rows = Stream.objects.filter(path__isnull=False, deleted_at=None).exclude(path=REGISTRY)
    assert {(row.path, row.closed, row.generation // 1000) for row in rows} == {
        (value["path"], value["closed"], value["createdAt"]) for value in streams.values()
    }
