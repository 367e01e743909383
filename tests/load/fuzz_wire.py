"""A raw HTTP/1.1 client connection for the fuzz campaign: sends any bytes, reads answers strictly.

Nothing here helps the server: an answer that is not well-formed by RFC 9112 is a `BadAnswer`, one
that does not come in time is `NoAnswer`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

ANSWER_SECONDS: Final = 5.0
"""from the last byte of a request to its answer, and from `connection: close` to the end"""

BODY_LIMIT: Final = 64 << 20
"""bytes of an answer's body; nothing in the campaign is that large"""

_STATUS: Final = re.compile(rb"HTTP/1\.1 ([1-5]\d\d) [ -~]*")
_HEADER: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([\t -~\x80-\xff]*)")


class BadAnswer(Exception):
    """What came is not a well-formed answer."""


class NoAnswer(Exception):
    """Nothing, or only the beginning of an answer, came in time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`headers` have lower-case names, in their order; `continues` says that `100 Continue` came
    before."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    continues: bool = False

    def header(self, name: str) -> str | None:
        """The header's only value. Raises BadAnswer if it is there more than once."""
        found = [value for key, value in self.headers if key == name]
        if len(found) > 1:
            raise BadAnswer(f"the header {name} is there {len(found)} times")
        return found[0] if found else None

    @property
    def closes(self) -> bool:
        return self.header("connection") == "close"

    @property
    def bare(self) -> bool:
        """The server's own refusal of what is not HTTP."""
        return self.status >= 400 and self.closes and self.header("content-type") == "text/plain"


class Peer:
    """One connection. All calls from one task, but for `send` beside `answer`."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._eof = False

    async def open(self) -> None:
        await self._loop.sock_connect(self._socket, ("127.0.0.1", self._port))

    async def send(self, pieces: Sequence[bytes], pause: float = 0.0) -> None:
        """Sends the pieces with pauses of seconds between. A server that has closed is no error."""
        with contextlib.suppress(ConnectionError):
            for index, piece in enumerate(pieces):
                if index and pause:
                    await asyncio.sleep(pause)
                await self._loop.sock_sendall(self._socket, piece)

    async def answer(
        self, method: str, *, within: float = ANSWER_SECONDS, interim: bool = False
    ) -> Answer | None:
        """The next answer, to a request with `method`; None where the connection ended instead.

        With `interim`, `100 Continue` is an answer too. Raises BadAnswer, NoAnswer.
        """
        try:
            async with asyncio.timeout(within):
                return await self._answer(method, interim=interim)
        except TimeoutError:
            raise NoAnswer(f"no answer within {within:g} s, only {self._buffer[:200]!r}") from None

    async def ended(self, within: float = ANSWER_SECONDS) -> bytes:
        """What came until the server ended its side. Raises NoAnswer."""
        try:
            async with asyncio.timeout(within):
                while not self._eof:
                    await self._more()
        except TimeoutError:
            raise NoAnswer(f"the connection did not end within {within:g} s") from None
        return self._buffer

    def half_close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Closes with RST."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def close(self) -> None:
        self._socket.close()

    async def _answer(self, method: str, *, interim: bool) -> Answer | None:
        continues = False
        while True:
            block = await self._head()
            if block is None:
                return None
            status, headers = _parse_head(block)
            if status != 100:
                break
            if continues:
                raise BadAnswer("100 Continue came twice")
            if interim:
                return Answer(100, headers, b"")
            continues = True
        answer = Answer(status, headers, b"", continues)
        if status < 200:
            raise BadAnswer(f"an interim answer with status {status}")
        body = await self._body(answer, method)
        return Answer(status, headers, body, continues)

    async def _head(self) -> bytes | None:
        while b"\r\n\r\n" not in self._buffer:
            if self._eof:
                if self._buffer:
                    raise BadAnswer(f"the connection ended inside a head: {self._buffer[:200]!r}")
                return None
            await self._more()
        block, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return block

    async def _body(self, answer: Answer, method: str) -> bytes:
        length, coding = answer.header("content-length"), answer.header("transfer-encoding")
        if answer.status in (204, 304):
            if coding is not None or (answer.status == 204 and length is not None):
                raise BadAnswer(f"{answer.status} with content-length or transfer-encoding")
            return b""
        if coding is not None:
            raise BadAnswer(f"an answer with transfer-encoding {coding}: lengths are exact here")
        if length is None or not length.isdigit() or int(length) > BODY_LIMIT:
            raise BadAnswer(f"content-length is {length}")
        if method == "HEAD" and not answer.bare:
            return b""
        size = int(length)
        while len(self._buffer) < size:
            if self._eof:
                raise BadAnswer(f"the body ended after {len(self._buffer)} of {size} bytes")
            await self._more()
        body, self._buffer = self._buffer[:size], self._buffer[size:]
        return body

    async def _more(self) -> None:
        try:
            received = await self._loop.sock_recv(self._socket, 1 << 18)
        except ConnectionError:
            received = b""
        if received:
            self._buffer += received
        else:
            self._eof = True


def _parse_head(block: bytes) -> tuple[int, tuple[tuple[str, str], ...]]:
    first, *lines = block.split(b"\r\n")
    status = _STATUS.fullmatch(first)
    if status is None:
        raise BadAnswer(f"the status line is {first[:200]!r}")
    headers = []
    for line in lines:
        match = _HEADER.fullmatch(line)
        if match is None:
            raise BadAnswer(f"the header line is {line[:200]!r}")
        headers.append((match[1].decode("ascii").lower(), match[2].decode("latin-1")))
    return int(status[1]), tuple(headers)
