"""The encoding of values from Python callers, by the rules of `protocol.values` and the project's settings."""

from __future__ import annotations

from functools import lru_cache
from json import JSONEncoder
from typing import Any

from django.utils.module_loading import import_string

from ..conf import config
from ..protocol import values
from ..protocol.errors import PayloadTooLarge
from ..runtime.results import contained


def encode(content_type: str, value: values.Data) -> bytes:
    """Return one message as it is stored in a stream of a content type.

    Args:
        content_type: the stream's content type.
        value: a JSON value in JSON mode; otherwise bytes or text.

    Raises:
        InvalidJSON: the stream is in JSON mode, and `JSON_ENCODER` cannot encode the value.
        TypeError: the stream is not in JSON mode, and the value is neither bytes nor text.
        BadRequest: the text cannot be encoded as UTF-8, because it has half of a surrogate pair.
        PayloadTooLarge: the message is larger than MAX_APPEND_BYTES.
    """
    with contained:  # the encoder belongs to the project
        data = values.encode(content_type, value, json_encoder(config().json_encoder))
    check_size(data)
    return data


def check_size(data: bytes) -> None:
    """Check the size of one message as it is stored.

    Raises:
        PayloadTooLarge: the message is larger than MAX_APPEND_BYTES.
    """
    most = config().max_append_bytes
    if len(data) > most:
        raise PayloadTooLarge(
            f"The message has {len(data)} bytes, and one append can have at most {most} (MAX_APPEND_BYTES). "
            "Append it in parts."
        )


def encodes_as_json(path: str) -> bool:
    """Return whether the encoder class at a dotted path writes text as `json` does, and changes other values only."""
    kind = type(json_encoder(path))
    return kind.encode is JSONEncoder.encode and kind.iterencode is JSONEncoder.iterencode


def encode_initial(content_type: str, value: Any) -> bytes:
    """Return the first message of a new stream as it is stored. None and an empty text are no message."""
    return b"" if value is None else encode(content_type, value)


@lru_cache(maxsize=8)
def json_encoder(path: str) -> JSONEncoder:
    """Return an instance of the JSON encoder class at a dotted path (`JSON_ENCODER`).

    Raises:
        ImportError: the path does not exist.
        TypeError: the path does not name a subclass of `json.JSONEncoder`.
    """
    encoder = import_string(path)(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    if not isinstance(encoder, JSONEncoder):
        raise TypeError(f"{path} is not a subclass of json.JSONEncoder.")
    return encoder
