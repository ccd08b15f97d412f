"""A real nginx in front of a server, as in docs/deployment/nginx.md: keep-alive to the server, forwarded headers."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks.client import Address
from benchmarks.targets import LOG_TAIL, STOP_SECONDS, Target, TargetError, free_port, wait_for_answer

CONFIGURATION = """\
{user}
worker_processes 1;
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    keepalive_requests 1000000;
    upstream streams {{
        server 127.0.0.1:{server_port};
        keepalive 64;
        keepalive_requests 1000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://streams;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_read_timeout 75s;
            # The reference server does not ask for this itself.
            proxy_buffering off;
            client_max_body_size 16m;
        }}
    }}
}}
"""


class BehindNginx(Target):
    """Another target, reached through nginx.

    server: the target behind nginx.
    headers: those that the clients send with each request.
    """

    def __init__(self, server: Target, headers: Mapping[str, str]) -> None:
        super().__init__(f"nginx-{server.key}", f"{server.title}, nginx")
        self._server = server
        self._headers = headers
        self._process: subprocess.Popen[bytes] | None = None
        self._directory: Path | None = None

    @property
    def pid(self) -> int | None:
        return self._server.pid

    @property
    def project(self) -> Mapping[str, str]:
        return self._server.project

    def start(self) -> Address:
        address = self._server.start()
        self._directory = Path(tempfile.mkdtemp(prefix="bench-nginx-"))
        port = free_port()
        file = self._directory / "nginx.conf"
        user = "user root;" if os.geteuid() == 0 else ""
        options = {"user": user, "directory": self._directory, "server_port": address.port, "port": port}
        file.write_text(CONFIGURATION.format(**options))
        try:
            self._process = subprocess.Popen(
                ["nginx", "-p", str(self._directory), "-c", str(file)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            if not wait_for_answer(port, self._process):
                tail = (self._directory / "error.log").read_text(errors="replace")[-LOG_TAIL:]
                raise TargetError(f"nginx did not start: {tail}")
        except BaseException:
            self.stop()
            raise
        return replace(address, port=port, headers=tuple(self._headers.items()))

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        self._server.stop()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None
