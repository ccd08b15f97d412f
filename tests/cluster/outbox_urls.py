"""The URLs of `outbox`."""

from django.urls import path

from tests.cluster.outbox import exists, save

urlpatterns = [path("save/<name>", save), path("exists/<name>", exists)]
