"""The wire page. Its scripts use the streams with plain HTTP from the browser."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from .pages import page

# Where `config.urls` and `config.asgi` serve the protocol.
STREAM_BASE = "/v1/stream/"


@page
def wire(request: HttpRequest) -> HttpResponse:
    return render(request, "demo/wire.html", {"stream_base": STREAM_BASE})
