"""Following streams from a shell, in this process."""

import io
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.management.base import OutputWrapper

from django_durable_streams.management.streams.base import Console
from django_durable_streams.management.streams.read import Printer
from django_durable_streams.management.streams.tail import _Followers
from django_durable_streams.models import Stream


@pytest.mark.usefixtures("engines")
async def test_a_follower_that_fell_behind_a_trim_goes_on_after_it() -> None:
    def prepare() -> Any:
        stream = Stream.objects.create(path="a", content_type="text/plain")
        offsets = [stream.append(text).offset for text in ("one", "two", "six")]
        stream.trim(before=offsets[1])
        stream.close()
        return stream, offsets

    stream, (first, second, _) = await sync_to_async(prepare)()
    out, err = io.StringIO(), io.StringIO()
    console = Console(OutputWrapper(out), OutputWrapper(err), {"verbosity": 1})
    await _Followers(console, Printer(console, with_headings=False)).follow({"a": (stream.pk, first)}, [])
    assert (out.getvalue(), err.getvalue()) == ("six", f"a was trimmed. It goes on at {second}.\n")
