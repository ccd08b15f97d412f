from django.urls import path, register_converter
from django.urls.converters import StringConverter

from . import views

app_name = "chat"


class ChatId(StringConverter):
    """Ids that the API takes, too. Longer ones fit no QR code."""

    regex = "[A-Za-z0-9_][A-Za-z0-9_-]{0,127}"


register_converter(ChatId, "chat_id")

urlpatterns = [
    path("", views.new, name="new"),
    path("c/<chat_id:chat_id>/", views.show, name="show"),
    path("c/<chat_id:chat_id>/branch", views.branch, name="branch"),
    *views.Chats.urls("api/chat", name="api"),
]
