"""Turns a request into a response: asks the guard, finds the handler, calls the engine, answers every error.

All entry points call it. It knows neither their connections nor the operations of the protocol.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable
from functools import partial

from ..access.guard import Guard, current_guard
from ..engine import engine_for
from ..engine.snapshot_reader import ReadRequest
from ..protocol import content, headers
from ..protocol.errors import MethodNotAllowed, ServiceUnavailable
from ..protocol.messages import ClientDisconnected, Request, Response, error_response
from ..protocol.paths import ReservedPath
from ..runtime import tracing
from ..runtime.results import ResultCallback
from ..runtime.test_transactions import InvisibleTransaction
from ..store.operations import Appended, Created
from .answers import ANSWERS, EventStream, Work
from .bodies import memory
from .body_preparation import LONG_BYTES, prepare
from .control import is_control, respond_control
from .coroutines import start
from .failures import as_refusal, failure_response
from .handlers import Handler, handler_for
from .response_policy import common_headers, complete_refusal, policy

LONG_UPLOAD_SECONDS = 1.0
"""A request whose body takes longer to arrive is checked again then: its permission may have ended meanwhile."""


async def respond(request: Request) -> Response | EventStream:
    """Return the response to a request.

    Raises:
        ClientDisconnected: the client has left.
        InvisibleTransaction: a test needs StreamsMixin, because its transaction hides its data from the engine.
    """
    return await _catch_errors(request, _admit_and_handle(request))


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
            admission = start(guard.admit(request))
            if admission is not None:
                return _catch_errors(request, _handle_then(admission, request, handler))
        if _takes_long(request, body):
            return _catch_errors(request, _handle(request, handler))
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
        outcome = handler_for(request.method).respond(request, engine_for(), value)
    except Exception as error:
        return _failed(request, error)
    return _completed(request, outcome) if isinstance(outcome, ANSWERS) else _catch_errors(request, outcome)


def prepare_response(request: Request, value: object) -> Response | None:
    """Return the response to an outcome that the engine is about to commit, or None where it cannot be made yet.

    Send it only if this very value becomes the outcome of the operation.
    """
    if not isinstance(value, (Appended, Created)):
        return None
    response = finish_request(request, value)
    return response if isinstance(response, Response) else None


def needs_task() -> bool:
    """Return whether work needs a task. A project's permissions may, because asyncio.timeout does."""
    guard = current_guard()
    return guard is not None and guard.needs_task


def refuse(error: Exception) -> Response:
    """Return the response to a request that could not be parsed."""
    return complete_refusal(error_response(as_refusal(None, error)))


async def _admit_and_handle(request: Request) -> Response | EventStream:
    if request.method == "OPTIONS":
        return policy().cors.preflight(request)
    handler = handler_for(request.method)
    guard = current_guard()
    if guard is not None:
        await _wait_for(guard.admit(request), request)
    return await _handle(request, handler, guard)


async def _handle_then(admission: Awaitable[None], request: Request, handler: Handler) -> Response | EventStream:
    await _wait_for(admission, request)
    return await _handle(request, handler)


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


async def _read_body(request: Request, guard: Guard | None) -> bytes:
    """Return the body of an allowed request. The permission must still hold once a slow body has arrived."""
    began = time.monotonic()
    body = await request.read_body()
    if guard is not None and time.monotonic() - began >= LONG_UPLOAD_SECONDS:
        await guard.admit_again(request)
    return body


async def _handle(request: Request, handler: Handler, guard: Guard | None = None) -> Response | EventStream:
    engine = engine_for()
    task = handler.parse(request)
    if handler.set_body is not None:
        try:
            if request.body is None:
                request.body = await _read_body(request, guard)
            if _takes_long(request, request.body):
                await prepare(len(request.body), partial(handler.set_body, request, task, request.body))
            else:
                handler.set_body(request, task, request.body)
        finally:
            if request.arriving is not None:
                request.arriving.release()
    if tracing.tracer is not None:
        tracing.mark(request)
    value = await (engine.read(task.path, task.offset) if isinstance(task, ReadRequest) else engine.write(task))
    outcome = handler.respond(request, engine, value)
    return outcome if isinstance(outcome, ANSWERS) else await outcome


def _takes_long(request: Request, body: bytes) -> bool:
    """Return whether a body takes long to prepare, so that a thread does it."""
    kind = request.headers.get(headers.CONTENT_TYPE, b"")
    is_long = len(body) >= LONG_BYTES and len(kind) <= content.MAX_CONTENT_TYPE_LENGTH
    return is_long and content.is_json(headers.text(kind))


async def _catch_errors(request: Request, work: Work) -> Response | EventStream:
    return await complete(request, _or_control(request, work))


async def _or_control(request: Request, work: Work) -> Response | EventStream:
    try:
        return await work
    except (ReservedPath, MethodNotAllowed) as error:
        if not is_control(request, error):
            raise
    request.operation = "control"
    return await respond_control(request)


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
