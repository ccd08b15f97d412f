"""A mixin that lets Django's test cases use streams."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.test import TestCase, TransactionTestCase

from .client import StreamClient
from .engines import inline_engines, needs_inline_engines, stop_engines

if TYPE_CHECKING:
    _Case = TransactionTestCase
else:
    _Case = object


class StreamsMixin(_Case):
    """For Django's test cases: `class ChatTests(StreamsMixin, TestCase)`.

    In a `TestCase` engines work in the test's transaction. In a `TransactionTestCase` they work as in production, and
    end with the test.
    """

    stream_client: StreamClient
    """The client of the test."""

    def setUp(self) -> None:
        """Prepare the engines and the client."""
        super().setUp()
        if needs_inline_engines(isinstance(self, TestCase)):
            self.enterContext(inline_engines())
        else:
            self.addCleanup(stop_engines)
        self.stream_client = StreamClient()
