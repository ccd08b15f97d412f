"""Run in a project: write by every way, and tell what another connection then finds in the database."""

import json
import sys

import django
from django.db import connections, router, transaction


def main(entry_points: list[str]) -> dict[str, object]:
    """Write to a stream of each entry point, and return the statuses and what is there for all to see."""
    from django_durable_streams.models import Stream
    from django_durable_streams.testing import stop_engines
    from tests.projects.callers import ENTRY_POINTS

    claim = {"producer_id": "p", "producer_epoch": "0", "producer_seq": "0"}
    statuses = {}
    for name in entry_points:
        call = ENTRY_POINTS[name]()
        statuses[name] = [
            call("PUT", name, b"first", content_type="text/plain").status,
            call("POST", name, b" second", content_type="text/plain").status,
            call("POST", name, b" third", content_type="text/plain", **claim).status,
            call("PUT", f"{name}-fork", stream_forked_from=f"/v1/stream/{name}").status,
            call("POST", f"{name}-fork", b" own", content_type="text/plain", stream_closed="true").status,
            call("PUT", f"{name}-gone", content_type="text/plain").status,
            call("DELETE", f"{name}-gone").status,
        ]
    stop_engines()
    alias = router.db_for_write(Stream)
    stream = Stream.objects.create(path="python", content_type="text/plain", data="in Python")
    stream.append(" and on")
    if not connections[alias].get_autocommit():
        transaction.commit(using=alias)
    connections.close_all()
    # Whatever was not committed is gone with its connection.
    there = {stream.path: "".join(map(str, stream.read())) for stream in Stream.objects.order_by("path") if stream.path}
    return {"statuses": statuses, "there": there}


if __name__ == "__main__":
    django.setup()
    print(json.dumps(main(sys.argv[1:])))
