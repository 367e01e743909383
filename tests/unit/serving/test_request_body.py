"""Bodies as the application reads them: from our connections, and behind any other ASGI server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import MutableMapping
from typing import Any

import pytest

from serving.body import BodyTooLarge, ClientDisconnected, RequestBody
from serving.bulk import BUFFER
from serving.request_body import EmptyBody, body_of
from tests.unit.serving.loopback import (
    Receive,
    Scope,
    Send,
    answer,
    body,
    chunked,
    serving,
)


class Messages:
    """`receive` of a server that has these pieces, and then what `end` says."""

    def __init__(self, pieces: list[bytes], *, end: str = "whole") -> None:
        self._pieces = pieces
        self._end = end
        self.asked = 0

    async def __call__(self) -> MutableMapping[str, Any]:
        self.asked += 1
        await asyncio.sleep(0)
        if self._pieces:
            more = len(self._pieces) > 1 or self._end != "whole"
            return {"type": "http.request", "body": self._pieces.pop(0), "more_body": more}
        return {"type": "http.disconnect"}


def fallback(messages: Messages, *, length: int | None) -> RequestBody:
    name, value = (
        (b"transfer-encoding", b"chunked")
        if length is None
        else (b"content-length", b"%d" % length)
    )
    return body_of({"headers": [(name, value)]}, messages)


def test_the_connections_own_body_comes_first() -> None:
    own = EmptyBody()
    scope = {"extensions": {"serving.request.body": own}, "headers": []}
    assert body_of(scope, Messages([])) is own


async def test_an_empty_body_is_empty_in_every_way() -> None:
    empty = EmptyBody()
    assert await empty.gather(0) == await empty.read(0) == b""
    assert await empty.parts() == []
    assert await empty.pump(lambda piece: None) == 0
    assert empty.length == empty.received == 0


async def test_gather_gives_a_small_body_and_keeps_a_big_one() -> None:
    small = fallback(Messages([b"ab", b"c"]), length=None)
    assert await small.gather(3) == b"abc"
    assert small.received == 3
    big = fallback(Messages([b"ab", b"c", b"d"]), length=None)
    assert await big.gather(2) is None
    assert big.received == 0
    assert await big.parts() == [b"ab", b"c"]
    assert await big.parts() == [b"d"]
    assert await big.parts() == []
    assert big.received == 4


async def test_a_body_known_to_be_too_big_is_not_even_asked_for() -> None:
    messages = Messages([b"abc"])
    known = fallback(messages, length=3)
    assert await known.gather(2) is None
    with pytest.raises(BodyTooLarge):
        await known.read(2)
    assert messages.asked == 0
    assert await known.read(3) == b"abc"


async def test_a_request_without_framing_has_no_body() -> None:
    assert body_of({"headers": []}, Messages([b""])).length == 0


async def test_pump_gives_all_pieces_in_order_and_big_ones() -> None:
    content = bytes(range(256)) * 10_000
    pieces = [content[start : start + 7000] for start in range(0, len(content), 7000)]
    got: list[bytes] = []
    pumped = fallback(Messages(pieces), length=None)
    assert await pumped.gather(10) is None
    assert await pumped.pump(lambda piece: got.append(bytes(piece))) == len(content)
    assert b"".join(got) == content
    assert max(map(len, got)) <= BUFFER
    assert len(got) < 15


async def test_pump_gives_what_came_before_the_client_left() -> None:
    got: list[bytes] = []
    pumped = fallback(Messages([b"ab", b"cd"], end="lost"), length=9)
    with pytest.raises(ClientDisconnected):
        await pumped.pump(lambda piece: got.append(bytes(piece)))
    assert b"".join(got) == b"abcd"


async def test_pump_raises_what_the_sink_raises() -> None:
    def full(_piece: memoryview) -> None:
        raise OSError(28, "no space")

    with pytest.raises(OSError, match="no space"):
        await fallback(Messages([b"x" * 300_000] * 20), length=None).pump(full)


async def test_a_cancelled_pump_waits_for_its_sink() -> None:
    left: list[float] = []

    def slow(_piece: memoryview) -> None:
        time.sleep(0.2)
        left.append(time.monotonic())

    pumping = asyncio.ensure_future(
        fallback(Messages([b"x" * 300_000] * 20), length=None).pump(slow)
    )
    await asyncio.sleep(0.05)
    pumping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pumping
    assert left
    assert left[-1] <= time.monotonic()
    calls = len(left)
    await asyncio.sleep(0.3)
    assert len(left) == calls


@pytest.mark.parametrize("framing", ["counted", "chunked"])
def test_a_connections_body_reads_the_same(framing: str) -> None:
    content = bytes(range(256)) * 4000
    seen: dict[str, Any] = {}

    async def read(scope: Scope, _receive: Receive, send: Send) -> None:
        request = body(scope)
        seen["length"] = request.length
        seen["gathered"] = await request.gather(100_000)
        pieces = []
        while parts := await request.parts():
            pieces += parts
        seen["again"] = await request.parts()
        seen["received"] = request.received
        await answer(send, b"".join(pieces))

    with serving({"/read": read}) as server, server.connect() as client:
        if framing == "counted":
            head = b"PUT /read HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(content)
            client.send(head + content)
        else:
            head = b"PUT /read HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
            client.send(head + chunked(content, 10_000))
        assert client.response().content == content
    assert seen == {
        "length": len(content) if framing == "counted" else None,
        "gathered": None,
        "again": [],
        "received": len(content),
    }


def test_a_reader_that_does_not_keep_up_stops_the_sender() -> None:
    waiting: list[int] = []

    async def slow(scope: Scope, _receive: Receive, send: Send) -> None:
        request = body(scope)
        await request.parts()
        await asyncio.sleep(0.5)
        waiting.append(sum(map(len, await request.parts())))
        while await request.parts():
            pass
        await answer(send, b"")

    with serving({"/slow": slow}) as server, server.connect() as client:
        client.send(b"PUT /slow HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (30 << 20))
        client.send(bytes(30 << 20))
        assert client.response().status == 200
    assert waiting[0] <= 2 << 20
