"""Turns any exception into the error that a client gets. The log has all that the client must not see.

Records have `request_id`, `method` and `stream_path` as attributes (docs/metrics.md). Knows no handler.
"""

from __future__ import annotations

import logging
from http import HTTPStatus

from django.core.exceptions import ImproperlyConfigured

from ..protocol.errors import DurableStreamsError, StreamNotFound
from ..protocol.messages import Request, Response, error_response
from ..protocol.request_ids import REQUEST_ID, log_fields, request_id
from ..runtime.log_once import LogOnce
from ..runtime.printable import loggable
from . import request_numbers

logger = logging.getLogger(__name__)

LOG_AGAIN_SECONDS = 60.0
"""Settings that cannot work are logged again only if no request has met them for so long."""

_settings_failures = LogOnce(LOG_AGAIN_SECONDS, extends=True)


def as_refusal(request: Request | None, error: Exception) -> DurableStreamsError:
    """Return the error for the client, after it is counted, and logged where it is a failure of the server."""
    refusal = error if isinstance(error, DurableStreamsError) else _of_server(request, error)
    request_numbers.count_error(refusal)
    return refusal


def failure_response(request: Request, error: Exception) -> Response:
    """Return the response to a request that an exception has ended. From status 500 on it has the request's id."""
    refusal = as_refusal(request, error)
    response = error_response(refusal)
    if isinstance(refusal, StreamNotFound) and logger.isEnabledFor(logging.INFO):
        logger.info(
            "%s of %s gets 404: %s",
            request.method, loggable(request.path) or "no path", loggable(refusal.detail), extra=log_fields(request),
        )  # fmt: skip
    if refusal.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        response.headers.append((REQUEST_ID, request_id(request).encode()))
    return response


def _of_server(request: Request | None, error: Exception) -> DurableStreamsError:
    fields = {} if request is None else log_fields(request)
    if isinstance(error, ImproperlyConfigured):
        if _settings_failures.is_due(str(error)[:200]):
            logger.error("Streams cannot be served with these settings. %s", error, extra=fields)
        return DurableStreamsError("The server cannot serve streams with its settings. Its log says what to do.")
    method, path = ("A request", "") if request is None else (request.method, f" {loggable(request.path)}")
    logger.error("%s%s failed.", method, path, exc_info=error, extra=fields)
    return DurableStreamsError("The server failed to answer. Its log has the error.")
