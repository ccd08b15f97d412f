"""Workers of pull-wake subscriptions in Python: they claim, hand over messages, acknowledge and extend leases.

The subscription may be one of this project, which is reached without HTTP, or one of another server of the protocol.
The two differ in one object (`base.SubscriptionServer`). All else is the same code.
"""
