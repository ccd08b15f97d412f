"""What tests of the admin share: where its pages are, and people with some permissions."""

from django.contrib.auth.models import Permission, User
from django.db.models import Model
from django.test import Client
from django.urls import reverse

from django_durable_streams.models import Stream, Subscription


def url(name: str, *streams: Stream) -> str:
    return reverse(f"admin:durable_streams_stream_{name}", args=[stream.pk for stream in streams])


def subscription_url(name: str, *subscriptions: Subscription) -> str:
    return reverse(f"admin:durable_streams_subscription_{name}", args=[one.pk for one in subscriptions])


def staff(*permissions: str, name: str = "clerk", model: type[Model] = Stream) -> User:
    """Somebody who may enter the admin, and has some permissions on streams, or on another model."""
    user = User.objects.create_user(name, is_staff=True)
    grant(user, *permissions, model=model)
    return user


def grant(user: User, *permissions: str, model: type[Model] = Stream) -> None:
    """Give somebody further permissions on a model."""
    codenames = [f"{permission}_{model._meta.model_name}" for permission in permissions]
    user.user_permissions.add(*Permission.objects.filter(codename__in=codenames))


def client_of(user: User, **options: bool) -> Client:
    client = Client(**options)  # type: ignore[arg-type]
    client.force_login(user)
    return client
