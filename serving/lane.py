"""Lanes: how the bytes of a big body pass by the event loop.

A lane is opened for one transfer and closed with it. While it is open nobody else reads (or writes)
the connection. One owner at a time: when the peer is gone, a limit was reached or the process ends,
`stop` only wakes whoever waits or works; the descriptor is closed by the owner, after it has left.
A transport that cannot be read past (TLS) has its own lanes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Protocol, TypeVar

from serving.body import ClientDisconnected, Sink
from serving.chunked import Framing

T = TypeVar("T")


class OpenFile(Protocol):
    """A file that its opener closes."""

    def fileno(self) -> int: ...


class Lane(Protocol):
    moved: int
    """bytes moved so far; the time limits look at its changes"""

    waiting: bool
    """it waits for the peer"""

    async def receive(self, framing: Framing, received: list[bytes], sink: Sink) -> None:
        """Gives `sink`, in a worker thread, what was `received` already and the rest of the body.

        Raises ClientDisconnected (the sink has got what came), BodyInvalid, and what `sink` raises.
        """
        ...

    async def send_file(self, head: bytes, file: OpenFile, *, offset: int, count: int) -> None:
        """Sends `head`, then `count` bytes of `file`.

        Raises ClientDisconnected, EOFError where the file is shorter, OSError where it is broken.
        """
        ...

    def stop(self, reason: ClientDisconnected) -> None:
        """Ends the transfer with `reason`. Closes nothing."""
        ...

    def close(self) -> None: ...


class LaneSocket:
    """The socket of a plain TCP connection, by a descriptor that its transport does not close."""

    __slots__ = ("_loop", "_waiter", "moved", "socket", "stopped", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop, descriptor: int) -> None:
        """`descriptor` is the transport's, which stays the transport's."""
        self._loop = loop
        # Family and type only spare the constructor its questions to the kernel.
        self.socket = socket.socket(
            socket.AF_INET, socket.SOCK_STREAM, 0, fileno=os.dup(descriptor)
        )
        self._waiter: asyncio.Future[None] | None = None
        self.moved = 0
        self.waiting = False
        self.stopped: ClientDisconnected | None = None

    async def readable(self) -> None:
        """Waits on the loop until there is something to read. Raises the reason of `stop`."""
        await self._ready(self._loop.add_reader, self._loop.remove_reader)

    async def writable(self) -> None:
        """As `readable`, for writing."""
        await self._ready(self._loop.add_writer, self._loop.remove_writer)

    async def _ready(
        self, add: Callable[[int, Callable[[], None]], object], remove: Callable[[int], object]
    ) -> None:
        if self.stopped is not None:
            raise self.stopped
        self._waiter = self._loop.create_future()
        descriptor = self.socket.fileno()
        add(descriptor, self._wake)
        self.waiting = True
        try:
            await self._waiter
        finally:
            self.waiting = False
            self._waiter = None
            remove(descriptor)
        if self.stopped is not None:
            raise self.stopped

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def work(self, executor: Executor, job: Callable[[], T]) -> T:
        """Runs `job` in a worker thread, the owner of the socket meanwhile.

        Even where it is cancelled, this ends only when the worker has left.
        """
        future = self._loop.run_in_executor(executor, job)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            self.stop(ClientDisconnected("the request was cancelled"))
            await left(future)
            raise

    def stop(self, reason: ClientDisconnected) -> None:
        if self.stopped is None:
            self.stopped = reason
        if self._waiter is not None:
            self._wake()
        else:  # a worker may be waiting in the kernel
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.socket.close()


async def left(worker: asyncio.Future[Any]) -> None:
    """Waits until `worker` has ended, whatever it raises and however often this is cancelled."""
    while not worker.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([worker])
    if not worker.cancelled():
        worker.exception()  # seen
