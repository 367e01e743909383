"""Bulk transfers of plain TCP connections: a worker thread reads a slice of a body from the socket.

A slice is at most SLICE bytes, and ends early when the peer has nothing more to read: the
connection then waits on the loop, so that slow peers hold neither a thread nor a buffer.
"""

from __future__ import annotations

import asyncio
import collections
import enum
import os
import select
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Final

from serving.body import ClientDisconnected, Sink
from serving.chunked import Framing
from serving.lane import LaneSocket, OpenFile
from serving.sendfile import send_file

BUFFER: Final = 1 << 20
"""bytes gathered before the sink is called"""

SLICE: Final = 16 << 20
"""bytes after which a worker thread lets the next connection have its turn"""

PATIENCE: Final = 0.01
"""seconds that a worker waits for one buffer's bytes, while no other transfer waits for a thread"""

SLOW: Final = 8 << 20
"""bytes a second under which a peer counts as slow: no thread waits for it at all"""

SETTLE: Final = 0.05
"""seconds, at most, in which a slow peer's bytes add up before a thread is sent for them"""

WORTH: Final = 64 << 10
"""bytes worth sending a thread for; smaller than a socket's first buffer, so that none fills up"""

ROOM: Final = 16 << 10
"""a buffer with less room than this is full: smaller reads cost more than a smaller piece"""

LEAST_THREADS: Final = 4


def bulk_threads() -> int:
    """Threads that all bulk transfers share: one for each CPU of this process, or LEAST_THREADS.

    More only hand the interpreter's lock round (8 chunked pushes on two CPUs: 1.93 GB/s with 2
    threads, 1.86 with 4, 1.79 with 8); fewer than four stand still while sinks wait for the disk.
    """
    return max(LEAST_THREADS, available_cpus())


