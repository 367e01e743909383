"""What the connections of one process share: limits, a coarse clock, threads, rendered heads."""

from __future__ import annotations

import http
from dataclasses import dataclass
from typing import Final

from uvicorn.server import ServerState

from serving.bulk import BulkPool

Headers = list[tuple[bytes, bytes]]


def _status_lines() -> dict[int, bytes]:
    lines = {status: b"HTTP/1.1 %d \r\n" % status for status in range(100, 600)}
    for known in http.HTTPStatus:
        lines[known.value] = b"HTTP/1.1 %d %b\r\n" % (known.value, known.phrase.encode("ascii"))
    return lines


_STATUS_LINES: Final = _status_lines()


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits in seconds; none is on a whole request: a slow transfer may last for days."""

    head: float = 30.0
    """from the first byte of a request's head (or from the connection's start) to its last"""

    keep_alive: float = 75.0
    """an idle connection between two requests"""

    idle: float = 120.0
    """no byte moved while the body is waited for, or while the peer does not read the answer"""

    linger: float = 2.0
    """no byte moved after the answer to a request whose body was not wanted"""

    @property
    def tick(self) -> float:
        """How often connections are looked at."""
        return min(1.0, min(self.head, self.keep_alive, self.idle, self.linger) / 4)


class Service:
    """One per process; every connection holds it."""

    __slots__ = ("_defaults", "_prefixes", "bulk", "limits", "now", "state", "stopping")

    def __init__(self, state: ServerState, limits: ConnectionLimits, bulk: BulkPool) -> None:
        self.state = state
        self.limits = limits
        self.bulk = bulk
        self.now = 0.0
        """seconds of the loop's clock, as of the last tick: good enough for limits, and free"""
        self.stopping = False
        """answers carry `connection: close`"""
        self._defaults: Headers = state.default_headers
        self._prefixes: dict[int, bytes] = {}

    def prefix(self, status: int) -> bytes:
        """The status line and the server's own headers (`date`)."""
        defaults = self.state.default_headers
        if defaults is not self._defaults:  # made anew each second
            self._defaults = defaults
            self._prefixes.clear()
        prefix = self._prefixes.get(status)
        if prefix is None:
            prefix = _STATUS_LINES[status] + b"".join(b"%b: %b\r\n" % header for header in defaults)
            self._prefixes[status] = prefix
        return prefix
