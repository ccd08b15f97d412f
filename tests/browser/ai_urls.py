"""The URLs of docs/ai.md for its page without a bundler, with a source that needs no model."""

from typing import Any

from django.urls import path

from django_durable_streams.contrib.ai.answers import Answer
from django_durable_streams.contrib.ai.views import ChatRequest, VercelChat
from tests.browser import page_urls
from tests.browser.recipe_pages import AI_PAGE
from tests.docs.pages import blocks

(_view,) = [block for block in blocks(AI_PAGE, "python") if "def chat(" in block.text]
_shown: dict[str, Any] = {"__name__": "shop.views"}
exec(_view.text, _shown)


class Chat(VercelChat):
    def answer(self, request: ChatRequest) -> Answer:
        script = {"count": 30, "seconds": 0.05, "fails": request.text == "Fail."}
        return Answer("tests.ai.sources.scripted", script, on_lost="continue")


urlpatterns = [
    *Chat.urls("api/chat"),
    path("chat/<slug:chat_id>/", _shown["chat"]),
    *page_urls.urlpatterns,
]
