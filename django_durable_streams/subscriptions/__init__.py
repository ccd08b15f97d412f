"""Subscriptions: durable cursors over many streams that wake workers (specification, sections 6 and 7)."""
