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


urlpatterns = [*Chat.urls("api/chat"), *page_urls.urlpatterns[:-1]]


def add_module(name: str, first_line: str) -> None:
    """Make a module of the page's app. It has the blocks that begin so."""
    module = sys.modules[f"shop.{name}"] = ModuleType(f"shop.{name}")
    setattr(sys.modules["shop"], name, module)
    module.__dict__["urlpatterns"] = urlpatterns
    for block in blocks(AI_PAGE, "python"):
        if block.text.startswith(first_line):
            exec(compile(block.text, str(block), "exec"), module.__dict__)


sys.modules["shop"] = ModuleType("shop")
add_module("views", "# shop/views.py")
add_module("chats", "# shop/chats.py")
add_module("urls", "# shop/urls.py, at the end")  # before that, the page has a chat with another source
urlpatterns += page_urls.urlpatterns[-1:]
