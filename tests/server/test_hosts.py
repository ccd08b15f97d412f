"""URLs that are made without Django."""

from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams.server.hosts import absolute_url

PLAIN = "abcXYZ019_.-~/"


@given(st.one_of(st.text(st.characters(exclude_categories=["Cs"])), st.text(PLAIN), st.text(PLAIN + "%é +")))
def test_the_path_of_a_url_is_quoted(path: str) -> None:
    assert absolute_url("http", path, {b"host": b"example.org"}) == f"http://example.org{quote(path)}".encode("ascii")
