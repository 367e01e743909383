"""Bodies of requests as the application reads them (the seam is serving/body.py).

WireBody is fed by its connection and lets it read only as far as somebody wants the bytes.
EmptyBody stands for no body. ReceivedBody reads ASGI messages, for any other server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, Protocol

from serving.body import (
    EXTENSION,
    BodyInvalid,
    BodyTooLarge,
    ClientDisconnected,
    RequestBody,
    Sink,
)
from serving.bulk import BUFFER, Buffer, BulkPool, refill
from serving.chunked import Framing
from serving.lane import Lane, left
from serving.service import Service

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

UNASKED_WINDOW: Final = 64 << 10
"""bytes kept before the application has asked for the body"""

WINDOW: Final = 1 << 20
"""bytes kept while it reads; what one read of the transport brings comes on top"""

BATCH: Final = 256 << 10
"""bytes worth a thread's attention: a sink that has nothing to do gets a batch of this size"""


class Flow(Protocol):
    """What a body asks of its connection."""

    loop: asyncio.AbstractEventLoop
    service: Service

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def send_continue(self) -> None:
        """Tells the client to go on and send the body (RFC 9110, 10.1.1)."""
        ...

    def open_lane(self) -> Lane | None:
        """The way of this body past the loop, or None where the transport has none."""
        ...

    def close_lane(self, lane: Lane) -> None: ...

    def pumped(self) -> None:
        """The loop reads again, after a lane has."""
        ...


class EmptyBody:
    """No body: never fails, is shared by all requests without one."""

    length: int | None = 0
    received = 0
    ended = True
    waiting = False
    failed = False
    unasked = False
    left: int | None = 0

    async def gather(self, limit: int) -> bytes:
        return b""

    async def read(self, limit: int) -> bytes:
        return b""

    async def parts(self) -> list[bytes]:
        return []

    async def pump(self, sink: Sink) -> int:
        return 0

    def fail(self, error: Exception) -> None:
        """There is nothing left to fail."""


class WireBody:
    """The body of the request that its connection is reading."""

    __slots__ = (
        "_error",
        "_flow",
        "_framing",
        "_pieces",
        "_waiter",
        "_window",
        "length",
        "received",
        "size",
        "unasked",
    )

    def __init__(
        self, flow: Flow, framing: Framing, *, length: int | None, expects_continue: bool
    ) -> None:
        self._flow = flow
        self._framing = framing
        self._pieces: list[bytes] = []
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._window = UNASKED_WINDOW
        self.length = length
        self.received = 0
        self.size = 0
        """bytes that wait here"""
        self.unasked = expects_continue
        """the client waits to be asked for the body"""

    # The connection's side.

    @property
    def ended(self) -> bool:
        """The last byte has come."""
        return self._framing.ended

    @property
    def failed(self) -> bool:
        return self._error is not None

    @property
    def waiting(self) -> bool:
        """The application waits for bytes to come."""
        return self._waiter is not None

    @property
    def rest(self) -> bytes:
        """What came after the end."""
        return self._framing.rest

    @property
    def left(self) -> int | None:
        """Bytes still to come, where that is known."""
        return self._framing.left

    @property
    def full(self) -> bool:
        return self.size > self._window

    def feed(self, received: bytes) -> bytes:
        """Takes bytes from the connection; returns those after the end of the body."""
        try:
            pieces = self._framing.feed(received)
        except BodyInvalid as error:
            self.fail(error)
            return b""
        self.unasked = False
        self._pieces += pieces
        size = sum(map(len, pieces))
        self.size += size
        self._wake()
        return self._framing.rest

    def forget(self) -> None:
        """Drops what waits here: nobody wants the body any more."""
        self._pieces.clear()
        self.size = 0

    def fail(self, error: Exception) -> None:
        """No more bytes will come."""
        if not self.ended and self._error is None:
            self._error = error
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # The application's side.

    async def gather(self, limit: int) -> bytes | None:
        if self.length is not None and self.length - self.received > limit:
            return None
        self._ask(max(WINDOW, limit + 1))
        while not self.ended and self.size <= limit:
            await self._more()
        return None if self.size > limit else b"".join(self._take())

    async def read(self, limit: int) -> bytes:
        body = await self.gather(limit)
        if body is None:
            raise BodyTooLarge(f"the body is over {limit} bytes")
        return body

    async def parts(self) -> list[bytes]:
        self._ask(WINDOW)
        return await self._next()

    async def pump(self, sink: Sink) -> int:
        before = self.received
        lane = None if self.ended else self._flow.open_lane()
        if lane is None:
            self._ask(BATCH)
            await pump_parts(self._next, sink, self._flow.service.bulk)
        else:
            await self._pump_lane(lane, sink)
        return self.received - before

    async def _next(self) -> list[bytes]:
        while not self._pieces and not self.ended:
            await self._more()
        return self._take()

    async def _pump_lane(self, lane: Lane, sink: Sink) -> None:
        def counting(piece: memoryview) -> None:
            size = len(piece)
            sink(piece)
            self.received += size

        received, self._pieces, self.size = self._pieces, [], 0
        try:
            self._flow.pause()
            self._ask(WINDOW)
            if self._error is not None:
                raise self._error
            await lane.receive(self._framing, received, counting)
        except (ClientDisconnected, BodyInvalid) as error:
            self.fail(error)
            raise
        except asyncio.CancelledError:
            self.fail(ClientDisconnected("the request was cancelled"))
            raise
        finally:
            self._flow.close_lane(lane)
            self._flow.pumped()

    def _ask(self, window: int) -> None:
        self._window = window
        if self.unasked:
            self.unasked = False
            self._flow.send_continue()

    async def _more(self) -> None:
        if self._error is not None:
            raise self._error
        if self._waiter is not None:
            raise RuntimeError("the body is read by two at once")
        self._flow.resume()
        self._waiter = self._flow.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _take(self) -> list[bytes]:
        pieces = self._pieces
        self._pieces = []
        self.received += self.size
        self.size = 0
        return pieces


