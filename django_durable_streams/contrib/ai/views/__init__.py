"""The views of a chat, one class for each dialect: `urlpatterns = [*MyChat.urls("api/chat")]`."""

from .agui import AGUIChat
from .aisdk import DurableTransportChat
from .base import ChatRequest, ChatViews
from .tanstack import TanStackChat
from .vercel import VercelChat

__all__ = ["AGUIChat", "ChatRequest", "ChatViews", "DurableTransportChat", "TanStackChat", "VercelChat"]
