"""A WSGI process of a project that appends from a `post_save` signal. It serves no streams and has no event loop.

python -m tests.cluster.outbox PORT
"""

import sys
import time
from typing import Any
from wsgiref.simple_server import make_server

import django
from django.conf import settings
from django.http import HttpRequest, HttpResponse

OUTBOX = "outbox"


def save(request: HttpRequest, name: str) -> HttpResponse:
    """Save a model in a transaction, which appends; and raise then, if that is asked for."""
    from django.contrib.auth.models import Group
    from django.db import transaction

    with transaction.atomic():
        Group.objects.create(name=name)
        if "fail" in request.GET:
            raise RuntimeError("the view has failed")
    return HttpResponse(status=204)


def exists(request: HttpRequest, name: str) -> HttpResponse:
    from django.contrib.auth.models import Group

    return HttpResponse(status=204 if Group.objects.filter(name=name).exists() else 404)


def append(instance: Any, **arguments: Any) -> None:
    from django_durable_streams.models import Stream

    Stream.objects.get(path=OUTBOX).append(f"{instance.name} {time.monotonic():.6f}\n")


if __name__ == "__main__":
    settings.ROOT_URLCONF = "tests.cluster.outbox_urls"
    django.setup()
    from django.contrib.auth.models import Group
    from django.core.wsgi import get_wsgi_application
    from django.db.models.signals import post_save

    from tests.entry_points.wsgi_server import QuietHandler, ThreadingWSGIServer

    post_save.connect(append, sender=Group)
    make_server(
        "127.0.0.1", int(sys.argv[1]), get_wsgi_application(), ThreadingWSGIServer, QuietHandler
    ).serve_forever()
