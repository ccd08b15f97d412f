"""Benchmarks: this server, the protocol's reference server and a bare ASGI app, measured side by side.

Run `python -m benchmarks --help` from the root of the repository. Linux only: it reads /proc and uses epoll.
"""
