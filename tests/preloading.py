"""The process that `preloaded` forks others from: `python tests/preloading.py DESCRIPTOR`, of a socket for requests.

It imports nothing that reads settings, starts threads or opens files. It knows nothing of the programs that it runs.
The other modules of servers are imported by its children. It reads the code of these, which is a quarter of that work.
One of its children imports the apps of the example project, see `preloading_apps`, and is forked in its place for
programs that use them: such a server takes 0.07 seconds of a processor to its first response, instead of 0.29.
"""

import array
import atexit
import gc
import importlib
import json
import multiprocessing.util
import os
import runpy
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NoReturn

MODULES = (
    "anyio",
    "autobahn.wamp.message",
    "autobahn.websocket.protocol",
    "certifi",
    "channels.auth",
    "channels.generic.websocket",
    "channels.routing",
    "cryptography.hazmat.primitives.asymmetric.ed25519",
    "daphne.endpoints",
    "daphne.http_protocol",
    "dj_database_url",
    "django.contrib.admin.options",
    "django.contrib.admin.sites",
    "django.contrib.admin.templatetags.admin_list",
    "django.contrib.admin.views.main",
    "django.contrib.auth.hashers",
    "django.contrib.messages.middleware",
    "django.contrib.messages.storage.fallback",
    "django.contrib.sessions.backends.db",
    "django.contrib.sessions.middleware",
    "django.contrib.staticfiles.handlers",
    "django.core.asgi",
    "django.core.cache.backends.locmem",
    "django.core.checks",
    "django.core.handlers.asgi",
    "django.core.mail",
    "django.core.management",
    "django.core.serializers",
    "django.core.signing",
    "django.core.wsgi",
    "django.db.backends.mysql.base",
    "django.db.backends.postgresql.base",
    "django.db.backends.sqlite3.base",
    "django.db.migrations.executor",
    "django.db.models",
    "django.forms",
    "django.http",
    "django.middleware.clickjacking",
    "django.middleware.common",
    "django.middleware.csrf",
    "django.middleware.security",
    "django.template.backends.django",
    "django.template.loader",
    "django.test.client",
    "django.utils.translation.trans_real",
    "django.views.debug",
    "django.views.decorators.http",
    "django.views.generic",
    "django.views.i18n",
    "django_durable_streams.conf",
    "django_durable_streams.protocol",
    "django_htmx.middleware",
    "django_redis.cache",
    "httpcore",
    "hypercorn.asyncio.run",
    "hypercorn.run",
    "msgspec",
    "multiprocessing.spawn",
    "psycopg_pool",
    "redis.asyncio",
    "segno",
    "twisted.internet._sslverify",
    "twisted.internet.base",
    "uvicorn.lifespan.on",
    "uvicorn.loops.uvloop",
    "uvicorn.main",
    "uvicorn.protocols.http.h11_impl",
    "uvicorn.protocols.http.httptools_impl",
    "uvicorn.protocols.websockets.wsproto_impl",
    "uvicorn.supervisors",
    "wsgiref.simple_server",
    "zoneinfo",
)
"""Those that cannot be imported without settings are left to the children. So is granian: two workers fail to start
from a process that was forked after its import. Those that import `twisted.internet.tcp` open files.
"""

FOLDERS = ("django_durable_streams", "example_project")
DJANGO_APPS = ("auth", "admin", "contenttypes", "messages", "sessions", "staticfiles")
"""Those of which only the code is read."""

STDERR = 2
Job = dict[str, Any]


def preload() -> None:
    """Import what servers import."""
    for name in MODULES:
        with suppress(Exception):
            importlib.import_module(name)
    root, contrib = Path(__file__).parent.parent, Path(importlib.import_module("django.contrib").__file__ or "").parent
    preload_code([*(root / name for name in FOLDERS), *(contrib / name for name in DJANGO_APPS)])
    gc.collect()
    gc.freeze()


def preload_code(folders: Iterable[Path]) -> None:
    """Read the code of all modules in some folders, for whoever imports one of them."""
    read = SourceFileLoader.get_code
    codes: dict[str, CodeType | None] = {}
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        with suppress(Exception):
            codes[str(path)] = read(SourceFileLoader(path.stem, str(path)), path.stem)

    def get_code(loader: SourceFileLoader, name: str) -> CodeType | None:
        return codes.get(loader.path) or read(loader, name)

    SourceFileLoader.get_code = get_code  # type: ignore[method-assign, assignment]


