"""Authentication as a project may have its own."""

from collections.abc import Callable
from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse


class OwnBackend(ModelBackend):
    """Loads users its own way."""

    def get_user(self, user_id: Any) -> User | None:
        return User.objects.filter(pk=user_id, is_active=True).first()


class UserOfHeader:
    """Middleware that believes a header."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        name = request.headers.get("x-user")
        if name:
            request.user = User.objects.get(username=name)
        return self.get_response(request)
