"""Checks JSON texts of appends and puts their messages on lines, without Python objects for the values (section 9.1).

The optimisation: no other thread runs during one call of the parser. So one call that builds nothing validates a large
text, which takes 25 ms for 16 MB in the worst case. Further calls split it into messages, each call for a piece of 64
KB, and other threads run between them. An array of five million messages delays other threads by 25 ms instead of 300.
It takes the memory of a few copies of the text instead of 500 MB.

Invariant: messages are stored as they were sent, byte for byte, except line breaks between tokens.
docs/decisions/json-as-text.md has the reasons.
"""

from __future__ import annotations

import codecs
import random
from collections.abc import Iterator
from typing import NoReturn

import msgspec

from .errors import InvalidJSON

PIECE_BYTES = 64 * 1024
"""About how many bytes of an array one call of the parser splits."""

COMMA_TRIES = 6
"""Commas that are tried in a piece before a larger piece is used."""

UTF8_BYTES = 1024 * 1024
"""Bytes that one call checks for valid UTF-8."""

SPARE_LEVELS = 200
"""Levels of nesting that must be left when a text is accepted, because later parsers may have less stack."""

_CHECK_DEPTH_FROM_BRACKETS = 300
"""Opening brackets from which the depth of a text is checked."""

_SPACES = bytes.maketrans(b"\r\n", b"  ")
_WHITESPACE = b" \t\r\n"

_array = msgspec.json.Decoder(list[msgspec.Raw])
_value = msgspec.json.Decoder(msgspec.Raw)


def to_lines(body: bytes) -> bytes:
    r"""Return the messages of a JSON append, each on a line that ends with `\n`: one level of array is flattened.

    An empty array has no lines.

    Raises:
        InvalidJSON: the body is not a JSON text in UTF-8.
    """
    is_array = body.lstrip(_WHITESPACE)[:1] == b"["
    if len(body) > PIECE_BYTES:
        return _large_to_lines(body, is_array)
    try:
        if not body.isascii():
            body.decode()  # msgspec does not check the bytes inside strings
        parts = _array.decode(body) if is_array else [_value.decode(body)]
        if len(body) > _CHECK_DEPTH_FROM_BRACKETS:
            _check_depth(body)
    except (UnicodeDecodeError, RecursionError, msgspec.DecodeError) as error:
        if not _has_surrogates(body):
            _refuse(error)
        return _large_to_lines(body, is_array)
    if not parts:
        return b""
    if b"\n" in body or b"\r" in body:
        return b"\n".join([bytes(part).translate(_SPACES) for part in parts]) + b"\n"
    return b"\n".join(parts) + b"\n"


def _check_depth(text: bytes) -> None:
    """Check that every later reader of a valid text can parse it.

    The possible depth depends on the interpreter's stack, of which each caller has used a different part.

    Raises:
        RecursionError: the text is nested too deeply.
    """
    limit = _CHECK_DEPTH_FROM_BRACKETS
    # `replace` skips many bytes at once, where `count` looks at each: a third of the time for usual messages.
    shorter = len(text.replace(b"[", b"", limit + 1)) + len(text.replace(b"{", b"", limit + 1))
    if 2 * len(text) - shorter > limit:
        _value.decode(b"%b%b%b" % (b"[" * SPARE_LEVELS, text, b"]" * SPARE_LEVELS))


def _refuse(error: Exception) -> NoReturn:
    if isinstance(error, UnicodeDecodeError):
        raise InvalidJSON(f"The body is not UTF-8: byte {error.start} cannot be decoded.") from error
    if isinstance(error, RecursionError):
        raise InvalidJSON("The body is nested too deeply.") from error
    raise InvalidJSON(f"The body is not valid JSON: {error}.") from error


def _large_to_lines(body: bytes, is_array: bool) -> bytes:
    """The same for a large text or one with surrogates. Other threads can run every few milliseconds."""
    try:
        if not body.isascii():
            _check_utf8(body)
        plain = _without_surrogates(body) if _has_surrogates(body) else body
        _value.decode(plain)
        _check_depth(plain)
    except (UnicodeDecodeError, RecursionError, msgspec.DecodeError) as error:
        _refuse(error)
    # Valid JSON has line breaks between tokens only.
    is_same = plain is body
    body = body.translate(_SPACES).strip(b" \t")
    plain = body if is_same else plain.translate(_SPACES).strip(b" \t")
    if not is_array:
        return body + b"\n"
    lines = [_lines_of(body, plain, start, end) for start, end in _pieces(plain, 1, len(plain) - 1)]
    lines = [line for line in lines if line]
    return b"\n".join(lines) + b"\n" if lines else b""


def _check_utf8(body: bytes) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    view = memoryview(body)
    for start in range(0, len(body), UTF8_BYTES):
        try:
            decoder.decode(view[start : start + UTF8_BYTES], final=start + UTF8_BYTES >= len(body))
        except UnicodeDecodeError as error:
            before = start - (len(error.object) - len(view[start : start + UTF8_BYTES]))
            error.start += before
            error.end += before
            raise


def _has_surrogates(body: bytes) -> bool:
    r"""Whether a text may have surrogates, written `\ud83d`.

    msgspec refuses an unpaired surrogate, which JSON's grammar allows. JavaScript's JSON.stringify writes one when a
    string, such as a token of a language model, ends in the middle of an emoji.
    """
    return b"\\ud" in body or b"\\uD" in body


def _without_surrogates(body: bytes) -> bytes:
    r"""Return a text of the same length without surrogates, which is valid exactly if this one is.

    `\ud83d` becomes `\u083d`. After an escaped backslash, `ud` becomes `u0`: both are plain text there.
    """
    return body.replace(b"\\ud", b"\\u0").replace(b"\\uD", b"\\u0")


def _pieces(text: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of pieces of a valid array's inside, cut at commas between its elements.

    A comma is between elements exactly if the text from the last cut to it is a list of elements. Random commas are
    tried, so no client can write a text in which all tried commas are inside elements.
    """
    size = PIECE_BYTES
    while end - start > size:
        for _ in range(COMMA_TRIES):
            comma = _random_comma(text, start + size // 2, start + size)
            if comma > 0 and _is_list(text, start, comma):
                yield start, comma
                start, size = comma + 1, PIECE_BYTES
                break
        else:
            size *= 2
    yield start, end


def _random_comma(text: bytes, start: int, end: int) -> int:
    """Return the place of a random comma between two places, or -1. Prefers one after an object."""
    begin = random.randrange(start, end)
    closing = text.find(b"},", begin, end)
    return closing + 1 if closing >= 0 else text.find(b",", begin, end)


def _is_list(text: bytes, start: int, end: int) -> bool:
    try:
        return bool(_array.decode(b"[%b]" % text[start:end]))
    except (RecursionError, msgspec.DecodeError):
        return False


def _lines_of(body: bytes, plain: bytes, start: int, end: int) -> bytes:
    """Return the elements of a piece, with line feeds between them."""
    parts = _array.decode(b"[%b]" % plain[start:end])
    if plain is body:
        return b"\n".join(parts)
    lines = []
    for part in parts:
        # Only spaces and a comma precede an element, so this finds the element itself.
        start = plain.index(part, start)
        lines.append(body[start : start + len(part)])
        start += len(part)
    return b"\n".join(lines)