def serve(control: socket.socket, *, has_apps: bool = False) -> Job:
    """Fork for each request, and tell of the end of each child. Returns in a child, with the request.

    Args:
        control: where requests arrive.
        has_apps: whether the apps of the example project are imported. Otherwise a process that has done so is forked
            for the programs that use them.
    """
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    with_apps, pid_with_apps = None, 0
    while True:
        for key, _ in selector.select():
            if key.data is not None:
                selector.unregister(key.fd)
                tell_of_end(key.fd, *key.data)
                continue
            message, descriptors, _, _ = socket.recv_fds(control, 1 << 20, 4)
            if not message:  # the run of the tests has ended
                end(with_apps, pid_with_apps)
            job = json.loads(message)
            if not has_apps and preloading_apps.are_used(job["env"]):
                if with_apps is None:
                    with_apps, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                    pid_with_apps = os.fork()
                    if not pid_with_apps:
                        selector.close()  # otherwise the garbage collector closes whatever has its number by then
                        control.close()
                        close_all_but(theirs.fileno())
                        preload_apps()
                        return serve(theirs, has_apps=True)
                    theirs.close()
                socket.send_fds(with_apps, [message], descriptors)
                for descriptor in descriptors:
                    os.close(descriptor)
                continue
            *files, news = descriptors
            pid = os.fork()
            if not pid:
                selector.close()
                begin(*files)
                return job
            with suppress(OSError):  # the child has done so itself, and may have ended
                os.setpgid(pid, pid)
            for descriptor in files:
                os.close(descriptor)
            os.write(news, array.array("i", [pid]).tobytes())
            selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, news))


def end(with_apps: socket.socket | None, pid_with_apps: int) -> NoReturn:
    """End with the process that has imported the apps, if there is one."""
    if with_apps is not None:
        with_apps.close()
        os.waitpid(pid_with_apps, 0)
    os._exit(0)


def preload_apps() -> None:
    """Import the apps of the example project."""
    preloading_apps.import_apps()
    gc.collect()
    gc.freeze()


def tell_of_end(descriptor: int, pid: int, news: int) -> None:
    """Write the exit status of a child that has ended to who has asked for it."""
    os.close(descriptor)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(OSError):
        os.write(news, array.array("i", [status]).tobytes())
    os.close(news)


def begin(output: int, errors: int, stdin: int = 0) -> None:
    """Leave behind what belongs to the parent."""
    os.setpgid(0, 0)
    for number, descriptor in enumerate((stdin, output, errors)):
        os.dup2(descriptor, number)
    close_all_but()


def close_all_but(*kept: int) -> None:
    """Close all descriptors but these and the standard ones."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > STDERR and int(name) not in kept:
            with suppress(OSError):  # the listing's own is closed already
                os.close(int(name))


def fork_interpreter(path: bytes, arguments: Sequence[str], descriptors: Iterable[int]) -> int:
    """Start a program of multiprocessing, as its `spawnv_passfds`, but with all imports done. Returns its process.

    Workers of uvicorn and hypercorn are such programs. A new interpreter takes a second of a processor for each.
    """
    if pid := os.fork():
        return pid
    status = 1
    try:
        gc.freeze()  # what belongs to the parent is never closed by a descriptor's number
        close_all_but(*map(int, descriptors))
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        position = arguments.index("-c") + 1
        sys.argv[:] = ["-c", *arguments[position + 1 :]]
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(arguments[position], main.__dict__)
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        os._exit(status)


def run(job: Job) -> None:
    """Run a module, a script or the text of one as the main program."""
    multiprocessing.util.spawnv_passfds = fork_interpreter  # type: ignore[assignment]
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["env"])
    flag, *rest = job["arguments"]
    folder = {"-m": job["cwd"], "-c": ""}.get(flag, os.path.dirname(flag))
    sys.path[:] = [folder, *job["env"].get("PYTHONPATH", "").split(os.pathsep), *INSTALLED]
    if flag == "-c":
        sys.argv[:] = ["-c", *rest[1:]]
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    elif flag == "-m":
        sys.argv[:] = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv[:] = [flag, *rest]
        runpy.run_path(flag, run_name="__main__")


if __name__ == "__main__":
    # Without the folder of this script, and what the environment adds.
    INSTALLED = [path for path in sys.path[1:] if path not in os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    sys.path[:] = [os.getcwd(), *INSTALLED]
    preload()
    preloading_apps = importlib.import_module("tests.preloading_apps")
    run(serve(socket.socket(fileno=int(sys.argv[1]))))
