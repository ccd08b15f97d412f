"""The sources of answers: a generator that needs no network, and a model.

Each runs on the server, detached from the request that began it. What it yields is committed 20 times a second.
"""

import asyncio
import importlib
import re
from collections.abc import AsyncIterator

from django.conf import settings

from django_durable_streams.contrib.ai.answers import AnswerContext, AnswerError
from django_durable_streams.contrib.ai.events import Data, Event
from django_durable_streams.contrib.ai.sources.openai import chat_completions, messages

from .texts import text_for


async def generator(context: AnswerContext) -> AsyncIterator[str | Event]:
    """Write a text slowly, as a model does."""
    text = text_for(context.messages[-1].text)
    written = len(context.text)
    if context.written:  # by a process that has vanished: yield only the rest, and tell the page
        yield Data("continued", {"after": written})
    for token in re.findall(r"\s*\S{1,5}", text[written:]):
        await asyncio.sleep(1 / settings.TOKENS_PER_SECOND)
        yield token


async def model(context: AnswerContext, model: str) -> AsyncIterator[Event]:
    """Ask a model, at any server that speaks OpenAI's protocol."""
    try:
        # The first import takes a second or more. In a thread, readers and other requests need not wait for it.
        openai = await asyncio.to_thread(importlib.import_module, "openai")
    except ImportError:
        raise AnswerError("OPENAI_MODEL is set, and the package openai is not installed.") from None
    try:
        # The client reads OPENAI_BASE_URL and OPENAI_API_KEY.
        async with openai.AsyncOpenAI() as client:
            request = client.chat.completions.create(model=model, messages=messages(context.messages), stream=True)
            async for event in chat_completions(request):
                yield event
    except openai.OpenAIError as error:  # readers see this text, so it has no details
        raise AnswerError(f"The model did not answer ({type(error).__name__}).") from error
