"""The example project under WSGI, its static files included, a thread for each request, with the standard library.

python wsgi_server.py PORT
"""

import sys
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from config.wsgi import application
from django.contrib.staticfiles.handlers import StaticFilesHandler


class ThreadingWSGIServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of requests; errors are logged by Django."""


if __name__ == "__main__":
    port = int(sys.argv[1])
    served = StaticFilesHandler(application)
    make_server("127.0.0.1", port, served, ThreadingWSGIServer, QuietHandler).serve_forever()
