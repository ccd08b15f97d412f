"""The consequences of failed steps after a commit, for the log."""

NO_WAKE_UP = "Readers of other processes learn of the commit by polling, within POLL_INTERVAL. Check WAKEUP."
NO_FEED = "Readers of this process learn of the commit by polling, within POLL_INTERVAL."
NO_SIGNALS = "Receivers of signals were not called."
NO_COUNT = "Chunks are compacted later."
NO_DELIVERY = "Subscriptions learn of the commit by polling."
