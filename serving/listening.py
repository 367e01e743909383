"""Addresses and the sockets that listen on them. They are made once, before any worker process."""

from __future__ import annotations

import errno
import socket
from typing import Final

BACKLOG: Final = 2048

_NO_IPV6: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT})
_TRIES: Final = 16


def listen(address: str) -> list[socket.socket]:
    """Listening sockets for `host:port`, `[IPv6]:port`, or `:port` (both families).

    A machine without IPv6 gets IPv4 alone. Port 0 is a free one, the same for both families.
    Raises ValueError for what is not an address, OSError where it cannot be had.
    """
    host, port = split(address)
    if host:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, where = found[0]
        return [_bound(family, str(where[0]), port)]
    for _ in range(_TRIES - 1):
        try:
            return _both(port)
        except OSError as error:
            if port or error.errno != errno.EADDRINUSE:
                raise
    return _both(port)  # the free port of one family was taken in the other, again and again


def split(address: str) -> tuple[str, int]:
    """Host (without brackets, "" for all) and port. Raises ValueError."""
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{address!r}: an IPv6 address is written in brackets, as in [::1]:5000")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{address!r} is not host:port, [IPv6]:port or :port")
    return host, int(port)


def _both(port: int) -> list[socket.socket]:
    first = _bound(socket.AF_INET, "0.0.0.0", port)
    try:
        return [first, _bound(socket.AF_INET6, "::", first.getsockname()[1])]
    except OSError as error:
        if error.errno in _NO_IPV6:
            return [first]
        first.close()
        raise


def _bound(family: int, host: str, port: int) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((host, port))
        made.listen(BACKLOG)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made
