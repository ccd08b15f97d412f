"""A process whose children start answers, one each, and may be killed: python -m tests.ai.jobs

For each line of JSON with `path` and `answer`, it makes a child. It prints a line with the path and the child's process
id when the child's answer has begun. A child costs nothing but a fork, so a test can kill many.
"""

import json
import os
import signal
import sys
import time
from typing import Any

import django

LIFE_SECONDS = 60


def start(request: dict[str, Any]) -> None:
    """Be a child: start an answer, and live until the parent of the parent ends this process."""
    from django_durable_streams.contrib.ai.answers import Answer, start_answer_sync

    signal.alarm(LIFE_SECONDS)
    start_answer_sync(request["path"], Answer("tests.ai.sources.scripted", **request["answer"]))
    os.write(1, json.dumps({"path": request["path"], "pid": os.getpid()}).encode() + b"\n")
    time.sleep(LIFE_SECONDS)


if __name__ == "__main__":
    django.setup()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        if os.fork() == 0:
            start(json.loads(line))
            os._exit(0)
