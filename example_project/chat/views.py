"""The chat: a page that only reads, and an answer that runs on the server.

The page sends a message to `Chats` and then follows the stream of the chat, as every page with the same link does. No
page writes an answer, so none is needed for it.
"""

import secrets
from http import HTTPStatus

from demo.pages import for_visitors, page
from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBadRequest, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_POST, require_safe

from django_durable_streams.contrib.ai.answers import Answer, Chat
from django_durable_streams.contrib.ai.permissions import permission
from django_durable_streams.contrib.ai.views import ChatRequest, DurableTransportChat
from django_durable_streams.protocol.errors import DurableStreamsError

from .phone import address_for_others, qr_code


class Chats(DurableTransportChat):
    """Takes messages, starts and stops answers. The client of the AI SDK could use it as well."""

    def answer(self, request: ChatRequest) -> Answer:
        if settings.OPENAI_MODEL:
            return Answer("chat.answers.model", {"model": settings.OPENAI_MODEL})
        # If the process is killed, another one calls the same function and goes on at the same place.
        return Answer("chat.answers.generator", on_lost="continue")


def new_id() -> str:
    """The id of a chat that nobody can guess: who has the link has the chat."""
    return secrets.token_hex(12)


def chat_at(request: HttpRequest, chat_id: str) -> Chat | None:
    """The chat that a visitor calls by an id, or None if there is none yet."""
    path = permission().path(request.user, chat_id)
    chat = Chat.at(path)
    if not permission().allows("read", request.user, path, chat):
        raise PermissionDenied
    return chat


@require_safe
@never_cache
@for_visitors
def new(request: HttpRequest) -> HttpResponse:
    return chat_page(request, new_id(), None)


@require_safe
@for_visitors
def show(request: HttpRequest, chat_id: str) -> HttpResponse:
    chat = chat_at(request, chat_id)
    return missing_page(request) if chat is None else chat_page(request, chat_id, chat)


@page
def missing_page(request: HttpRequest) -> HttpResponse:
    return render(request, "chat/missing.html", status=HTTPStatus.NOT_FOUND)


@page
@ensure_csrf_cookie
def chat_page(request: HttpRequest, chat_id: str, chat: Chat | None) -> HttpResponse:
    link = address_for_others(request, reverse("chat:show", args=[chat_id]))
    context = {
        "chat_id": chat_id,
        "exists": chat is not None,
        "path": permission().path(request.user, chat_id),
        "link": link,
        "qr_code": qr_code(link.url),
        "model": settings.OPENAI_MODEL,
    }
    return render(request, "chat/chat.html", context)


@require_POST
@for_visitors
def branch(request: HttpRequest, chat_id: str) -> HttpResponse:
    """Fork the chat before one of its messages. The new chat shares the data, and goes its own way."""
    chat = chat_at(request, chat_id)
    if chat is None:
        raise Http404
    branch_id = new_id()
    try:
        chat.branch(permission().path(request.user, branch_id), before=request.POST.get("before", ""))
    except ValueError as error:
        return HttpResponseBadRequest(str(error), content_type="text/plain")
    except DurableStreamsError as error:  # such as a chat that was deleted meanwhile
        return HttpResponse(str(error), status=error.status, content_type="text/plain")
    return JsonResponse({"id": branch_id, "url": reverse("chat:show", args=[branch_id])}, status=201)
