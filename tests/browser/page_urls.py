"""URLs of the example project, and pages of tests: recipes of the documentation, and what npm packages have.

Packages that have no ES module get one here, as a bundler makes it.
"""

import json
import re

from config.urls import urlpatterns as example
from django.contrib.auth import login
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse
from django.template import engines
from django.urls import path
from django.utils.html import escape

from django_durable_streams.pages import EventView, PageEvent
from django_durable_streams.permissions import signed_url
from tests.browser.recipe_pages import PACKAGES, recipes

VERSIONS = {"htmx.org@2": "htmx.org", "htmx.org@4": "htmx4"}
"""Packages that the documentation names with a version, and their folders."""

IMPORTS = {
    "@durable-streams/client": "/npm/@durable-streams/client/dist/index.js",
    "eventsource": "/npm/eventsource/dist/index.js",
    "eventsource-parser": "/npm/eventsource-parser/dist/index.js",
    "react": "/commonjs/react/cjs/react.production.js",
    "react-dom": "/commonjs/react-dom/cjs/react-dom.production.js",
    "react-dom/client": "/commonjs/react-dom/cjs/react-dom-client.production.js",
    "scheduler": "/commonjs/scheduler/cjs/scheduler.production.js",
    "vue": "/npm/vue/dist/vue.esm-browser.prod.js",
}
HTML = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title><link rel="icon" href="data:,">
<script type="importmap">{imports}</script></head>
<body><main><h1>{title}</h1>
{body}
</main></body></html>
"""


def recipe(request: HttpRequest, name: str) -> HttpResponse:
    """A recipe for the stream at `path`, or at any `url` of a stream or `events`, with more `options` for `follow`."""
    stream = request.GET["path"]
    text = recipes()[name]
    if "{%" in text:
        text = engines["django"].from_string(text).render({"stream": stream})
    url = request.GET.get("url", f"/v1/stream/{stream}")
    text = text.replace("/v1/stream/chat/42?", url + ("&" if "?" in url else "?")).replace("/v1/stream/chat/42", url)
    text = text.replace("/events/chat/42", request.GET.get("events", f"/events/{stream}"))
    text = text.replace("/datastar/STREAM", f"/datastar/{stream}")
    text = re.sub(r'(follow\("[^"]+", {)', lambda match: match[1] + request.GET.get("options", ""), text)
    return HttpResponse(HTML.format(title=name, imports=json.dumps({"imports": IMPORTS}), body=text))


def merge(message: dict[str, str]) -> PageEvent:
    """An event of the Datastar that npm has, which has other names than that of today."""
    lines = f"selector #messages\nmergeMode append\nfragments <li>{escape(message['text'])}</li>"
    return PageEvent(lines, "datastar-merge-fragments")


def log_in(request: HttpRequest) -> HttpResponse:
    """Log in as ada. The page of the admin would ask for an icon that is not there."""
    login(request, User.objects.get_or_create(username="ada")[0], "django.contrib.auth.backends.ModelBackend")
    return HttpResponse("<title>in</title><link rel='icon' href='data:,'>")


def signed(request: HttpRequest, path: str) -> HttpResponse:
    """The signed URL of a stream."""
    return HttpResponse(signed_url(path, "read", expires=600))


def npm(request: HttpRequest, name: str) -> HttpResponse:
    """A script of a package, as it is."""
    return script(read(name))


def commonjs(request: HttpRequest, name: str) -> HttpResponse:
    """A script of a package that uses `require` and `exports`, as an ES module."""
    text = read(name)
    required = dict.fromkeys(re.findall(r'require\("([^"]+)"\)', text))
    exported = dict.fromkeys(re.findall(r"exports\.(\w+) =", text))
    imports = "".join(f"import * as module{n} from {json.dumps(name)};\n" for n, name in enumerate(required))
    modules = ", ".join(f"{json.dumps(name)}: module{n}" for n, name in enumerate(required))
    return script(
        f"{imports}const required = {{{modules}}}, exports = {{}};\n"
        f"(function (exports, require, process) {{{text}\n}})(exports, name => required[name], {{env: {{}}}});\n"
        f"export default exports;\nexport const {{{', '.join(exported)}}} = exports;\n"
    )


def read(name: str) -> str:
    """Return the text of a file in a package."""
    package, _, rest = name.partition("/")
    file = (PACKAGES / VERSIONS.get(package, package) / rest).resolve()
    if not file.is_relative_to(PACKAGES) or not file.is_file():
        raise Http404(name)
    return file.read_text()


def script(text: str) -> HttpResponse:
    return HttpResponse(text, content_type="text/javascript")


urlpatterns = [
    *example[:-1],
    path("login", log_in),
    path("signed/<path:path>", signed),
    path("npm/<path:name>", npm),
    path("commonjs/<path:name>", commonjs),
    path("recipes/<str:name>", recipe),
    path("events/<path:path>", EventView.as_view(render="message.html"), name="events"),
    path("datastar/<path:path>", EventView.as_view(render=merge)),
    example[-1],
]
