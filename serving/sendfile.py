"""Files go out by sendfile(2), on the loop: no thread is held by a slow reader, no byte passes
through Python.

The loop must not wait for a disk either: pages that are not in memory are read in a worker thread
first.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import socket
from concurrent.futures import Executor
from typing import Final

from serving.body import ClientDisconnected
from serving.lane import LaneSocket, OpenFile

PIECE: Final = 1 << 20
"""bytes of one sendfile call, after which other connections have their turn"""

_FILE_ERRORS: Final = frozenset({errno.EIO, errno.ESTALE})


async def send_file(
    wire: LaneSocket, executor: Executor, head: bytes, file: OpenFile, *, offset: int, count: int
) -> None:
    """Sends `head` and `count` bytes of `file` from `offset`.

    Raises ClientDisconnected, EOFError where the file has fewer bytes, OSError where it cannot be
    read: the connection must then be aborted.
    """
    try:
        await _send_head(wire, head)
        await _send_pieces(wire, executor, file.fileno(), offset, offset + count)
    except OSError as error:
        if error.errno in _FILE_ERRORS:
            raise
        raise wire.stopped or ClientDisconnected("the client closed the connection") from error


async def _send_head(wire: LaneSocket, head: bytes) -> None:
    while head:
        try:
            sent = wire.socket.send(head, socket.MSG_MORE)
        except BlockingIOError:
            await wire.writable()
        else:
            head = head[sent:]
            wire.moved += sent


async def _send_pieces(
    wire: LaneSocket, executor: Executor, file: int, offset: int, end: int
) -> None:
    descriptor = wire.socket.fileno()
    warm = offset
    while offset < end:
        if wire.stopped is not None:
            raise wire.stopped
        if offset >= warm:
            warm = min(offset + PIECE, end)
            if not _in_memory(file, warm - 1):
                await wire.work(executor, functools.partial(os.pread, file, PIECE, offset))
        try:
            sent = os.sendfile(descriptor, file, offset, warm - offset)
        except BlockingIOError:
            await wire.writable()
            continue
        if not sent:
            raise EOFError("the file is shorter than was promised")
        offset += sent
        wire.moved += sent
        if offset < warm:  # the socket is full
            await wire.writable()
        else:
            await asyncio.sleep(0)


def _in_memory(file: int, position: int) -> bool:
    """Whether the byte at `position` can be had without waiting; False too where the file system
    cannot tell.
    """
    try:
        os.preadv(file, [bytearray(1)], position, os.RWF_NOWAIT)
    except OSError:
        return False
    return True
