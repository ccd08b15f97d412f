from django.urls import path

from . import views

app_name = "chat"

urlpatterns = [
    path("", views.new, name="new"),
    path("c/<slug:chat_id>/", views.show, name="show"),
    path("c/<slug:chat_id>/branch", views.branch, name="branch"),
    *views.Chats.urls("api/chat", name="api"),
]
