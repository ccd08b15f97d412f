"""The example project under a server that is ended without a signal, once a file is there.

python ending_server.py PROGRAM PORT FILE
"""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIServer, make_server

HOST = "127.0.0.1"
LIMIT = 50
"""Requests after which a server that has such a limit ends by itself."""

NEVER = 60
"""Seconds for which a server waits for open responses: longer than any test."""


def when_told(end: Callable[[], object]) -> None:
    """Call a function, in a thread, once the file is there."""

    def wait() -> None:
        while not os.path.exists(sys.argv[3]):
            time.sleep(0.01)
        end()

    threading.Thread(target=wait, daemon=True).start()


def uvicorn(port: int, **options: Any) -> Any:
    import uvicorn
    from config.asgi import application

    return uvicorn.Server(uvicorn.Config(application, host=HOST, port=port, log_level="warning", **options))


def uvicorn_in_thread(port: int, **options: Any) -> None:
    """It handles no signals there, and is told by its attribute."""
    server = uvicorn(port, **options)
    thread = threading.Thread(target=server.run)
    thread.start()
    when_told(lambda: setattr(server, "should_exit", True))
    thread.join()


def uvicorn_in_a_task(port: int) -> None:
    """Its shutdown is called by the program that has started it among others."""

    async def main() -> None:
        server = uvicorn(port)
        loop = asyncio.get_running_loop()
        told = asyncio.Event()
        when_told(lambda: loop.call_soon_threadsafe(told.set))
        serving = asyncio.create_task(server.serve())
        await told.wait()
        await server.shutdown()
        serving.cancel()

    asyncio.run(main())


def two_uvicorns(port: int) -> None:
    """One after the other in a process and in an event loop; the second is the one that is told."""

    async def main() -> None:
        first = uvicorn(0)
        first.should_exit = True
        await first.serve()
        server = uvicorn(port)
        when_told(lambda: setattr(server, "should_exit", True))
        await server.serve()

    asyncio.run(main())


def hypercorn_trigger(port: int, **options: Any) -> None:
    """It is told by a trigger of the program's own."""
    from config.asgi import application
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"{HOST}:{port}"]
    config.graceful_timeout = NEVER
    for name, value in options.items():
        setattr(config, name, value)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        told = asyncio.Event()
        when_told(lambda: loop.call_soon_threadsafe(told.set))
        await serve(application, config, shutdown_trigger=told.wait)

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    thread.join()


def granian_embedded(port: int) -> None:
    """It is stopped by the program that it runs in."""
    from config.asgi import application
    from granian.constants import Interfaces
    from granian.server.embed import Server

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = Server(application, address=HOST, port=port, interface=Interfaces.ASGI)
        when_told(lambda: loop.call_soon_threadsafe(server.stop))
        await server.serve()

    asyncio.run(main())


def daphne_reactor(port: int) -> None:
    """Its reactor is stopped."""
    import daphne.server
    from config.asgi import application

    server = daphne.server.Server(application, endpoints=[f"tcp:port={port}:interface={HOST}"], signal_handlers=False)
    reactor: Any = daphne.server.reactor
    when_told(lambda: reactor.callFromThread(server.stop))
    server.run()


def wsgiref_threads(port: int) -> None:
    """It waits for its threads, as it does unless they are daemons."""
    from config.wsgi import application

    class Server(ThreadingMixIn, WSGIServer):
        daemon_threads = False

    server = make_server(HOST, port, application, Server)
    when_told(server.shutdown)
    server.serve_forever()
    server.server_close()


PROGRAMS: dict[str, Callable[[int], None]] = {
    "uvicorn-should_exit-httptools-uvloop": lambda port: uvicorn_in_thread(port, http="httptools", loop="uvloop"),
    "uvicorn-should_exit-h11-asyncio": lambda port: uvicorn_in_thread(port, http="h11", loop="asyncio", lifespan="off"),
    "uvicorn-limit_max_requests": lambda port: uvicorn_in_thread(port, limit_max_requests=LIMIT),
    "uvicorn-shutdown": uvicorn_in_a_task,
    "uvicorn-second-in-loop": two_uvicorns,
    "hypercorn-trigger": hypercorn_trigger,
    "hypercorn-max_requests": lambda port: hypercorn_trigger(port, max_requests=LIMIT),
    "granian-embedded": granian_embedded,
    "daphne-reactor": daphne_reactor,
    "wsgiref-threads": wsgiref_threads,
}

if __name__ == "__main__":
    import django

    django.setup()
    PROGRAMS[sys.argv[1]](int(sys.argv[2]))
