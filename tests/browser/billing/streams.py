"""A consumer that fails while a message asks for it."""

from django_durable_streams.consumers import Batch, consumer


@consumer("orders/**", name="billing", start="beginning", on_failure="stop", max_attempts=1)
def bill(batch: Batch) -> None:
    """Refuse orders without a price."""
    for order in batch.messages:
        if order["total"] is None:
            raise ValueError(f"The order {order['id']} has no total.")


@bill.reset
def forget(streams: list[str]) -> None:
    """Nothing is kept."""


@consumer("orders/**", name="statistics", start="beginning", max_attempts=2)
def count(batch: Batch) -> None:
    """Park what has no price."""
    assert all(order["total"] is not None for order in batch.messages), "A total is missing."
