"""Server-Sent Events as the protocol frames them (specification, section 5.8)."""

from __future__ import annotations

import re
from base64 import b64encode

from . import content

KEEP_ALIVE = b":\n\n"
"""A comment, which clients pass over: traffic for proxies that cut idle connections."""

# With the space that the next line may begin with.
_LINE_BREAK = re.compile(rb"(?:\r\n|\r|\n)( ?)")


def data_event(content_type: str, stored: bytes) -> bytes:
    """Return the `data` event for stored bytes: text as it is, messages as an array, everything else in base64.

    A line break of the payload, whichever of the three it is, starts a new `data:` line, so that no payload can end
    the event or forge another. Clients strip one space after the colon, so a line that begins with a space, as tokens
    of language models do, gets another one to lose; other lines get none.
    """
    if content.is_json(content_type):
        # Line feeds are message ends here and become commas; a carriage return cannot occur (see `content`).
        return b"event: data\ndata:" + content.unpack(content_type, stored) + b"\n\n"
    if not content.is_text(content_type):
        return b"event: data\ndata:" + b64encode(stored) + b"\n\n"
    first = b"event: data\ndata: " if stored.startswith(b" ") else b"event: data\ndata:"
    return first + _LINE_BREAK.sub(rb"\ndata:\1\1", stored) + b"\n\n"


def control_event(offset: str, *, cursor: int | None, up_to_date: bool, closed: bool) -> bytes:
    """Return the `control` event that follows every `data` event.

    Args:
        offset: where the reader goes on.
        cursor: the cursor of section 10.1; left out once closed, as nobody reconnects.
        up_to_date: nothing more was in the stream.
        closed: nothing more will ever be.
    """
    fields = f'{{"streamNextOffset":"{offset}"'
    if closed:
        fields += ',"streamClosed":true'
    elif cursor is not None:
        fields += f',"streamCursor":"{cursor}"'
    if up_to_date:
        fields += ',"upToDate":true'
    return b"event: control\ndata:" + fields.encode("ascii") + b"}\n\n"
