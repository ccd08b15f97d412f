"""From a request to a response, whatever happens on the way."""

from __future__ import annotations

import logging

from ..access.guard import current_guard
from ..engine import engine_for
from ..protocol.errors import DurableStreamsError
from .cors import common_headers, policy
from .handlers import handler_for
from .messages import ClientDisconnected, EventStream, Request, Response, error_response

logger = logging.getLogger(__name__)


async def respond(request: Request) -> Response | EventStream:
    """Return the response to a request.

    Raises:
        ClientDisconnected: nobody is left to respond to.
    """
    response: Response | EventStream
    try:
        if request.method == "OPTIONS":
            response = policy().preflight(request)
        else:
            handler = handler_for(request.method)
            guard = current_guard()
            if guard is not None:
                await guard.admit(request)
            response = await handler(request, engine_for())
    except DurableStreamsError as error:
        response = error_response(error)
    except ClientDisconnected:
        raise
    except Exception:
        logger.exception("%s %s failed.", request.method, request.path)
        response = error_response(DurableStreamsError("Something went wrong here; the log of the server says what."))
    if isinstance(response, EventStream) or not response.sent:
        return response.with_headers(common_headers(request))
    return response


def refuse(error: DurableStreamsError) -> Response:
    """Return the response for a request that could not even be read."""
    response = error_response(error)
    response.headers += policy().headers("", None)
    return response
