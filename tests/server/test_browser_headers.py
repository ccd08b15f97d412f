"""What keeps browsers from running what streams hold, on every answer with data, at every entry point."""

import pytest

from django_durable_streams.protocol.browsers import disposition
from tests.asgi_client import AsgiClient
from tests.overriding import override_streams
from tests.server.entry_points import ENTRY_POINTS, EntryPoint

SANDBOX = "sandbox; default-src 'none'; style-src 'unsafe-inline'"

TYPES = {
    "text/html": None,
    "TEXT/HTML; charset=utf-8": None,
    "text/html;": None,
    "application/xhtml+xml": None,
    "image/svg+xml": None,
    "text/xml": None,
    "application/xml": None,
    "application/rss+xml": None,
    "text/xsl": None,
    "text/javascript": None,
    "text/css": None,
    "text/plain": None,
    "application/json": None,
    "application/vnd.api+json": None,
    "image/png": None,
    "audio/ogg": None,
    "video/mp4": None,
    "application/pdf": "attachment",
    "Application/PDF ; x=text/plain": "attachment",
    "multipart/x-mixed-replace; boundary=x": "attachment",
    "multipart/related": "attachment",
    "message/rfc822": "attachment",
    "application/x-shockwave-flash": "attachment",
    "application/javascript": "attachment",
    "application/octet-stream": "attachment",
    "application/x-something-new": "attachment",
    "text/pdf": "attachment",
    "Text/X-PDF; charset=utf-8": "attachment",
    "image/pdf": "attachment",
}


@pytest.mark.parametrize("kind", TYPES)
def test_what_browsers_give_to_a_viewer_of_its_own_is_saved(kind: str) -> None:
    assert [value.decode() for _, value in disposition(kind)] == ([TYPES[kind]] if TYPES[kind] else [])


@pytest.mark.parametrize("entry", ENTRY_POINTS)
@pytest.mark.parametrize("kind", ["text/html", "image/svg+xml", "application/xhtml+xml", "application/pdf"])
async def test_every_answer_to_a_read_is_a_sandbox(entry: str, kind: str, engines: None) -> None:
    point = EntryPoint(entry)
    body = {"content-type": kind}
    assert (await point.request("PUT", "a", body, b"<script>alert(1)</script>")).status == 201
    tag = (await point.request("GET", "a")).headers["etag"]
    targets = ["a", "a?offset=-1", "a?offset=now", "a?offset=-1&live=long-poll", "a?offset=x", "nowhere", "a//b"]
    for target in targets:
        reply = await point.request("GET", target)
        assert reply.headers["content-security-policy"] == SANDBOX
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cross-origin-resource-policy"] == "same-origin"
        if reply.status == 200 and reply.body:
            assert reply.headers.get("content-disposition") == TYPES[kind]
    for method, headers in (("HEAD", {}), ("GET", {"if-none-match": tag})):
        reply = await point.request(method, "a", headers)
        assert reply.headers["content-security-policy"] == SANDBOX
    for method in ("POST", "PUT", "DELETE"):
        assert (await point.request(method, "a", body, b"x")).headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("entry", ENTRY_POINTS)
@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("text/plain;, application/pdf", 400),
        ('text/plain; x="y", multipart/x-mixed-replace; boundary=x', 400),
        ('text/plain; x="y, application/pdf', 400),
        ('text/plain; x="y, application/pdf"', 201),
    ],
)
async def test_no_stream_has_a_second_type_for_browsers(entry: str, kind: str, status: int, engines: None) -> None:
    point = EntryPoint(entry)
    assert (await point.request("PUT", "a", {"content-type": kind}, b"x")).status == status
    assert (await point.request("GET", "a")).status == (200 if status == 201 else 404)


@pytest.mark.parametrize("entry", ENTRY_POINTS)
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        *[
            ({"sec-fetch-dest": kind}, 403)
            for kind in (
                "script",
                "worker",
                "sharedworker",
                "serviceworker",
                "audioworklet",
                "paintworklet",
                "xslt",
                "style",
            )
        ],
        ({"service-worker": "script"}, 403),
        *[
            ({"sec-fetch-dest": kind}, 200)
            for kind in ("empty", "document", "iframe", "image", "video", "audio", "font", "track", "manifest")
        ],
        ({}, 200),
    ],
)
async def test_no_page_runs_a_stream_as_code(entry: str, headers: dict[str, str], status: int, engines: None) -> None:
    point = EntryPoint(entry)
    await point.request("PUT", "a", {"content-type": "text/javascript"}, b"alert(1)")
    assert (await point.request("GET", "a", headers)).status == status


async def test_event_streams_are_sandboxes_too(client: AsgiClient) -> None:
    await client.create("a", b"<script>alert(1)</script>", "text/html")
    async with client.follow("a") as exchange:
        await exchange.head()
        assert (b"content-security-policy", SANDBOX.encode()) in [
            (name.lower(), value) for name, value in exchange.header_list
        ]


@pytest.mark.parametrize(
    ("permission", "origins", "policy"),
    [
        ("AllowAll", [], "same-origin"),
        ("AllowAll", ["https://app.example"], "cross-origin"),
        ("AllowAll", ["*"], "cross-origin"),
        ("SignedURLs", ["https://app.example"], "same-origin"),
        ("ModelPermissions", ["*"], "same-origin"),
    ],
)
async def test_other_sites_embed_only_what_everybody_may_read(
    client: AsgiClient, permission: str, origins: list[str], policy: str
) -> None:
    with override_streams(PERMISSION_CLASSES=f"django_durable_streams.permissions.{permission}", CORS_ORIGINS=origins):
        assert (await client.get("a")).headers["cross-origin-resource-policy"] == policy
