"""Who is here: a stream with a TTL for each visitor. It expires when the visitor's page appends to it no more."""

import secrets
from typing import NamedTuple
from zlib import crc32

from django.http import HttpRequest, HttpResponse

from django_durable_streams.models import Stream
from django_durable_streams.protocol.errors import DurableStreamsError, StreamNotFound

PREFIX = "presence/board/"
COOKIE = "visitor"
TTL = 5
"""Seconds without a sign of life after which a visitor has left. The page gives one every other second."""

COLOURS = ("Amber", "Blue", "Coral", "Green", "Indigo", "Pink", "Teal", "Violet")
ANIMALS = ("Badger", "Crane", "Fox", "Hare", "Heron", "Lynx", "Marten", "Newt", "Otter", "Owl", "Robin", "Seal", "Wren")
ID_BYTES = 8
MAX_SHOWN = 30


class Visitor(NamedTuple):
    """Somebody who looks at the board, with a name that follows from the id."""

    id: str

    @property
    def number(self) -> int:
        return crc32(self.id.encode())  # any text may be an id: everybody may create streams here

    @property
    def colour(self) -> str:
        return COLOURS[self.number % len(COLOURS)]

    @property
    def animal(self) -> str:
        return ANIMALS[self.number // len(COLOURS) % len(ANIMALS)]


def visitor_of(request: HttpRequest) -> Visitor:
    """The visitor of the signed cookie, or a new one."""
    return Visitor(request.get_signed_cookie(COOKIE, default=None) or secrets.token_hex(ID_BYTES))


def remember(response: HttpResponse, visitor: Visitor) -> None:
    response.set_signed_cookie(COOKIE, visitor.id, httponly=True, samesite="Lax")


def sign_of_life(visitor: Visitor) -> None:
    """Each append makes the TTL begin again."""
    for _ in range(2):
        try:
            stream, _ = Stream.objects.ensure(PREFIX + visitor.id, content_type="application/json", ttl=TTL)
            stream.append({"here": True})
            return
        except StreamNotFound:  # it has expired between the two lines
            continue
        except DurableStreamsError:  # everybody may use streams here: another visitor has closed or replaced this one
            return


def visitors() -> list[Visitor]:
    """The visitors whose streams have not expired."""
    paths = Stream.objects.alive().with_prefix(PREFIX).order_by("path").values_list("path", flat=True)
    return [Visitor(path.removeprefix(PREFIX)) for path in paths[:MAX_SHOWN]]
