"""The URLs of docs/ai.md for its page without a bundler, with a source that needs no model."""

import sys
from types import ModuleType

from django_durable_streams.contrib.ai.answers import Answer
from django_durable_streams.contrib.ai.views import ChatRequest, VercelChat
from tests.browser import page_urls
from tests.browser.recipe_pages import AI_PAGE
from tests.docs.pages import blocks


class Chat(VercelChat):
    def answer(self, request: ChatRequest) -> Answer:
        script = {"count": 30, "seconds": 0.05, "fails": request.text == "Fail."}
        return Answer("tests.ai.sources.scripted", script, on_lost="continue")


def add_module(name: str) -> ModuleType:
    """Make a module of the page's app, as its last block that is a whole file and those "at the end" make it."""
    module = sys.modules[f"shop.{name}"] = ModuleType(f"shop.{name}")
    setattr(sys.modules["shop"], name, module)
    for block in blocks(AI_PAGE, "python"):
        if block.text.startswith(f"# shop/{name}.py"):
            exec(compile(block.text, str(block), "exec"), module.__dict__)
    return module


sys.modules["shop"] = ModuleType("shop")
for name in ("views", "chats"):
    add_module(name)
# The first pattern that matches counts, so the chat of the page has the source of this module.
urlpatterns = [
    *Chat.urls("api/chat"),
    *page_urls.urlpatterns[:-1],
    *add_module("urls").urlpatterns,
    *page_urls.urlpatterns[-1:],
]
