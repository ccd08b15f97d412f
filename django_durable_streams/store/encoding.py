"""What Python callers hand over, as it is stored: the rules of `protocol.values`, by the project's settings."""

from __future__ import annotations

from functools import lru_cache
from json import JSONEncoder
from typing import Any

from django.utils.module_loading import import_string

from ..conf import config
from ..protocol import values
from ..protocol.errors import PayloadTooLarge


def encode(content_type: str, value: values.Data) -> bytes:
    """Return one message as it is stored in a stream of a content type.

    Raises:
        InvalidJSON: the stream is in JSON mode, and `JSON_ENCODER` cannot say it in JSON.
        TypeError: the stream is not in JSON mode, and the value is neither bytes nor text.
        BadRequest: text that no UTF-8 can say, as it has half of a surrogate pair.
        PayloadTooLarge: over MAX_APPEND_BYTES.
    """
    settings = config()
    data = values.encode(content_type, value, json_encoder(settings.json_encoder))
    if len(data) > settings.max_append_bytes:
        raise PayloadTooLarge(
            f"The message has {len(data)} bytes, and at most {settings.max_append_bytes} can be appended at once "
            "(MAX_APPEND_BYTES). Append it in parts."
        )
    return data


def encode_initial(content_type: str, value: Any) -> bytes:
    """Return the first message of a stream as it is stored; None, and an empty text, is none."""
    return b"" if value is None else encode(content_type, value)


@lru_cache(maxsize=8)
def json_encoder(path: str) -> JSONEncoder:
    """Return the encoder that a dotted path names, which is a class as `json.dumps` takes it.

    Raises:
        ImportError: there is none.
        TypeError: it is none.
    """
    encoder = import_string(path)(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    if not isinstance(encoder, JSONEncoder):
        raise TypeError(f"{path} is no json.JSONEncoder.")
    return encoder
