"""The demo page. Its scripts use the streams with plain HTTP from the browser."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.views.generic import TemplateView

# Where `config.urls` and `config.asgi` serve the protocol.
STREAM_BASE = "/v1/stream/"

# The page uses files of this site only. Browsers do not load scripts or styles of other sites.
CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
)


class DemoView(TemplateView):
    template_name = "demo/index.html"
    extra_context = {"stream_base": STREAM_BASE}

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        response = super().get(request, *args, **kwargs)
        response["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        return response
