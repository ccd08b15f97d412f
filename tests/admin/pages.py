"""What tests of the admin share: where its pages are, and people with some permissions."""

from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from django_durable_streams.models import Stream


def url(name: str, *streams: Stream) -> str:
    return reverse(f"admin:durable_streams_stream_{name}", args=[stream.pk for stream in streams])


def staff(*permissions: str, name: str = "clerk") -> User:
    """Somebody who may enter the admin, and has some permissions on streams."""
    user = User.objects.create_user(name, is_staff=True)
    user.user_permissions.set(
        Permission.objects.filter(codename__in=[f"{permission}_stream" for permission in permissions])
    )
    return user


def client_of(user: User, **options: bool) -> Client:
    client = Client(**options)  # type: ignore[arg-type]
    client.force_login(user)
    return client
