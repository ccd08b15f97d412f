"""Finds out whether this uvicorn has the parts that our connections build on.

The parts are not documented, so a new version of uvicorn may lack one. All parts that this package uses are listed.
"""

from __future__ import annotations

from collections.abc import Iterator

import httptools
from uvicorn.config import Config
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

PARTS: dict[type, str] = {
    HttpToolsProtocol: """
        access_log access_logger app_state client config connections cycle flow headers limit_concurrency logger loop
        parser pipeline scheme server server_state tasks timeout_keep_alive timeout_keep_alive_task transport
        _should_upgrade _unset_keepalive_if_required connection_lost connection_made data_received
        handle_websocket_upgrade on_body on_header on_headers_complete on_message_begin on_message_complete
        on_response_complete on_url pause_writing resume_writing send_400_response shutdown timeout_keep_alive_handler
    """,
    RequestResponseCycle: "response_complete transport",
    ProxyHeadersMiddleware: "app",
    FlowControl: "drain pause_reading resume_reading write_paused",
    ServerState: "default_headers total_requests",
    httptools.HttpRequestParser: "feed_data set_dangerous_leniencies should_upgrade",
}
"""The attributes and methods that are in use, by class."""

CONFIG_PARTS = "asgi_version http_protocol_class loaded_app root_path"
"""The attributes of a server's configuration that are in use. Some of them are set when it is loaded."""


def missing_parts(config: Config) -> list[str]:
    """Return the names of the parts that this uvicorn lacks.

    Args:
        config: the configuration of the server that is running.
    """
    return [*_missing_in_classes(), *(f"Config.{name}" for name in CONFIG_PARTS.split() if not hasattr(config, name))]


def _missing_in_classes() -> Iterator[str]:
    for kind, names in PARTS.items():
        # A class's own attributes, and those that its constructor sets.
        code = getattr(vars(kind).get("__init__"), "__code__", None)
        set_by_constructor = () if code is None else code.co_names
        for name in names.split():
            if not hasattr(kind, name) and name not in set_by_constructor:
                yield f"{kind.__name__}.{name}"
