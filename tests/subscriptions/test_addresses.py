"""Where webhooks may go: URLs, addresses, and what names resolve to."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from django.test import override_settings
from hypothesis import example, given
from hypothesis import strategies as st

from django_durable_streams.access.webhook_hosts import Address, allowed_hosts
from django_durable_streams.protocol.subscriptions import SubscriptionError
from django_durable_streams.subscriptions import extra
from django_durable_streams.subscriptions.addresses import (
    METADATA_ADDRESSES,
    Reach,
    check_url,
    is_allowed,
    is_public,
    parse_url,
    resolve_checked,
)
from tests.overriding import override_streams
from tests.subscriptions.receivers import names


def is_rejected(url: str) -> bool:
    """Whether a URL is refused, with the code and status of the specification."""
    try:
        check_url(url)
    except SubscriptionError as error:
        if (error.status, error.error_code) != (400, "WEBHOOK_URL_REJECTED"):
            raise
        return True
    return False


ALLOWED = [
    "https://worker.example.com/hooks",
    "https://worker.example.com",
    "https://worker.example.com?a=1",
    "https://WORKER.Example.COM:443/a/b?c=d&e=[f]",
    "https://worker.example.com:8443/a%20b",
    "https://xn--bcher-kva.example.com/",
    "https://my_worker.example.com/",
    "https://93.184.216.34/hook",
    "https://[2606:2800:220:1:248:1893:25c8:1946]/hook",
    "https://[2606:2800:220:1:248:1893:25c8:1946]:8443/hook",
    "https://[64:ff9b::5db8:d822]/",
    "https://1.example.com/",
    "https://a.b.c.d.e.example.com//x",
]

SYNTAX = [
    "",
    "worker.example.com/hooks",
    "//worker.example.com/hooks",
    "https:worker.example.com",
    "https:/worker.example.com",
    "https:///hooks",
    "https://",
    "http://worker.example.com/",
    "HTTP://worker.example.com/",
    "ftp://worker.example.com/",
    "file:///etc/passwd",
    "gopher://worker.example.com/",
    "javascript:alert(1)",
    "https+unix://worker.example.com/",
    "https://user@worker.example.com/",
    "https://user:password@worker.example.com/",
    "https://@worker.example.com/",
    "https://worker.example.com@10.0.0.1/",
    "https://worker.example.com#@10.0.0.1/",
    "https://10.0.0.1#@worker.example.com/",
    "https://worker.example.com\\@10.0.0.1/",
    "https://worker.example.com\\.internal/",
    "https://worker.example.com/#fragment",
    "https://worker.example.com:/",
    "https://worker.example.com:0/",
    "https://worker.example.com:65536/",
    "https://worker.example.com:99999999/",
    "https://worker.example.com:-1/",
    "https://worker.example.com:+443/",
    "https://worker.example.com:4_43/",
    "https://worker.example.com:٤٤٣/",
    "https://worker.example.com:443:443/",
    "https://worker.example.com:22/",
    "https://worker.example.com:25/",
    "https://worker.example.com:80/",
    "https://worker..example.com/",
    "https://.example.com/",
    "https://worker.example.com./",
    "https://-worker.example.com/",
    "https://worker-.example.com/",
    "https://worker example.com/",
    "https://worker.example.com /",
    " https://worker.example.com/",
    "https://worker.example.com/a b",
    "https://worker.example.com/\r\nX: y",
    "https://worker.example.com/\n",
    "https://worker.example.com/\t",
    "https://worker.example.com/\0",
    "https://wor\nker.example.com/",
    "https://worker.example.com/%",
    "https://worker.example.com/%zz",
    "https://worker.example.com/é",
    "https://worker.example.com/\ud800",
    "https://worker%2eexample.com/",
    "https://%31%30.0.0.1/",
    "https://*.example.com/",
    "https://worker,example.com/",
    "https://worker.example.com,10.0.0.1/",
    f"https://{'a' * 64}.example.com/",
    f"https://{'a.' * 127}example.com/",
    f"https://worker.example.com/{'a' * 2048}",
    # International names: other programs normalise these to names of this machine, or to digits.
    "https://bücher.example.com/",
    "https://ⓛocalhost/",
    "https://１２７.0.0.1/",
    "https://127。0。0。1/",
    "https://worker。example。com/",
    "https://①②⑦.0.0.1/",
    "https://loc\u200balhost/",
    "https://loc\u00adalhost.example.com/",
]

ADDRESSES = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.255",
    "127.0.0.1",
    "127.1.2.3",
    "169.254.169.254",
    "169.254.1.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.170",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "168.63.129.16",
    # IPv4 in the notations of resolvers and browsers.
    "2130706433",
    "017700000001",
    "0x7f000001",
    "0X7F000001",
    "0x7f.0.0.1",
    "0x7f.1",
    "127.1",
    "127.0.1",
    "0177.0.0.1",
    "127.0.0.01",
    "127.0.0.0x1",
    "00000127.0.0.1",
    "010.0.0.1",
    "10.0.1",
    "3232235777",
    "4294967297",
    "127.0.0.1.",
    "1.2.3.4.5",
    "256.1.1.1",
    "1.1.1.1.0x",
    "0x",
    "1",
    # The same for public addresses: what one program reads as public, another one reads as private.
    "8.8.2056",
    "010.8.8.8",
    # IPv6.
    "[::]",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[0000:0000:0000:0000:0000:0000:0000:0001]",
    "[::0.0.0.1]",
    "[::127.0.0.1]",
    "[::7f00:1]",
    "[::8.8.8.8]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::ffff:10.0.0.1]",
    "[::ffff:8.8.8.8]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::a00:1]",
    "[64:ff9b::169.254.169.254]",
    "[64:ff9b::168.63.129.16]",
    "[64:ff9b:1::7f00:1]",
    "[64:ff9b:1::808:808]",
    "[2002:7f00:1::]",
    "[2002:a00:1::1]",
    "[2002:808:808::1]",
    "[2001::1]",
    "[2001:0:7f00:1::]",
    "[2001:0:808:808:0:ffff:80ff:fffe]",
    "[2001:2::1]",
    "[2001:10::1]",
    "[2001:20::1]",
    "[2001:db8::1]",
    "[3fff::1]",
    "[5f00::1]",
    "[100::1]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[fd20:ce::254]",
    "[fe80::1]",
    "[fe80::5efe:127.0.0.1]",
    "[fec0::1]",
    "[ff02::1]",
    "[ff0e::1]",
    "[4000::1]",
    "[fe80::1%25eth0]",
    "[fe80::1%eth0]",
    "[2606:2800::1%25lo]",
    "[::1%25]",
    "[v1.fe80]",
    "[127.0.0.1]",
    "[localhost]",
    "[]",
    "::1",
    "[::1",
    "[[::1]]",
    "[::1].example.com",
    "[2606:2800::1]a",
]

NAMES = [
    "localhost",
    "LOCALHOST",
    "localhost.",
    "a.localhost",
    "localhost.localdomain",
    "ip6-localhost",
    "intranet",
    "metadata",
    "instance-data",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "metadata.google.internal",
    "metadata.GOOGLE.internal",
    "metadata.tencentyun.com",
    "instance-data.ec2.internal",
    "printer.local",
    "nas.lan",
    "router.home",
    "wiki.corp",
    "db.intranet",
    "host.docker.internal",
    "box.home.arpa",
    "1.0.0.127.in-addr.arpa",
    "service.onion",
]


@pytest.mark.parametrize("url", ALLOWED)
def test_public_https_urls_are_allowed(url: str) -> None:
    assert not is_rejected(url)


@pytest.mark.parametrize("url", SYNTAX, ids=ascii)
def test_a_url_that_could_be_read_in_two_ways_is_refused(url: str) -> None:
    assert is_rejected(url)
    with override_settings(DEBUG=True):
        assert is_rejected(url)


@pytest.mark.parametrize("host", ADDRESSES)
@pytest.mark.parametrize("form", ["https://{}/hook", "https://{}:8443/", "http://{}/hook", "http://{}:8080"])
def test_addresses_that_are_not_public_are_refused_in_every_notation(host: str, form: str) -> None:
    assert is_rejected(form.format(host))


@pytest.mark.parametrize("host", NAMES)
@pytest.mark.parametrize("form", ["https://{}/hook", "https://{}:8443/", "http://{}:8080/"])
def test_names_of_private_networks_are_refused(host: str, form: str) -> None:
    assert is_rejected(form.format(host))


@pytest.mark.parametrize(
    ("host", "is_fine"),
    [
        ("localhost", True),
        ("LocalHost", True),
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("[::1]", False),
        ("[::ffff:127.0.0.1]", False),
        ("127.1", False),
        ("0x7f000001", False),
        ("localhost.", False),
        ("a.localhost", False),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("169.254.169.254", False),
        ("worker.example.com", False),
    ],
)
@pytest.mark.parametrize("port", ["", ":80", ":8000"])
def test_plain_http_goes_to_this_machine_in_development_only(host: str, is_fine: bool, port: str) -> None:
    url = f"http://{host}{port}/hook"
    assert is_rejected(url)
    with override_settings(DEBUG=True):
        assert is_rejected(url) is not is_fine


def test_a_target_is_what_a_request_is_made_from() -> None:
    parts = parse_url("HTTPS://Worker.Example.COM:8443?a=/../b")
    assert parts == ("https", "worker.example.com", 8443, "/?a=/../b", Reach.PUBLIC)
    assert parts.authority == "worker.example.com:8443"
    address = parse_url("https://[2606:2800:0:0:0:0:0:1]/a")
    assert (address.host, address.authority, address.port) == ("2606:2800::1", "[2606:2800::1]", 443)


def test_the_list_of_hosts_exempts_names_suffixes_addresses_and_networks() -> None:
    entries = ["hooks", "Receiver.Internal", ".corp.example", "10.1.0.0/16", "192.168.0.7", "fd00::/8", "127.0.0.0/8"]
    with override_streams(WEBHOOK_ALLOWED_HOSTS=entries):
        for host in (
            "hooks",
            "HOOKS",
            "receiver.internal",
            "corp.example",
            "a.b.corp.example",
            "10.1.2.3",
            "192.168.0.7",
            "[fd00::1]",
            "127.0.0.1",
        ):
            assert not is_rejected(f"http://{host}:81/hook"), host
            assert not is_rejected(f"https://{host}/hook"), host
        for host in (
            "hooks.internal",
            "a.receiver.internal",
            "notcorp.example",
            "corp.example.internal",
            "10.2.0.1",
            "192.168.0.8",
            "[fc00::1]",
            "[::ffff:10.1.2.3]",
            "[::ffff:127.0.0.1]",
            "[::1]",
            "0x7f.1",
            "127.1",
        ):
            assert is_rejected(f"http://{host}/hook"), host
            if host not in ("notcorp.example",):
                assert is_rejected(f"https://{host}/hook"), host


LINK_LOCAL = ("169.254.0.0", "169.254.170.2", "169.254.42.42", "169.254.255.255", "fe80::a9fe:a9fe", "febf::1")


@pytest.mark.parametrize("address", sorted({*METADATA_ADDRESSES, *map(ip_address, LINK_LOCAL)}, key=str), ids=str)
def test_nothing_exempts_the_metadata_services_of_clouds_and_link_local_addresses(address: Address) -> None:
    host = f"[{address}]" if address.version == 6 else str(address)
    with override_streams(WEBHOOK_ALLOWED_HOSTS=["0.0.0.0/0", "::/0", str(address)]), override_settings(DEBUG=True):
        assert is_rejected(f"https://{host}/latest/meta-data/")
        assert is_rejected(f"http://{host}/latest/meta-data/")
        if isinstance(address, IPv4Address):
            value = int(address)
            for wrapped in ("::ffff:0:0", "::", "64:ff9b::", "64:ff9b:1::", "fe80::5efe:0:0"):
                assert is_rejected(f"https://[{IPv6Address(int(IPv6Address(wrapped)) | value)}]/"), wrapped
            assert not is_allowed(IPv6Address((0x2002 << 112) | (value << 80)), Reach.ANY)
            assert not is_allowed(IPv6Address((0x20010000 << 96) | (value ^ 0xFFFFFFFF)), Reach.ANY)
        else:
            assert not is_allowed(ip_address(f"{address}%eth0"), Reach.ANY)


@pytest.mark.parametrize(
    "entry",
    ["", "*", "*.example.com", "https://example.com", "example.com:443", "example.com/", "10.0.0.1/8", "10.0.0.0/33",
     "[::1]", "127.1", "0x7f000001", "a..b", ".", "..a", "bücher.example", "a b", "example.com.", "-a", "a\n"],
)  # fmt: skip
def test_an_entry_that_means_nothing_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="no host name"):
        allowed_hosts((entry,))


def test_without_the_packages_a_url_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extra, "is_installed", lambda: False)
    with pytest.raises(SubscriptionError, match=r"Install django-durable-streams\[webhooks\]") as raised:
        check_url("https://worker.example.com/")
    assert raised.value.status == 501


# Addresses, against a model that has the registries of IANA as ranges of numbers.

_NOT_PUBLIC_4 = """
0.0.0.0-0.255.255.255 10.0.0.0-10.255.255.255 100.64.0.0-100.127.255.255 127.0.0.0-127.255.255.255
169.254.0.0-169.254.255.255 172.16.0.0-172.31.255.255 192.0.0.0-192.0.0.255 192.0.2.0-192.0.2.255
192.31.196.0-192.31.196.255 192.52.193.0-192.52.193.255 192.88.99.0-192.88.99.255 192.168.0.0-192.168.255.255
192.175.48.0-192.175.48.255 198.18.0.0-198.19.255.255 198.51.100.0-198.51.100.255 203.0.113.0-203.0.113.255
224.0.0.0-255.255.255.255
"""
RANGES_4 = [
    (int(IPv4Address(first)), int(IPv4Address(last)))
    for first, _, last in (text.partition("-") for text in _NOT_PUBLIC_4.split())
]
EDGES_4 = [edge for pair in RANGES_4 for bound in pair for edge in (bound - 1, bound, bound + 1) if 0 <= edge < 2**32]
ipv4 = st.builds(IPv4Address, st.integers(0, 2**32 - 1) | st.sampled_from(EDGES_4))


def model_4(address: IPv4Address) -> bool:
    return not any(first <= int(address) <= last for first, last in RANGES_4)


@given(ipv4)
def test_an_ipv4_address_is_public_as_the_registry_says(address: IPv4Address) -> None:
    assert is_public(address) is model_4(address)
    assert is_allowed(address) is (model_4(address) and address not in METADATA_ADDRESSES)
    assert is_rejected(f"https://{address}/") is not is_allowed(address)
    if is_public(address):
        assert address.is_global


@given(st.integers(0, 2**128 - 1) | st.integers(0x2 << 124, (0x4 << 124) - 1))
@example(int(IPv6Address("2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff")))
def test_an_ipv6_address_that_python_calls_private_is_never_public(value: int) -> None:
    address = IPv6Address(value)
    if is_public(address):
        assert not address.is_private
        assert not address.is_multicast
        assert not address.is_reserved or address in ip_network("64:ff9b::/96")
        assert not address.is_site_local
        assert address.sixtofour is None
        assert address.teredo is None
        assert address.ipv4_mapped is None
    assert is_rejected(f"https://[{address}]/") is not is_allowed(address)


@given(ipv4)
def test_no_form_of_ipv6_makes_a_private_address_public(address: IPv4Address) -> None:
    value = int(address)
    mapped, compatible = IPv6Address(0xFFFF << 32 | value), IPv6Address(value)
    sixtofour, teredo = IPv6Address(0x2002 << 112 | value << 80 | 1), IPv6Address(0x20010000 << 96 | value ^ 0xFFFFFFFF)
    for translated in (mapped, compatible, sixtofour, teredo, IPv6Address(0x64FF9B0001 << 80 | value)):
        assert not is_allowed(translated)
    assert is_allowed(IPv6Address(0x64FF9B << 96 | value)) is is_allowed(address)


@given(ipv4)
def test_other_notations_of_an_address_are_refused_whatever_the_address_is(address: IPv4Address) -> None:
    a, b, c, d = address.packed
    notations = [
        f"{int(address)}",
        f"{int(address):#x}",
        f"0{int(address):o}",
        f"{a}.{b << 16 | c << 8 | d}",
        f"{a}.{b}.{c << 8 | d}",
        f"{a:#x}.{b}.{c}.{d}",
        f"0{a:o}.{b}.{c}.{d}",
        f"{a}.{b}.{c}.{d:#x}",
        f"{a}.{b}.{c}.0{d}",
        f"{a}.{b}.{c}.{d}.",
    ]
    assert all(is_rejected(f"https://{host}/") for host in notations)


@given(st.text(max_size=40), st.sampled_from(["https://", "https://worker.example.com", "", "https://10.0.0.1"]))
def test_no_text_makes_more_than_a_refusal(text: str, start: str) -> None:
    url = start + text
    if not is_rejected(url):
        assert url.isascii()
        assert url.isprintable()
        assert not set(url) & set("\\@# ")


@given(st.from_regex(r"https://[a-z0-9.:@\[\]%\\/?#_-]{1,30}", fullmatch=True))
def test_another_parser_reads_an_allowed_url_alike(url: str) -> None:
    import httpx

    if not is_rejected(url):
        target, other = parse_url(url), httpx.URL(url)
        assert (target.host, target.port) == (other.host, other.port or 443)


# Names.


async def resolved(addresses: str, url: str = "https://hooks.example/") -> list[str]:
    resolver = names(hooks_example=addresses, localhost=addresses)
    return [str(address) for address in await resolve_checked(parse_url(url), resolver.resolve)]


async def test_a_name_leads_to_its_addresses() -> None:
    assert await resolved("93.184.216.34 2606:2800::1 93.184.216.34") == ["93.184.216.34", "2606:2800::1"]


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "::1", "10.0.0.1", "169.254.169.254", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "0.0.0.0", "::",
     "64:ff9b::7f00:1", "2002:7f00:1::", "fe80::1%lo", "fc00::1", "255.255.255.255", "100.64.0.1"],
)  # fmt: skip
async def test_one_address_that_is_not_public_refuses_the_name(address: str) -> None:
    for answer in (
        address,
        f"93.184.216.34 {address}",
        f"{address} 93.184.216.34",
        f"{'93.184.216.34 ' * 99}{address}",
    ):
        with pytest.raises(SubscriptionError, match="not a public one") as raised:
            await resolved(answer)
        assert address not in raised.value.detail


async def test_a_name_without_an_address_cannot_be_reached() -> None:
    with pytest.raises(OSError, match="no address"):
        await resolved("")
    with pytest.raises(OSError, match="no such name"):
        await resolve_checked(parse_url("https://other.example/"), names().resolve)


async def test_an_exempt_network_counts_for_the_addresses_of_every_name() -> None:
    with override_streams(WEBHOOK_ALLOWED_HOSTS=["10.1.0.0/16"]):
        assert await resolved("10.1.2.3") == ["10.1.2.3"]
        with pytest.raises(SubscriptionError):
            await resolved("10.1.2.3 10.2.0.1")


async def test_an_exempt_name_may_have_local_addresses_but_no_metadata_service() -> None:
    with override_streams(WEBHOOK_ALLOWED_HOSTS=["hooks.example"]):
        assert await resolved("10.0.0.1 ::1") == ["10.0.0.1", "::1"]
        for address in ("169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254"):
            with pytest.raises(SubscriptionError):
                await resolved(address)


async def test_in_development_the_name_of_this_machine_leads_to_this_machine_only() -> None:
    with override_settings(DEBUG=True):
        assert await resolved("127.0.0.1 ::1", "http://localhost:8000/") == ["127.0.0.1", "::1"]
        with pytest.raises(SubscriptionError):
            await resolved("10.0.0.1", "http://localhost:8000/")
        with pytest.raises(SubscriptionError):
            await resolved("127.0.0.1", "https://hooks.example/")


@pytest.fixture(autouse=True)
def _no_development() -> Iterator[None]:
    with override_settings(DEBUG=False):
        yield
