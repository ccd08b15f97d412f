"""A worker in a process of its own: `python -m tests.subscriptions.pull_wake.worker_job NAME [URL]`.

It prints a line for each message before the wake is acknowledged. Without a URL it uses the database of its settings.
"""

import asyncio
import sys

import django


async def work(name: str, url: str) -> None:
    """Handle messages until the process is killed."""
    django.setup()
    from django_durable_streams.pull_wake import PullSubscription

    print("begun", flush=True)
    async for wake in PullSubscription(name, url=url).aconsume(poll_interval=0.5):
        async for message in wake.messages():
            print(f"{wake.generation} {message.value}", flush=True)
            await asyncio.sleep(0.005)


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""))
