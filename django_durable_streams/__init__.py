"""Durable Streams for Django: append-only HTTP streams that clients resume from an opaque offset."""

__version__ = "0.1.0"
