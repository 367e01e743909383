"""Whether bytes move on a connection, as its time limits see it."""

from __future__ import annotations

import asyncio
import fcntl
import sys
import termios
from dataclasses import dataclass

from serving.lane import Lane


@dataclass(frozen=True, slots=True)
class Movement:
    """Two that are equal mean that nothing moved between them."""

    by_lane: int
    lane_waits: bool
    unsent: int
    """bytes that the transport holds for the peer"""

    unacknowledged: int
    """those that the kernel holds: a slow reader moves them long before there is room for more"""

    @property
    def is_up_to_the_peer(self) -> bool:
        return self.unsent > 0 or self.lane_waits


AT_REST = Movement(0, False, 0, 0)


def movement(transport: asyncio.Transport, lane: Lane | None) -> Movement:
    unsent = transport.get_write_buffer_size()
    if lane is None:
        return Movement(0, False, unsent, _unacknowledged(transport)) if unsent else AT_REST
    waits = lane.waiting
    return Movement(lane.moved, waits, unsent, _unacknowledged(transport) if waits else 0)


def _unacknowledged(transport: asyncio.Transport) -> int:
    try:
        held = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
    except OSError:
        return 0
    return int.from_bytes(held, sys.byteorder)