def available_cpus() -> int:
    """CPUs of this process: its affinity, and the quota of its control group (rounded up)."""
    cpus = len(os.sched_getaffinity(0))
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
        return cpus if quota == "max" else max(1, min(cpus, -(-int(quota) // int(period))))
    except (OSError, ValueError):
        return cpus


class Buffer:
    """BUFFER bytes of memory for one slice."""

    __slots__ = ("memory", "view")

    def __init__(self) -> None:
        self.memory = bytearray(BUFFER)
        self.view = memoryview(self.memory)


class BulkPool:
    """The worker threads and buffers that all bulk transfers of a process share."""

    def __init__(self, threads: int) -> None:
        self.executor: Executor = ThreadPoolExecutor(threads, thread_name_prefix="bulk")
        self._free: collections.deque[Buffer] = collections.deque(maxlen=threads)
        self._queued: collections.deque[None] = collections.deque()

    def queued(self) -> None:
        """A slice is about to wait for a thread."""
        self._queued.append(None)

    def begun(self) -> None:
        """It has got one."""
        self._queued.pop()

    @property
    def contended(self) -> bool:
        """Somebody waits for a thread."""
        return bool(self._queued)

    def take(self) -> Buffer:
        try:
            return self._free.pop()
        except IndexError:
            return Buffer()

    def give(self, buffer: Buffer) -> None:
        self._free.append(buffer)

    def close(self) -> None:
        """Waits for running slices, then ends the threads."""
        self.executor.shutdown()


class _Outcome(enum.Enum):
    DONE = enum.auto()
    BLOCKED = enum.auto()
    USED_UP = enum.auto()


class _Intake:
    """The state of one body between its slices."""

    def __init__(
        self,
        wire: LaneSocket,
        pool: BulkPool,
        framing: Framing,
        received: list[bytes],
        sink: Sink,
    ) -> None:
        self._wire = wire
        self._pool = pool
        self._framing = framing
        self._received = received
        self._sink = sink
        self._patience = 0.0
        self.settle = 0.0
        """seconds to wait on the loop before the next slice; 0 for a quick peer"""

    def slice(self) -> _Outcome:
        """One turn of a worker thread."""
        self._pool.begun()
        if self._wire.stopped is not None:
            raise self._wire.stopped
        buffer = self._pool.take()
        try:
            return self._fill(buffer)
        finally:
            self._pool.give(buffer)

    def _fill(self, buffer: Buffer) -> _Outcome:
        wire, framing, view = self._wire, self._framing, buffer.view
        fill = self._first(buffer) if self._received else 0
        quota = SLICE
        self._patience = PATIENCE
        while not framing.ended:
            if BUFFER - fill < ROOM:
                fill = self._give(view, fill)
                if quota <= 0:
                    return _Outcome.USED_UP
            if wire.stopped is not None:
                raise wire.stopped
            size = self._receive(view, fill)
            if size is None:
                self._give(view, fill)
                return _Outcome.BLOCKED
            if not size:
                self._give(view, fill)
                raise ClientDisconnected("the client left before its body was complete")
            quota -= size
            wire.moved += size
            fill = framing.squeeze(buffer.memory, view, fill, fill + size)
        self._give(view, fill)
        return _Outcome.DONE

    def _receive(self, view: memoryview, fill: int) -> int | None:
        """Bytes read to `view[fill:]`; 0 at the end of the stream, None if there are none now."""
        room = view[fill : fill + self._framing.wanted(BUFFER - fill)]
        while True:
            try:
                return self._wire.socket.recv_into(room)
            except BlockingIOError:
                if not self._wait():
                    return None
            except OSError:
                return 0

    def _wait(self) -> bool:
        """Waits a moment for a quick peer; False if it has nothing or others need the thread."""
        if self.settle or self._patience <= 0 or self._pool.contended:
            return False
        begun = time.monotonic()
        poll = select.poll()
        poll.register(self._wire.socket.fileno(), select.POLLIN)
        ready = bool(poll.poll(max(1, int(self._patience * 1000))))
        self._patience -= time.monotonic() - begun
        return ready

    def _first(self, buffer: Buffer) -> int:
        """Copies what the loop had received into the buffer: the sink gets big pieces only."""
        received, self._received = self._received, []
        return refill(buffer, received, self._sink)

    def _give(self, view: memoryview, fill: int) -> int:
        if fill:
            self._sink(view[:fill])
            self._patience = PATIENCE
        return 0


def refill(buffer: Buffer, pieces: list[bytes], sink: Sink) -> int:
    """Copies `pieces` into `buffer`, which `sink` gets each time it is full; returns its fill."""
    view, fill = buffer.view, 0
    for piece in pieces:
        position, size = 0, len(piece)
        while position < size:
            step = min(size - position, BUFFER - fill)
            view[fill : fill + step] = piece[position : position + step] if step < size else piece
            position += step
            fill += step
            if fill == BUFFER:
                sink(view)
                fill = 0
    return fill


def _settle(moved: int, seconds: float) -> float:
    """How long to let bytes add up for a peer that sent `moved` of them in `seconds`."""
    if moved >= SLOW * seconds:
        return 0.0
    return min(SETTLE, seconds * WORTH / moved) if moved else SETTLE


class SocketLane(LaneSocket):
    """The lane of a plain TCP connection."""

    __slots__ = ("_pool",)

    def __init__(self, loop: asyncio.AbstractEventLoop, descriptor: int, pool: BulkPool) -> None:
        super().__init__(loop, descriptor)
        self._pool = pool

    async def receive(self, framing: Framing, received: list[bytes], sink: Sink) -> None:
        intake = _Intake(self, self._pool, framing, received, sink)
        since = self._loop.time()
        while True:
            if intake.settle:
                await asyncio.sleep(intake.settle)
            before = self.moved
            outcome = await self._slice(intake)
            if outcome is _Outcome.DONE:
                return
            now = self._loop.time()
            intake.settle = 0.0
            if outcome is _Outcome.BLOCKED:
                intake.settle = _settle(self.moved - before, now - since)
                await self.readable()
            since = now

    async def _slice(self, intake: _Intake) -> _Outcome:
        self._pool.queued()
        try:
            return await self.work(self._pool.executor, intake.slice)
        except ClientDisconnected as error:
            # To the worker a stopped socket looks like a closed one: the reason says more.
            raise self.stopped or error from None

    async def send_file(self, head: bytes, file: OpenFile, *, offset: int, count: int) -> None:
        await send_file(self, self._pool.executor, head, file, offset=offset, count=count)
