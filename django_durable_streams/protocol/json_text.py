"""JSON texts of appends, checked and put on lines, without a Python object for what is in them (section 9.1).

The interpreter does nothing else while one call of the parser runs. So a large text is validated by one call that
builds nothing, which takes 25 ms for 16 MB of the worst kind, and its messages are taken apart in pieces of 64 KB, each
by a call of its own. Between the calls other threads get their turn. An array of five million messages costs others
25 ms in one piece instead of 300, and the memory of a few copies of the text instead of 500 MB.

The messages stay as they came, byte for byte, but for line breaks between tokens.
"""

from __future__ import annotations

import codecs
import random
from collections.abc import Iterator
from typing import NoReturn

import msgspec

from .errors import InvalidJSON

PIECE_BYTES = 64 * 1024
"""About how much of an array is taken apart by one call of the parser."""

TRIES = 6
"""Commas that are tried in one piece before a larger one is taken."""

UTF8_BYTES = 1024 * 1024
"""How much is decoded at a time to see that it is UTF-8."""

SPARE_LEVELS = 200
"""Levels of nesting that whoever takes a text has to spare: to parse it for others takes more of their stack."""

_MANY = 300
"""Brackets from which a text may be nested deeply."""

_SPACES = bytes.maketrans(b"\r\n", b"  ")
_WHITESPACE = b" \t\r\n"

_array = msgspec.json.Decoder(list[msgspec.Raw])
_value = msgspec.json.Decoder(msgspec.Raw)


def to_lines(body: bytes) -> bytes:
    r"""Return the messages of a JSON append, each on a line that ends with `\n`: one level of array is flattened.

    An empty array has no lines.

    Raises:
        InvalidJSON: the body is no JSON text in UTF-8.
    """
    is_array = body.lstrip(_WHITESPACE)[:1] == b"["
    if len(body) > PIECE_BYTES:
        return _large_to_lines(body, is_array)
    try:
        if not body.isascii():
            body.decode()  # msgspec takes the bytes inside strings as they are
        parts = _array.decode(body) if is_array else [_value.decode(body)]
        if len(body) > _MANY:
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
    """See that whoever reads a valid text later, in whichever way, is able to parse it.

    How deep that may be depends on the interpreter's stack, of which each caller has used another part.

    Raises:
        RecursionError: it is nested too deeply for that.
    """
    if text.count(b"[") + text.count(b"{") > _MANY:
        _value.decode(b"%b%b%b" % (b"[" * SPARE_LEVELS, text, b"]" * SPARE_LEVELS))


def _refuse(error: Exception) -> NoReturn:
    if isinstance(error, UnicodeDecodeError):
        raise InvalidJSON(f"The body is not UTF-8: byte {error.start} cannot be decoded.") from error
    if isinstance(error, RecursionError):
        raise InvalidJSON("The body is nested too deeply.") from error
    raise InvalidJSON(f"The body is not valid JSON: {error}.") from error


def _large_to_lines(body: bytes, is_array: bool) -> bytes:
    """The same, for what is large or has surrogates, with the interpreter free for others every few milliseconds."""
    try:
        if not body.isascii():
            _check_utf8(body)
        plain = _without_surrogates(body) if _has_surrogates(body) else body
        _value.decode(plain)
        _check_depth(plain)
    except (UnicodeDecodeError, RecursionError, msgspec.DecodeError) as error:
        _refuse(error)
    # Valid JSON has line breaks between tokens only.
    same = plain is body
    body = body.translate(_SPACES).strip(b" \t")
    plain = body if same else plain.translate(_SPACES).strip(b" \t")
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
    r"""Whether a text may have halves of a surrogate pair, written `\ud83d`.

    msgspec refuses one without the other, which JSON's grammar allows. JavaScript's JSON.stringify writes it when a
    string, such as a token of a language model, ends in the middle of an emoji.
    """
    return b"\\ud" in body or b"\\uD" in body


def _without_surrogates(body: bytes) -> bytes:
    r"""Return a text of the same length that is valid exactly if this one is but for surrogates.

    `\ud83d` becomes `\u083d`. An escaped backslash before `ud` changes into one before `u0`, which is text either way.
    """
    return body.replace(b"\\ud", b"\\u0").replace(b"\\uD", b"\\u0")


def _pieces(text: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield where the pieces of a valid array's inside begin and end: at commas between its elements.

    A comma is one of those exactly if what lies before it, from the last one on, is a list of elements by itself.
    Which commas are tried is left to chance, so nobody can write a text in which the few that are tried are all inside
    elements, and the many that are not tried are not.
    """
    size = PIECE_BYTES
    while end - start > size:
        for _ in range(TRIES):
            comma = _some_comma(text, start + size // 2, start + size)
            if comma > 0 and _is_list(text, start, comma):
                yield start, comma
                start, size = comma + 1, PIECE_BYTES
                break
        else:
            size *= 2
    yield start, end


def _some_comma(text: bytes, start: int, end: int) -> int:
    """Return where some comma between two places is, or -1; at best one after an object or array."""
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
        # Before an element there are only spaces and a comma, so this finds the element itself.
        start = plain.index(part, start)
        lines.append(body[start : start + len(part)])
        start += len(part)
    return b"\n".join(lines)
