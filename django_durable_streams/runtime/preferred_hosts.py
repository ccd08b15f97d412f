"""Several hosts in a database's settings: the one that was the right one last is tried first.

Settings of PostgreSQL may name several hosts, and let the client library find the one that takes changes. It tries them
in their order. A host that has vanished costs it the whole limit of a connection, each time. So a health check would
fail, and the database monitor would take the database for away, for as long as that host is gone.

Knows no stream, and no connection but by its attributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_preferred: dict[str, tuple[str, str]] = {}
"""The host and port of the last connection, by alias of the database."""


def with_preferred_host(using: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a connection, with the host of the last connection first.

    Args:
        using: alias of the database.
        params: what the driver gets. They are returned as they are, unless they name several hosts of which the one
            is wanted that takes changes. Others may be named in an order that a project means.
    """
    servers = _servers(params)
    preferred = _preferred.get(using)
    if preferred not in servers:
        return {**params}
    ordered = [preferred, *(server for server in servers if server != preferred)]
    return {
        **params,
        "host": ",".join(host for host, _ in ordered),
        "port": ",".join(port for _, port in ordered),
    }


def remember_host(using: str, params: Mapping[str, Any], driver_connection: Any) -> None:
    """Note which of several hosts a new connection leads to."""
    if _servers(params):
        info = driver_connection.info
        _preferred[using] = (str(info.host), str(info.port))


def _servers(params: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the hosts and ports that are tried in this order. Empty: there is one, or the order matters."""
    if params.get("target_session_attrs") not in ("read-write", "primary"):
        return []
    hosts = str(params.get("host") or "").split(",")
    if len(hosts) < 2 or params.get("hostaddr") or params.get("load_balance_hosts", "disable") != "disable":
        return []
    ports = str(params.get("port") or "5432").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    return [(host, port or "5432") for host, port in zip(hosts, ports, strict=True)] if len(ports) == len(hosts) else []
