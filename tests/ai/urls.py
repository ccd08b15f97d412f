"""The chats of the test servers. What they answer is in the request, so that a test can say it."""

from typing import Any

from django.urls import include, path

from django_durable_streams.contrib.ai.answers import Answer
from django_durable_streams.contrib.ai.views import (
    AGUIChat,
    ChatRequest,
    DurableTransportChat,
    TanStackChat,
    VercelChat,
)


class Scripted:
    """Answers by `tests.ai.sources.scripted`, with the arguments of the body's field `script`."""

    def answer(self, request: ChatRequest) -> Answer:
        body = request.body
        script: dict[str, Any] = body.get("script") or (body.get("data") or {}).get("script") or {}
        script = script or (body.get("forwardedProps") or {}).get("script") or {}
        on_lost = script.pop("on_lost", "fail")
        return Answer("tests.ai.sources.scripted", script, on_lost=on_lost)


class ScriptedVercel(Scripted, VercelChat):
    pass


class ScriptedPointer(Scripted, DurableTransportChat):
    pass


class ScriptedTanStack(Scripted, TanStackChat):
    pass


class ScriptedAGUI(Scripted, AGUIChat):
    pass


urlpatterns = [
    *ScriptedVercel.urls("api/chat"),
    *ScriptedPointer.urls("api/pointer"),
    *ScriptedTanStack.urls("api/tanstack"),
    *ScriptedAGUI.urls("api/agui"),
    path("v1/stream/", include("django_durable_streams.urls")),
]
