from django.urls import path

from django_durable_streams.pages import EventView

from . import views

app_name = "board"

urlpatterns = [
    path("", views.show, name="show"),
    path("columns", views.show_columns, name="columns"),
    path("events/<path:path>", EventView.as_view(render=views.as_columns), name="events"),
    path("cards", views.add, name="add"),
    path("cards/<int:pk>/move/<str:column>", views.move, name="move"),
    path("cards/<int:pk>/delete", views.delete, name="delete"),
    path("here", views.here, name="here"),
]
