"""A reverse proxy that sends EVERY request to the next backend, also on one client connection.

No balancer does this on purpose; it is the hardest case for a registry whose uploads span several
requests. It understands just enough of HTTP/1.1 (RFC 9112) to know where a message ends, and passes
all bytes on unchanged.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

HEAD_LIMIT = 256 * 1024
PIECE = 64 * 1024


class ProtocolError(Exception):
    """A peer sent something that is not HTTP/1.1 as this proxy knows it."""


@dataclass(frozen=True, slots=True)
class Head:
    """The first line and the fields of a message, and the bytes they came as."""

    raw: bytes
    words: tuple[str, ...]
    fields: dict[str, str]

    @property
    def keeps_alive(self) -> bool:
        wishes = self.fields.get("connection", "").lower()
        return "close" not in wishes and "HTTP/1.0" not in self.words

    @property
    def is_chunked(self) -> bool:
        return self.fields.get("transfer-encoding", "").lower() == "chunked"

    @property
    def length(self) -> int | None:
        value = self.fields.get("content-length")
        return None if value is None else int(value)


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """The next head, or None where the peer closed before one began.

    Raises:
        ProtocolError: cut in the middle, or not a head.
    """
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            return None
        raise ProtocolError(f"a head was cut after {len(error.partial)} bytes") from error
    first, *lines = raw[:-4].decode("latin-1").split("\r\n")
    words = tuple(first.split(" ", 2))
    if len(words) < 2:
        raise ProtocolError(f"not a first line: {first!r}")
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields[name.strip().lower()] = value.strip()
    return Head(raw, words, fields)


async def copy_exactly(
    length: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    while length:
        piece = await reader.read(min(length, PIECE))
        if not piece:
            raise ProtocolError(f"a body was cut {length} bytes before its end")
        writer.write(piece)
        await writer.drain()
        length -= len(piece)


async def copy_chunks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        line = await reader.readuntil(b"\r\n")
        writer.write(line)
        size = int(line.split(b";", 1)[0], 16)
        if size == 0:
            break
        await copy_exactly(size + 2, reader, writer)
    while line != b"\r\n":
        line = await reader.readuntil(b"\r\n")
        writer.write(line)
    await writer.drain()


async def copy_body(head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copies the body that a head announces; without an announcement there is none."""
    if head.is_chunked:
        await copy_chunks(reader, writer)
    elif head.length:
        await copy_exactly(head.length, reader, writer)


class SwitchingProxy:
    """Hands out the backends in turn, one request each."""

    def __init__(self, backends: Sequence[tuple[str, int]]) -> None:
        self._turn = itertools.cycle(backends)
        self.requests = 0

    async def serve_client(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while (request := await read_head(reader)) is not None:
                self.requests += 1
                if not await self._exchange(request, reader, writer):
                    break
        except (ProtocolError, OSError, asyncio.IncompleteReadError) as error:
            if not isinstance(error, ConnectionError):
                print(f"proxy: {error}")
        finally:
            writer.close()

    async def _exchange(
        self, request: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """One request to one backend and its answer back. True where the client may go on."""
        host, port = next(self._turn)
        upstream_reader, upstream = await asyncio.open_connection(host, port, limit=HEAD_LIMIT)
        upstream.write(request.raw)
        sending = asyncio.create_task(copy_body(request, reader, upstream))
        try:
            answer_goes_on = await self._answer(request.words[0], upstream_reader, writer)
            # A refusal may come before the body was read: its rest would be taken for a request.
            return answer_goes_on and request.keeps_alive and sending.done()
        finally:
            sending.cancel()
            with suppress(asyncio.CancelledError, OSError, ProtocolError):
                await sending
            upstream.close()

    async def _answer(
        self, method: str, upstream: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Copies interim answers and the final one. True where its end was announced."""
        while True:
            head = await read_head(upstream)
            if head is None:
                raise ProtocolError("the backend closed without an answer")
            writer.write(head.raw)
            status = int(head.words[1])
            if status >= 200:
                break
            await writer.drain()
        if method == "HEAD" or status in (204, 304):
            await writer.drain()
            return head.keeps_alive
        if head.is_chunked or head.length is not None:
            await copy_body(head, upstream, writer)
            await writer.drain()
            return head.keeps_alive
        while piece := await upstream.read(PIECE):
            writer.write(piece)
            await writer.drain()
        return False


@asynccontextmanager
async def running_proxy(
    backends: Sequence[tuple[str, int]],
) -> AsyncIterator[tuple[SwitchingProxy, int]]:
    """The proxy on a free loopback port; gives it and the port."""
    proxy = SwitchingProxy(backends)
    server = await asyncio.start_server(proxy.serve_client, "127.0.0.1", 0, limit=HEAD_LIMIT)
    async with server:
        port: int = server.sockets[0].getsockname()[1]
        yield proxy, port
