"""Proxies with the configurations of the pages, whose ports and files are those of the test."""

import socket
from abc import abstractmethod
from collections.abc import Sequence

from tests.docs.pages import ROOT, blocks
from tests.servers import HOST
from tests.service import Service
from tests.services import CONNECT_SECONDS, Nginx

PAGES = ROOT / "docs" / "deployment"


def configuration(page: str, language: str) -> str:
    """The one configuration of a page in a language."""
    (block,) = blocks(PAGES / f"{page}.md", language)
    return block.text


def replaced(text: str, replacements: Sequence[tuple[str, str]]) -> str:
    """Replace parts of a configuration, each of which has to be there."""
    for old, new in replacements:
        assert old in text, f"the page has no {old}"
        text = text.replace(old, new)
    return text


class Proxy(Service):
    """A proxy in front of two servers, with the configuration of its page, without TLS.

    ports: of the two servers.
    """

    def __init__(self, first: int, second: int) -> None:
        super().__init__()
        self.ports = [("127.0.0.1:8000", f"{HOST}:{first}"), ("127.0.0.1:8001", f"{HOST}:{second}")]

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @abstractmethod
    def configuration(self) -> str:
        """The page's configuration, changed for this test."""

    def _set_up(self) -> None:
        (self.directory / "configuration").write_text(self.configuration())

    def _ping(self) -> None:
        socket.create_connection((HOST, self.port), CONNECT_SECONDS).close()


class Caddy(Proxy):
    requirement = "caddy"

    def configuration(self) -> str:
        options = f"{{\n\tadmin off\n\tstorage file_system {self.directory}\n}}\n"
        site = ("example.org {", f"http://{HOST}:{self.port} {{")
        host = ("Host example.org", "Host localhost")
        return options + replaced(configuration("caddy", "caddyfile"), [site, host, *self.ports])

    def _command(self) -> Sequence[str]:
        return [str(self.program), "run", "--adapter", "caddyfile", "--config", str(self.directory / "configuration")]


class HAProxy(Proxy):
    requirement = "haproxy"

    def configuration(self) -> str:
        bind = ("bind :443 ssl crt /etc/ssl/example.org.pem alpn h2,http/1.1", f"bind {HOST}:{self.port}")
        host = ("hdr Host example.org", "hdr Host localhost")
        few = ("maxconn 20000", "maxconn 1000")  # each takes two open files
        return replaced(configuration("haproxy", "haproxy"), [bind, host, few, *self.ports])

    def _command(self) -> Sequence[str]:
        return [str(self.program), "-db", "-f", str(self.directory / "configuration")]


def nginx(first: int, second: int) -> Nginx:
    """nginx in front of two servers, as its page has it, without TLS."""
    tls = [
        ("listen 443 ssl http2;", "listen {port};"),
        ("server_name example.org;", ""),
        ("ssl_certificate /etc/ssl/example.org.pem;", ""),
        ("ssl_certificate_key /etc/ssl/example.org.key;", ""),
    ]
    ports = [("127.0.0.1:8000", f"{HOST}:{first}"), ("127.0.0.1:8001", f"{HOST}:{second}")]
    return Nginx(replaced(configuration("nginx", "nginx"), [*tls, *ports]))
