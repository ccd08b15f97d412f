"""Another process of `doctor` whose message does not arrive, as with other settings. It imports nothing of Django."""

from typing import Any


def send(using: str, stream_id: int, sent_at: Any) -> None:
    """Send nothing."""
