"""HTTP/1.1 on one connection (RFC 9112), as the protocol class of uvicorn's server object.

Only heads go through the parser. Bodies are cut off before it and reach the application without
copies, or by a lane (serving/lane.py) straight from the socket; files go out by sendfile. Requests
are answered one after the other. Anything else than HTTP/1.x is refused; upgrades are not offered.
Time limits are looked at by one ticker for all connections.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from serving.body import EXTENSION, GONE, BodyTimeout, ClientDisconnected
from serving.bulk import SocketLane
from serving.chunked import Counted, Dechunker
from serving.exchange import JOINED, UNREAD_LIMIT, ZEROCOPY, Exchange
from serving.lane import Lane
from serving.request_body import EmptyBody, WireBody
from serving.request_head import HeadInvalid, HeadParser
from serving.service import Service
from serving.standstill import AT_REST, movement

_ASGI: Final = {"version": "3.0", "spec_version": "2.4"}
_EMPTY: Final = EmptyBody()


class HTTPProtocol(asyncio.Protocol):
    """One connection. `service` is given by a partial, the other arguments by uvicorn."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        service: Service,
    ) -> None:
        self.loop = _loop or asyncio.get_running_loop()
        self.service = service
        self.crowded = False
        self._application = config.loaded_app
        self._state = server_state
        self._app_state = app_state
        self._parser = HeadParser()
        self._exchange: Exchange | None = None
        self._unwanted: WireBody | None = None
        """the body that is read and dropped"""
        self._dropped = 0
        self._take: Callable[[bytes], None] = self._take_head
        """what is done with received bytes"""
        self._held = b""
        """the beginning of the next request, while this one is answered"""
        self._paused = False
        self._ended = False
        """the client sends no more"""
        self._closing = False
        """no further request is taken"""
        self._served = False
        self._seen = service.now
        """when the last byte moved, or the state changed"""
        self._since = service.now
        """when the head began"""
        self._lane: Lane | None = None
        self._moved = AT_REST
        self._writable: asyncio.Future[None] | None = None
        self._extensions: dict[str, Any] = {}

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._state.connections.add(self)  # type: ignore[arg-type]  # uvicorn names its own classes
        self._plain = transport.get_extra_info("sslcontext") is None
        if self._plain:
            self._extensions[ZEROCOPY] = {}
        peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        self._scope = {
            "type": "http",
            "asgi": _ASGI,
            "scheme": "http" if self._plain else "https",
            "client": peer[:2] if isinstance(peer, tuple) else None,
            "server": own[:2] if isinstance(own, tuple) else None,
            "root_path": "",
        }

    def connection_lost(self, error: Exception | None) -> None:
        self._state.connections.discard(self)
        self._closing = True
        if self._lane is not None:
            self._lane.stop(ClientDisconnected("the connection was lost"))
        if self._exchange is not None:
            self._exchange.lose()
        self._now_writable()

    def data_received(self, received: bytes) -> None:
        self._seen = self.service.now
        self._take(received)

    def eof_received(self) -> bool:
        self._ended = True
        exchange = self._exchange
        if exchange is None:
            return False
        exchange.body.fail(
            ClientDisconnected("the client closed the connection before its body was complete")
        )
        return self._plain  # half-closed: the answer is still sent, where the transport can do it

    def pause_writing(self) -> None:
        self.crowded = True

    def resume_writing(self) -> None:
        self.crowded = False
        self._now_writable()
        if self._exchange is None and self._held and not self._closing:
            self._next()

    def _now_writable(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # Requests.

    def _take_head(self, received: bytes) -> None:
        parser = self._parser
        if self._served and not parser.begun:
            self._since = self.service.now
        try:
            end = parser.feed(received)
            if end:
                self._begin(parser, received[end:] if end < len(received) else b"")
        except HeadInvalid as error:
            self._refuse(error)

    def _begin(self, parser: HeadParser, rest: bytes) -> None:
        path, raw_path, query = parser.target()
        body = self._body(parser)
        extensions = self._extensions.copy()
        extensions[EXTENSION] = body
        scope = {
            **self._scope,
            "http_version": parser.version,
            "method": parser.method,
            "path": path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": parser.headers,
            "state": self._app_state.copy(),
            "extensions": extensions,
        }
        keep_alive = parser.keep_alive and not self._closing
        exchange = self._exchange = Exchange(self, scope, body, keep_alive)
        extensions[GONE] = exchange.gone
        if parser.plain:
            parser.reset()
        else:
            parser.renew()
        self._take = self._hold if body is _EMPTY else self._take_body
        if rest:
            self._take(rest)
        exchange.start(self._application)

    def _body(self, parser: HeadParser) -> WireBody | EmptyBody:
        expects = parser.expects_continue
        if parser.length:
            framing = Counted(parser.length)
            return WireBody(self, framing, length=parser.length, expects_continue=expects)
        if parser.chunked:
            return WireBody(self, Dechunker(), length=None, expects_continue=expects)
        return _EMPTY

    def _take_body(self, received: bytes) -> None:
        exchange = self._exchange
        assert exchange is not None and isinstance(exchange.body, WireBody)
        body = exchange.body
        rest = body.feed(received)
        if body.ended:
            self._take = self._hold
            if rest:
                self._hold(rest)
        elif body.failed or body.full:
            self.pause()

    def _hold(self, received: bytes) -> None:
        """Keeps what belongs to the next request; one read of the transport at most."""
        self._held += received
        self.pause()

    def completed(self, exchange: Exchange) -> None:
        self._exchange = None
        self._state.total_requests += 1
        self._served = True
        self._seen = self.service.now
        body = exchange.body
        if not body.ended:
            assert isinstance(body, WireBody)
            self._drop(body, keep_alive=exchange.keep_alive)
        elif exchange.keep_alive:
            self._next()
        elif self._held:  # closing with unread bytes would reset the connection
            self._linger()
        else:
            self.close()

    def _next(self) -> None:
        """Goes on with the next request, where its beginning is here and the answers are read."""
        self._take = self._take_head
        if self._held:
            if self.crowded:
                self._take = self._hold
                return
            received, self._held = self._held, b""
            self._take_head(received)
            if self._exchange is not None or self._closing:
                return
        if self._ended:
            self.close()
        elif self._paused:
            self.resume()

    # Ends.

    def _drop(self, body: WireBody, *, keep_alive: bool) -> None:
        """Reads over an unwanted body, so that the client can read the answer (RFC 9112, 9.6)."""
        if self._lane is not None:
            self.abort()
            return
        self._unwanted = body
        self._dropped = body.size
        body.forget()
        if keep_alive:
            self._take = self._take_unwanted
            self.resume()
        else:
            self._linger()

    def _take_unwanted(self, received: bytes) -> None:
        body = self._unwanted
        assert body is not None
        self._dropped += len(received)
        self._held = body.feed(received)
        body.forget()
        if body.ended:
            self._unwanted = None
            self._next()
        elif self._dropped > UNREAD_LIMIT or body.failed:
            self._linger()

    def _linger(self) -> None:
        """Answers no more; the client has some time to read what was sent."""
        self._closing = True
        self._take = self._ignore
        self._held = b""
        if self._ended:
            self.close()
            return
        if self._plain and not self._transport.is_closing():
            self._transport.write_eof()
        self.resume()

    def _ignore(self, received: bytes) -> None:
        self._dropped += len(received)
        if self._dropped > UNREAD_LIMIT:
            self.pause()

    def _refuse(self, error: HeadInvalid) -> None:
        text = error.message.encode("ascii", "replace") + b"\n"
        self.write(
            [
                self.service.prefix(error.status),
                b"content-type: text/plain\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
                % len(text),
                text,
            ]
        )
        self._linger()

    def close(self) -> None:
        """Closes when all is sent."""
        self._closing = True
        self._seen = self.service.now
        self._transport.close()

    def abort(self) -> None:
        self._closing = True
        self._transport.abort()

    def shutdown(self) -> None:
        """The process stops: closes an idle connection now, a busy one after its answer.

        One that was just made gets a moment, and an answer to its first request.
        """
        self._closing = True
        if self._exchange is not None:
            self._exchange.keep_alive = False
        elif self._served or self._parser.begun:
            self.close()

    def look(self, now: float) -> None:
        """Ends the connection if it has reached one of its time limits. Called by the ticker."""
        limits, exchange = self.service.limits, self._exchange
        moved = movement(self._transport, self._lane)
        if moved != self._moved:
            self._moved = moved
            self._seen = now
        quiet = now - self._seen
        if moved.is_up_to_the_peer:
            if quiet > limits.idle:
                self._time_out()
        elif exchange is not None:
            if exchange.body.waiting and quiet > limits.idle:
                exchange.body.fail(BodyTimeout(f"no byte of the body came for {limits.idle:g} s"))
        elif self._closing or self._unwanted is not None:
            if quiet > limits.linger:
                self.close()
        elif self._parser.begun or not self._served:
            if now - self._since > limits.head:
                self.close()
        elif quiet > limits.keep_alive:
            self.close()

    def _time_out(self) -> None:
        if self._lane is not None:
            self._lane.stop(BodyTimeout(f"no byte moved for {self.service.limits.idle:g} s"))
        else:
            self.abort()

    # What bodies and exchanges ask for.

    def pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        self._seen = self.service.now
        if self._paused and not self._held:
            self._paused = False
            if not self._transport.is_closing() and not self._ended:
                self._transport.resume_reading()

    def send_continue(self) -> None:
        self._seen = self.service.now
        if not self._transport.is_closing():
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def write(self, pieces: list[bytes]) -> None:
        transport = self._transport
        if len(pieces) == 1:
            transport.write(pieces[0])
        elif len(pieces[-1]) <= JOINED:
            transport.write(b"".join(pieces))
        else:
            transport.writelines(pieces)

    async def room(self) -> None:
        self._seen = self.service.now
        while self.crowded and not self._transport.is_closing():
            self._writable = self.loop.create_future()
            try:
                await self._writable
            finally:
                self._writable = None

    async def drained(self) -> None:
        if self._transport.get_write_buffer_size() and not self._transport.is_closing():
            self._transport.set_write_buffer_limits(high=0)
            try:
                await self.room()
            finally:
                if not self._transport.is_closing():
                    self._transport.set_write_buffer_limits()

    def open_lane(self) -> Lane | None:
        if not self._plain or self._transport.is_closing():
            return None
        descriptor = self._transport.get_extra_info("socket").fileno()
        self._lane = SocketLane(self.loop, descriptor, self.service.bulk)
        self._seen = self.service.now
        return self._lane

    def close_lane(self, lane: Lane) -> None:
        self._lane = None
        self._seen = self.service.now
        lane.close()

    def pumped(self) -> None:
        exchange = self._exchange
        if exchange is not None and isinstance(exchange.body, WireBody) and exchange.body.ended:
            self._take = self._hold
            if exchange.body.rest:
                self._hold(exchange.body.rest)
            else:
                self.resume()
