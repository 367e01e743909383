"""One request and its answer, as an ASGI application sees them (ASGI, HTTP connection scope).

The head of the answer goes out together with the first message of its body, in one write. An
application that has headers but no body yet sends an empty body message with `more_body`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, Protocol

from serving.body import BodyInvalid, BodyTimeout, BodyTooLarge, ClientDisconnected
from serving.lane import Lane, OpenFile
from serving.request_body import EmptyBody, WireBody
from serving.service import Headers, Service

Message = MutableMapping[str, Any]
Application = Callable[
    [
        MutableMapping[str, Any],
        Callable[[], Awaitable[Message]],
        Callable[[Message], Awaitable[None]],
    ],
    Awaitable[None],
]

ZEROCOPY: Final = "http.response.zerocopysend"

JOINED: Final = 64 << 10
"""bytes of a first body message that are copied behind the head; a bigger one is passed on as is"""

UNREAD_LIMIT: Final = 1 << 20
"""bytes of an unwanted body that are read and dropped after the answer"""

_OWN: Final = frozenset({b"content-length", b"connection", b"transfer-encoding"})
_NO_BODY: Final = frozenset({204, 304})

logger = logging.getLogger(__name__)


class AnswerLost(ClientDisconnected, OSError):
    """The client is gone: what `send` was given went nowhere."""


class Wire(Protocol):
    """What an exchange asks of its connection."""

    loop: asyncio.AbstractEventLoop
    service: Service

    crowded: bool
    """the peer does not read as fast as the application writes"""

    def write(self, pieces: list[bytes]) -> None: ...

    async def room(self) -> None:
        """Waits until the connection is not crowded, or gone."""
        ...

    async def drained(self) -> None:
        """Waits until the transport holds no more bytes, or the connection is gone."""
        ...

    def open_lane(self) -> Lane | None: ...

    def close_lane(self, lane: Lane) -> None: ...

    def abort(self) -> None: ...

    def completed(self, exchange: Exchange) -> None:
        """The answer is complete."""
        ...


class Exchange:
    __slots__ = (
        "_bodiless",
        "_chunked",
        "_delivered",
        "_end",
        "_head_sent",
        "_headers",
        "_left",
        "_started",
        "_status",
        "_task",
        "_wire",
        "body",
        "complete",
        "keep_alive",
        "lost",
        "scope",
    )

    def __init__(
        self,
        wire: Wire,
        scope: MutableMapping[str, Any],
        body: EmptyBody | WireBody,
        keep_alive: bool,
    ) -> None:
        self._wire = wire
        self.scope = scope
        self.body = body
        self.keep_alive = keep_alive
        """the connection can be used for another request afterwards"""
        self.complete = False
        """the whole answer was handed to the transport"""
        self.lost = False
        """the connection is gone"""
        self._delivered = False
        self._started = False
        self._head_sent = False
        self._bodiless = False
        self._chunked = False
        self._left = -1
        """bytes of the body still to be sent; -1 without Content-Length"""
        self._status = 0
        self._headers: Headers = []
        self._end: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, application: Application) -> None:
        self._task = self._wire.loop.create_task(self._run(application))
        self._wire.service.state.tasks.add(self._task)

    def lose(self) -> None:
        """The connection is gone."""
        self.lost = True
        self.body.fail(
            ClientDisconnected("the client closed the connection before its body was complete")
        )
        self._wake()

    def _wake(self) -> None:
        if self._end is not None and not self._end.done():
            self._end.set_result(None)

    async def _run(self, application: Application) -> None:
        try:
            await application(self.scope, self._receive, self._send)
        except asyncio.CancelledError:
            self._wire.abort()
            raise
        except Exception as error:
            self._failed(error)
        else:
            if not self.complete and not self.lost:
                logger.error("the application ended without a complete answer")
                self._refuse(500, b"Internal Server Error")
        finally:
            if self._task is not None:
                self._wire.service.state.tasks.discard(self._task)

    def _failed(self, error: Exception) -> None:
        if isinstance(error, BodyTimeout):
            self._refuse(408, b"Request Timeout")
        elif isinstance(error, BodyInvalid):
            self._refuse(400, b"Bad Request")
        elif isinstance(error, BodyTooLarge):
            self._refuse(413, b"Content Too Large")
        elif isinstance(error, ClientDisconnected):
            self._wire.abort()
        else:
            logger.error("the application failed", exc_info=error)
            self._refuse(500, b"Internal Server Error")

    def _refuse(self, status: int, text: bytes) -> None:
        """A bare answer where none was begun; else the end of the connection has to do."""
        if self.lost or self.complete:
            return
        if self._head_sent:
            self._wire.abort()
            return
        self.keep_alive = False
        self._left, self._chunked = -1, False
        self._status = status
        self._headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(text))]
        self._put(text, more=False)

    # What the application calls.

    async def gone(self) -> None:
        """Waits until the connection is lost."""
        if not self.lost:
            self._end = self._wire.loop.create_future()
            await self._end

    async def _receive(self) -> Message:
        if not self._delivered:
            try:
                parts = await self.body.parts()
            except ClientDisconnected:
                return {"type": "http.disconnect"}
            self._delivered = self.body.ended
            return {
                "type": "http.request",
                "body": b"".join(parts),
                "more_body": not self._delivered,
            }
        if not self.lost and not self.complete:
            self._end = self._wire.loop.create_future()
            await self._end
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if self.lost:
            raise AnswerLost("the client closed the connection")
        if kind == "http.response.start" and not self._started:
            self._started = True
            self._status = message["status"]
            self._headers = message.get("headers", [])
        elif self.complete or not self._started:
            raise RuntimeError(f"{kind} is out of order")
        elif kind == "http.response.body":
            if self._wire.crowded:
                await self._wire.room()
                if self.lost:
                    raise AnswerLost("the client closed the connection")
            self._put(message.get("body", b""), more=message.get("more_body", False))
        elif kind == ZEROCOPY:
            await self._send_file(
                message["file"],
                message["offset"],
                message["count"],
                more=message.get("more_body", False),
            )
        else:
            raise RuntimeError(f"{kind} is not known here")

    def _put(self, body: bytes, *, more: bool) -> None:
        """Writes a piece of the body, behind the head where that is still here."""
        pieces = [] if self._head_sent else self._head(None if more else len(body))
        if not self._bodiless:
            size = len(body)
            if not self._chunked:
                if self._left >= 0:
                    self._count(size)
                if size:
                    pieces.append(body)
            else:
                if size:
                    pieces += (b"%x\r\n" % size, body, b"\r\n")
                if not more:
                    pieces.append(b"0\r\n\r\n")
        if not more and self._left > 0:
            raise RuntimeError("the body is shorter than its Content-Length")
        self._head_sent = True
        if pieces:
            self._wire.write(pieces)
        if not more:
            self._completed()

    def _count(self, size: int) -> None:
        if size > self._left:
            raise RuntimeError("the body is longer than its Content-Length")
        self._left -= size

    def _completed(self) -> None:
        self.complete = True
        self._wake()
        self._wire.completed(self)

    async def _send_file(self, file: OpenFile, offset: int, count: int, *, more: bool) -> None:
        head = b"" if self._head_sent else b"".join(self._head(None))
        if self._bodiless or not count:
            self._head_sent = True
            if head:
                self._wire.write([head])
        else:
            if self._left < 0:
                raise RuntimeError("a file is sent only in a body with Content-Length")
            self._count(count)
            await self._wire.drained()
            lane = None if self.lost else self._wire.open_lane()
            if lane is None:
                raise AnswerLost("the client closed the connection")
            self._head_sent = True
            try:
                await lane.send_file(head, file, offset=offset, count=count)
            except ClientDisconnected as error:
                self._wire.abort()
                raise AnswerLost(str(error)) from error
            except BaseException:
                self._wire.abort()
                raise
            finally:
                self._wire.close_lane(lane)
        if not more:
            if self._left > 0:
                raise RuntimeError("the body is shorter than its Content-Length")
            self._completed()

    def _head(self, size: int | None) -> list[bytes]:
        """The head; `size` is that of the body where all of it is here, else None."""
        service, headers, status = self._wire.service, self._headers, self._status
        self._bodiless = status in _NO_BODY or self.scope["method"] == "HEAD"
        if not self.body.ended or service.stopping:
            self._reconsider(service)
        for name, value in headers:
            if name in _OWN:
                if name == b"content-length" and status != 204:
                    self._left = int(value)
                else:
                    headers = self._without_own(headers)
                    break
        lines = list(map(b": ".join, headers))
        if self._left < 0 and not self._bodiless:
            if size is not None:
                lines.append(b"content-length: %d" % size)
                self._left = size
            elif self.scope["http_version"] == "1.1":
                lines.append(b"transfer-encoding: chunked")
                self._chunked = True
            else:  # the end of the connection is the end of the body (RFC 9112, 6.3)
                self.keep_alive = False
        if not self.keep_alive:
            lines.append(b"connection: close")
        if self._bodiless:
            self._left = 0
        block = b"\r\n".join(lines)
        breaks = len(lines) - 1 if lines else 0
        if block.count(b"\n") != breaks or block.count(b"\r") != breaks or b"\0" in block:
            raise RuntimeError("a header of the answer has a line break in it")
        return [service.prefix(status), block, b"\r\n\r\n" if lines else b"\r\n"]

    def _reconsider(self, service: Service) -> None:
        """Decides whether the connection can live on though the body was not read to its end."""
        body = self.body
        if service.stopping or body.failed or body.unasked or (body.left or 0) > UNREAD_LIMIT:
            self.keep_alive = False

    def _without_own(self, headers: Headers) -> Headers:
        """Takes out what the connection itself decides: framing, and whether it closes."""
        kept = []
        for name, value in headers:
            if name == b"content-length" and self._status != 204:
                self._left = int(value)
            elif name in _OWN:
                if name == b"connection" and b"close" in value.lower():
                    self.keep_alive = False
                continue
            kept.append((name, value))
        return kept
