"""Turns a request into a response: asks the guard, finds the handler, calls the engine, answers every error.

All entry points call it. It knows neither their connections nor the operations of the protocol.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from functools import partial

from ..access.guard import Guard, current_guard
from ..engine import engine_for
from ..engine.engine import Task
from ..protocol import content, headers
from ..protocol.errors import ServiceUnavailable
from ..protocol.messages import ClientDisconnected, Request, Response, error_response
from ..runtime import tracing
from ..runtime.results import Reply, ResultCallback
from ..runtime.test_transactions import InvisibleTransaction
from ..store.operations import Appended, Created
from .answers import ANSWERS, EventStream, Work
from .bodies import memory
from .body_preparation import LONG_BYTES, prepare
from .control import is_control, respond_control
from .coroutines import start
from .failures import as_refusal, failure_response
from .handlers import HANDLERS, Handler, SetBody, handler_for
from .response_policy import common_headers, complete_refusal, policy

LONG_UPLOAD_SECONDS = 1.0
"""A request whose body takes longer to arrive is checked again then: its permission may have ended meanwhile."""


def respond(request: Request) -> Work:
    """Return the work that leads to the response to a request.

    It raises:
        ClientDisconnected: the client has left.
        InvisibleTransaction: a test needs StreamsMixin, because its transaction hides its data from the engine.
    """
    return _answer(request)


def start_request(request: Request, callback: ResultCallback) -> Response | EventStream | Work | None:
    """Start a request whose body has arrived, without a task if possible.

    Returns the response, or the work that leads to it. None means that the engine has the operation: the callback gets
    its outcome, and `finish_request` turns that into the response.
    """
    body = request.body
    assert body is not None
    try:
        handler = handler_for(request.method)
        guard = current_guard()
        if guard is not None:
            if guard.needs_task:
                return respond(request)
            admission = None if guard.admit_at_once(request) else start(guard.admit(request))
            if admission is not None:
                return _answer(request, handler, admission)
        if len(body) >= LONG_BYTES and _takes_long(request, body):
            return _answer(request, handler)
        task = handler.parse(request)
        if handler.set_body is not None:
            handler.set_body(request, task, body)
        if tracing.tracer is not None:
            tracing.mark(request)
        engine_for().post(task, callback)
    except Exception as error:
        return respond(request) if is_control(request, error) else _failed(request, error)
    return None


def finish_request(request: Request, value: object) -> Response | EventStream | Work:
    """Return the response to a request from the outcome of its operation, or the work that leads to it."""
    if isinstance(value, Exception):
        return _failed(request, value)
    try:
        outcome = HANDLERS[request.method].respond(request, engine_for(), value)
    except Exception as error:
        return _failed(request, error)
    return _completed(request, outcome) if isinstance(outcome, ANSWERS) else complete(request, outcome)


def prepare_response(request: Request, value: object) -> Response | None:
    """Return the response to an outcome that the engine is about to commit, or None where it cannot be made yet.

    Send it only if this very value becomes the outcome of the operation.
    """
    if not isinstance(value, (Appended, Created)):
        return None
    try:
        response = HANDLERS[request.method].respond(request, engine_for(), value)
    except Exception:  # met again when the outcome is there, where it becomes the response
        return None
    return response.with_headers(common_headers(request, response)) if isinstance(response, Response) else None


def needs_task() -> bool:
    """Return whether work needs a task. A project's permissions may, because asyncio.timeout does."""
    guard = current_guard()
    return guard is not None and guard.needs_task


def refuse(error: Exception) -> Response:
    """Return the response to a request that could not be parsed."""
    return complete_refusal(error_response(as_refusal(None, error)))


async def _answer(
    request: Request, handler: Handler | None = None, admission: Awaitable[None] | None = None
) -> Response | EventStream:
    """Return the response to a request. With a handler, the request was admitted, or `admission` is the rest of that.

    One coroutine does most of the work: each one around a wait takes part in it.
    """
    reply: Reply | None = None
    try:
        guard = None
        if handler is None:
            if request.method == "OPTIONS":
                return _completed(request, policy().cors.preflight(request))
            handler = handler_for(request.method)
            guard = current_guard()
            if guard is not None and not guard.admit_at_once(request):
                admission = guard.admit(request)
        if admission is not None:
            await _wait_for(admission, request)
        engine = engine_for()
        task = handler.parse(request)
        if handler.set_body is not None:
            await _set_body(request, handler.set_body, task, guard)
        reply = Reply(loop=asyncio.get_running_loop())
        if handler.set_body is not None:
            reply.make_early = partial(prepare_response, request)
        if tracing.tracer is not None:
            tracing.mark(request)
        engine.post(task, reply)
        value = await reply
        if reply.early is not None and reply.early[0] is value:  # otherwise the commit has led to another outcome
            response: Response = reply.early[1]
            return response
        reply = None  # a long-poll waits below
        outcome = handler.respond(request, engine, value)
        return _completed(request, outcome if isinstance(outcome, ANSWERS) else await outcome)
    except (ClientDisconnected, InvisibleTransaction):
        raise
    except Exception as error:
        reply = None  # it has the error, whose traceback has this frame: a circle would keep the request for long
        if not is_control(request, error):
            return _failed(request, error)
    request.operation = "control"
    return await complete(request, respond_control(request))


async def _wait_for(admission: Awaitable[None], request: Request) -> None:
    """Return if a request may go on. Meanwhile, what has arrived of its body counts towards MAX_BODY_MEMORY.

    Without room the body is dropped at once. The client learns of that only if it has the permission.
    """
    size = request.waiting_bytes()
    if not size:
        await admission
        return
    try:
        memory.reserve(size)
    except ServiceUnavailable:
        request.drop_body()
        await admission
        raise
    try:
        await admission
    finally:
        memory.release(size)


async def _read_allowed_body(request: Request, guard: Guard) -> bytes:
    """Return the body of an allowed request. The permission must still hold once a slow body has arrived."""
    began = time.monotonic()
    body = await request.read_body()
    if time.monotonic() - began >= LONG_UPLOAD_SECONDS:
        await guard.admit_again(request)
    return body


async def _set_body(request: Request, set_body: SetBody, task: Task, guard: Guard | None) -> None:
    """Read the body of an allowed request if it has not arrived, and add it to the task."""
    try:
        body = request.body
        if body is None:
            body = await (request.read_body() if guard is None else _read_allowed_body(request, guard))
            request.body = body
        if len(body) >= LONG_BYTES and _takes_long(request, body):
            await prepare(len(body), partial(set_body, request, task, body))
        else:
            set_body(request, task, body)
    finally:
        if request.arriving is not None:
            request.arriving.release()


def _takes_long(request: Request, body: bytes) -> bool:
    """Return whether a body of LONG_BYTES and more takes long to prepare, so that a thread does it."""
    kind = request.headers.get(headers.CONTENT_TYPE, b"")
    return len(kind) <= content.MAX_CONTENT_TYPE_LENGTH and content.is_json(headers.text(kind))


async def complete(request: Request, work: Work) -> Response | EventStream:
    """Return the response that work leads to, with the common headers. Errors become responses.

    Raises:
        ClientDisconnected, InvisibleTransaction: as for `respond`.
    """
    try:
        return _completed(request, await work)
    except (ClientDisconnected, InvisibleTransaction):
        raise
    except Exception as error:
        return _failed(request, error)


def _failed(request: Request, error: Exception) -> Response | EventStream:
    return _completed(request, failure_response(request, error))


def _completed(request: Request, response: Response | EventStream) -> Response | EventStream:
    if response.sent:
        return response
    return response.with_headers(common_headers(request, response))
