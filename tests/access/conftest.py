"""Both kinds of entry point with users, sessions and permissions."""

from collections.abc import Callable

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import AbstractUser, Permission, User
from django.core.asgi import get_asgi_application
from django.test import Client
from django.test.client import Client as DjangoClient

from django_durable_streams.models import Stream
from django_durable_streams.server.asgi import DurableStreams
from tests.access.visitors import Visitor
from tests.asgi_client import AsgiClient

ENTRY_POINTS = ("asgi", "django")


@pytest.fixture(params=ENTRY_POINTS)
def client(request: pytest.FixtureRequest, engines: None) -> AsgiClient:
    """A client of streams, served by the bare application, or by Django's views behind its usual middleware."""
    return AsgiClient(DurableStreams() if request.param == "asgi" else get_asgi_application())


@pytest.fixture
def make_user(transactional_db: None) -> Callable[..., User]:
    """Make a user who holds some permissions on streams, by their first words: add, view, change, delete."""

    def make(name: str, *actions: str) -> User:
        user = User.objects.create_user(name, password="x")
        grant(user, *actions)
        return user

    return make


@pytest.fixture
def visit(client: AsgiClient, transactional_db: None) -> Callable[[AbstractUser], Visitor]:
    """Log a user in, and return a client that sends the cookies and the CSRF token."""

    def log_in(user: AbstractUser) -> Visitor:
        return Visitor(client, log_in_at_django(user))

    return log_in


def log_in_at_django(user: AbstractUser) -> DjangoClient:
    django = Client()
    django.force_login(user)  # type: ignore[arg-type]
    return django


def grant(user: User, *actions: str) -> None:
    for action in actions:
        user.user_permissions.add(Permission.objects.get(codename=f"{action}_stream"))


def revoke(user: User, *actions: str) -> None:
    for action in actions:
        user.user_permissions.remove(Permission.objects.get(codename=f"{action}_stream"))


agrant = sync_to_async(grant)
arevoke = sync_to_async(revoke)


@pytest.fixture
def ann(transactional_db: None, engines: None) -> None:
    """Make the superuser ann, who has a session, and the stream "a" with three bytes."""
    user = User.objects.create_user("ann", password="x", is_superuser=True)
    Client().force_login(user)
    Stream.objects.create(path="a", content_type="text/plain").append("abc")
