"""Renderers of every kind, and the counts of their calls."""

import asyncio
import threading
from collections import Counter
from typing import Any

from django.contrib.auth.models import User
from django.http import HttpRequest
from django.utils.html import format_html

from django_durable_streams.pages import PageEvent, StreamAt, datastar

calls: Counter[str] = Counter()
threads: set[str] = set()
may_go_on = threading.Event()


def counted(message: Any, stream: StreamAt) -> str:
    calls[stream.next_offset] += 1
    threads.add(threading.current_thread().name)
    return format_html("<li>{}</li>\n<li>{}</li>", message, stream.path)


def shout(message: Any) -> str:
    return str(message).upper()


def kind(message: Any) -> str | None:
    return message.get("type") if isinstance(message, dict) else None


def only_even(message: int) -> str | None:
    return str(message) if message % 2 == 0 else None


def fails_sometimes(message: int) -> str:
    if message % 3 == 0:
        raise SystemExit(message)
    return str(message)


async def asynchronous(message: Any) -> str:
    await asyncio.sleep(0)
    return f"{message}, {await User.objects.acount()} users"


def for_user(message: Any, stream: StreamAt, request: HttpRequest) -> str:
    calls["own"] += 1
    return f"{message} for {request.GET['name']}"


def slow(message: Any) -> str:
    assert may_go_on.wait(20)
    return str(message)


def as_object(message: Any) -> Any:
    return {"message": message, "count": User.objects.count()}


def patch(message: Any) -> PageEvent:
    return datastar.patch_elements(f"<b>{message}</b>\n<i></i>", selector="#log", mode="append")
