"""A board that is live in every browser. htmx shows it. A script of the page says when the server does not answer.

A view changes a card and does not show it. The change comes back to all pages, this one included, by the stream.
"""

from typing import Any

from demo.pages import for_visitors, page
from django import forms
from django.core.handlers.asgi import ASGIRequest
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.template.loader import render_to_string
from django.views.decorators.http import require_POST, require_safe

from . import presence
from .models import Card
from .signals import board_stream

NO_CONTENT = 204
UNPROCESSABLE = 422


class CardForm(forms.ModelForm):
    class Meta:
        model = Card
        fields = ["text"]


def columns() -> list[dict[str, Any]]:
    cards = list(Card.objects.all())
    return [
        {"name": column, "title": column.label, "cards": [card for card in cards if card.column == column]}
        for column in Card.Column
    ]


def as_columns(message: object) -> str:
    """The event of a message: the board as it is now. It is rendered once, for all pages together."""
    return render_to_string("board/columns.html", {"columns": columns()})


@require_safe
@for_visitors
@page
def show(request: HttpRequest) -> HttpResponse:
    stream = board_stream()
    # The offset is taken before the cards are read: a change in between comes twice, and so it is never missed.
    context = {"stream": stream, "offset": stream.next_offset, "is_live": isinstance(request, ASGIRequest)}
    visitor = presence.visitor_of(request)
    response = render(request, "board/board.html", {**context, "columns": columns(), "form": CardForm()})
    presence.remember(response, visitor)
    return response


@require_safe
@for_visitors
def show_columns(request: HttpRequest) -> HttpResponse:
    """The board for pages without events, under WSGI."""
    return HttpResponse(as_columns(None))


@require_POST
@for_visitors
def add(request: HttpRequest) -> HttpResponse:
    form = CardForm(request.POST)
    if form.is_valid():
        with transaction.atomic():  # the card and its message
            form.save()
        form = CardForm()
    return render(request, "board/form.html", {"form": form})


@require_POST
@for_visitors
def move(request: HttpRequest, pk: int, column: str) -> HttpResponse:
    if column not in Card.Column.values:
        return HttpResponse(status=UNPROCESSABLE)
    with transaction.atomic():
        card = get_object_or_404(Card, pk=pk)
        card.column = column
        card.save()
    return HttpResponse(status=NO_CONTENT)


@require_POST
@for_visitors
def delete(request: HttpRequest, pk: int) -> HttpResponse:
    with transaction.atomic():
        get_object_or_404(Card, pk=pk).delete()
    return HttpResponse(status=NO_CONTENT)


@require_POST
@for_visitors
def here(request: HttpRequest) -> HttpResponse:
    """A sign of life of a page, answered with all who are here."""
    visitor = presence.visitor_of(request)
    presence.sign_of_life(visitor)
    context = {"visitor": visitor, "visitors": presence.visitors()}
    response = render(request, "board/visitors.html", context)
    presence.remember(response, visitor)
    return response
