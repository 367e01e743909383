"""A request body from memory: what a connection would give, piece by piece, in a worker thread
where asked for."""

from __future__ import annotations

import asyncio

from serving.body import BodyTooLarge, ClientDisconnected, Sink


class MemoryBody:
    """Implements RequestBody. With `cut`, the client goes away after the pieces."""

    def __init__(self, *pieces: bytes, chunked: bool = False, cut: bool = False) -> None:
        self._pieces = list(pieces)
        self._cut = cut
        self.received = 0
        self.length = None if chunked else sum(map(len, pieces)) + (1 if cut else 0)

    async def gather(self, limit: int) -> bytes | None:
        whole = b"".join(self._pieces)
        if len(whole) > limit:
            return None
        self._take()
        return whole

    async def read(self, limit: int) -> bytes:
        whole = await self.gather(limit)
        if whole is None:
            raise BodyTooLarge
        return whole

    async def parts(self) -> list[bytes]:
        return self._take()

    async def pump(self, sink: Sink) -> int:
        pieces = self._pieces
        self._pieces = []
        total = 0
        for piece in pieces:
            await asyncio.to_thread(sink, memoryview(bytearray(piece)))
            total += len(piece)
        self.received += total
        if self._cut:
            raise ClientDisconnected
        return total

    def _take(self) -> list[bytes]:
        pieces = [piece for piece in self._pieces if piece]
        self._pieces = []
        self.received += sum(map(len, pieces))
        if self._cut and not pieces:
            raise ClientDisconnected
        return pieces
