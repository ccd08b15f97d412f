"""Dialects: the event model in the words of each client. Pure: they know no table, no stream and no request."""
