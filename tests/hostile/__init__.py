"""Clients that mean harm, or have no manners, over real sockets, against each entry point on each server.

Every test asserts the same of the server: it answers no 5xx but 503, its memory stays bounded, others are served in the
meantime, and nothing is left over.
"""