class ReceivedBody:
    """The body of a request behind any ASGI server."""

    def __init__(self, receive: Receive, length: int | None) -> None:
        self._receive = receive
        self._pieces: list[bytes] = []
        self._size = 0
        self._ended = False
        self.length = length
        self.received = 0

    async def gather(self, limit: int) -> bytes | None:
        if self.length is not None and self.length - self.received > limit:
            return None
        while not self._ended and self._size <= limit:
            await self._more()
        return None if self._size > limit else b"".join(self._take())

    async def read(self, limit: int) -> bytes:
        body = await self.gather(limit)
        if body is None:
            raise BodyTooLarge(f"the body is over {limit} bytes")
        return body

    async def parts(self) -> list[bytes]:
        while not self._pieces and not self._ended:
            await self._more()
        return self._take()

    async def pump(self, sink: Sink) -> int:
        before = self.received
        await pump_parts(self.parts, sink, None)
        return self.received - before

    async def _more(self) -> None:
        message = await self._receive()
        if message["type"] != "http.request":
            raise ClientDisconnected(
                "the client closed the connection before its body was complete"
            )
        piece = message.get("body", b"")
        if piece:
            self._pieces.append(piece)
            self._size += len(piece)
        self._ended = not message.get("more_body", False)

    def _take(self) -> list[bytes]:
        pieces = self._pieces
        self._pieces = []
        self.received += self._size
        self._size = 0
        return pieces


def body_of(scope: Scope, receive: Receive) -> RequestBody:
    """The body of the request: the connection's, or over `receive` where the server has none."""
    body: RequestBody | None = scope.get("extensions", {}).get(EXTENSION)
    if body is not None:
        return body
    headers: dict[bytes, bytes] = dict(scope["headers"])
    if b"transfer-encoding" in headers:
        return ReceivedBody(receive, None)
    return ReceivedBody(receive, int(headers.get(b"content-length", b"0")))


async def pump_parts(
    next_parts: Callable[[], Awaitable[list[bytes]]], sink: Sink, pool: BulkPool | None
) -> None:
    """Gives all parts to `sink` in a worker thread, gathering one batch while it has another.

    What came before a disconnect is given too, before that is raised. No thread is held while the
    peer is waited for.
    """
    loop = asyncio.get_running_loop()
    worker: asyncio.Future[None] | None = None
    ended: bool = False
    failure: Exception | None = None
    try:
        while not ended:
            batch: list[bytes] = []
            size = 0
            while size < (BATCH if worker is None or worker.done() else BUFFER):
                try:
                    parts = await next_parts()
                except (ClientDisconnected, BodyInvalid) as error:
                    failure, ended = error, True
                    break
                if not parts:
                    ended = True
                    break
                batch += parts
                size += sum(map(len, parts))
                if worker is not None and worker.done():
                    worker.result()
            if worker is not None:
                await asyncio.shield(worker)
            if batch:
                worker = loop.run_in_executor(
                    pool.executor if pool else None, _give, batch, sink, pool
                )
        if worker is not None:
            await asyncio.shield(worker)
    finally:
        if worker is not None:
            await left(worker)
    if failure is not None:
        raise failure


def _give(batch: list[bytes], sink: Sink, pool: BulkPool | None) -> None:
    buffer = pool.take() if pool else Buffer()
    try:
        fill = refill(buffer, batch, sink)
        if fill:
            sink(buffer.view[:fill])
    finally:
        if pool:
            pool.give(buffer)
