"""An asyncio server for tests that leaves no open socket behind, however its test ends.

asyncio leaves two kinds of connections open. One is accepted in the turn of the event loop before its server closes.
The other one has a handler that is cancelled before it begins. The garbage collector closes them in some later test,
which fails with a warning that is not its own.
"""

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

TURNS_OF_AN_ACCEPT = 2
"""Turns of the event loop from the system's accept to the handler's task."""

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


class Listener:
    """A server. Use as an asynchronous context manager.

    handle: is called with each connection, which is closed when it returns. It is cancelled at the end of the server.
    context: with one it speaks TLS.
    """

    def __init__(
        self, handle: Handler, *, host: str = "127.0.0.1", port: int = 0, context: ssl.SSLContext | None = None
    ) -> None:
        self._handle = handle
        self._host = host
        self._context = context
        self.port = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, self._host, self.port, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server_socket in self._server.sockets:
            asyncio.get_running_loop().remove_reader(server_socket.fileno())
        for _ in range(TURNS_OF_AN_ACCEPT):
            await asyncio.sleep(0)
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            with suppress(AttributeError):  # Python 3.11.2 has forgotten the connection of one that was closed twice
                writer.transport.abort()
        await asyncio.sleep(0)  # an aborted transport closes its socket in the next turn of the loop

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        task = asyncio.get_running_loop().create_task(self._handle(reader, writer))
        self._tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if task.cancelled():
                writer.transport.abort()
                return
            writer.close()
            error = task.exception()
            if error is not None and not isinstance(error, (OSError, EOFError)):  # the client may leave at any moment
                context = {"message": "A handler has failed.", "exception": error}
                asyncio.get_running_loop().call_exception_handler(context)

        task.add_done_callback(done)
