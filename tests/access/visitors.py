"""A browser of somebody who is logged in."""

from collections.abc import Iterable

from django.conf import settings
from django.middleware.csrf import _get_new_csrf_string, _mask_cipher_secret  # type: ignore[attr-defined]
from django.test import Client

from tests.asgi_client import AsgiClient, Exchange, Headers, Reply, encoded


class Visitor:
    """Sends requests with the cookies of a session and, where `csrf` is true, with the token that belongs to them."""

    def __init__(self, client: AsgiClient, django: Client, *, csrf: bool = True) -> None:
        self.client = client
        self.django = django
        self.csrf = csrf
        self.secret = _get_new_csrf_string()

    @property
    def headers(self) -> dict[str, str]:
        cookies = {name: morsel.value for name, morsel in self.django.cookies.items()}
        csrf_header = {}
        if self.csrf:
            cookies[settings.CSRF_COOKIE_NAME] = self.secret
            csrf_header["x-csrftoken"] = _mask_cipher_secret(self.secret)
        return {"cookie": "; ".join(f"{name}={value}" for name, value in cookies.items()), **csrf_header}

    def open(self, method: str, target: str, headers: Headers = (), body: bytes | Iterable[bytes] = b"") -> Exchange:
        own = {name: value for name, value in self.headers.items() if name not in dict(headers)}
        return self.client.open(method, target, [*encoded(own), *encoded(headers)], body)

    async def request(
        self, method: str, target: str, headers: Headers = (), body: bytes | Iterable[bytes] = b""
    ) -> Reply:
        async with self.open(method, target, headers, body) as exchange:
            return await exchange.reply()
