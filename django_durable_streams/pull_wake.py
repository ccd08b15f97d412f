"""What a project imports to work for a pull-wake subscription. See docs/subscriptions.md."""

from .subscriptions.pull_wake.base import ClaimedStream, WakeMessage
from .subscriptions.pull_wake.subscription import PullOptions, PullSubscription
from .subscriptions.pull_wake.synchronous import SyncWake
from .subscriptions.pull_wake.wake import Wake

__all__ = ["ClaimedStream", "PullOptions", "PullSubscription", "SyncWake", "Wake", "WakeMessage"]
