"""Where the body of a request ends: by Content-Length, or by its chunks (RFC 9112, 6.2 and 7.1).

A framing sees every byte after the head once, either on the loop (`feed`) or in a worker's buffer
(`squeeze`), never in two threads at once. It does no I/O.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

from serving.body import BodyInvalid

LINE_LIMIT: Final = 4096
"""bytes of a chunk's size line with its extensions, and of a trailer line"""

TRAILER_LIMIT: Final = 16384
"""bytes of all trailer lines together"""

_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?\r\n")
_NEXT_SIZE_LINE: Final = re.compile(rb"\r\n([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?\r\n")
_TRAILER_LINE: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n]*\r\n")


class Framing(Protocol):
    ended: bool
    """the last byte of the body was seen"""

    rest: bytes
    """what came after the end: the beginning of the next request"""

    @property
    def left(self) -> int | None:
        """Bytes of the body still to come, where that is known."""
        ...

    def wanted(self, room: int) -> int:
        """How many bytes to ask the socket for where there is room for `room`."""
        ...

    def feed(self, received: bytes) -> list[bytes]:
        """The body's pieces in `received`; uncopied where it is all body. Raises BodyInvalid."""
        ...

    def squeeze(self, buffer: bytearray, view: memoryview, start: int, end: int) -> int:
        """Moves the body's bytes in `buffer[start:end]` together at `start`; returns their new end.

        `view` is a memoryview of the whole `buffer`. Raises BodyInvalid.
        """
        ...


class Counted:
    """A body of `length` bytes, at least one."""

    __slots__ = ("_left", "ended", "rest")

    def __init__(self, length: int) -> None:
        self._left = length
        self.ended = False
        self.rest = b""

    @property
    def left(self) -> int | None:
        return self._left

    def wanted(self, room: int) -> int:
        return min(room, self._left)

    def feed(self, received: bytes) -> list[bytes]:
        left, size = self._left, len(received)
        if size < left:
            self._left = left - size
            return [received]
        self._left = 0
        self.ended = True
        if size == left:
            return [received]
        self.rest = received[left:]
        return [received[:left]]

    def squeeze(self, buffer: bytearray, view: memoryview, start: int, end: int) -> int:
        self._left -= end - start
        self.ended = self._left == 0
        return end


class Dechunker:
    """A body in chunks: sizes of hexadecimal digits and CRLF only.

    Extensions and trailers are read over.
    """

    __slots__ = ("_after_data", "_in_trailer", "_left", "_line", "_trailer_size", "ended", "rest")

    def __init__(self) -> None:
        self._left = 0
        self._after_data = False
        self._in_trailer = False
        self._trailer_size = 0
        self._line = b""
        self.ended = False
        self.rest = b""

    @property
    def left(self) -> int | None:
        return 0 if self.ended else None

    def wanted(self, room: int) -> int:
        return room

    def feed(self, received: bytes) -> list[bytes]:
        end = len(received)
        spans = self._spans(received, 0, end)
        if len(spans) == 1 and spans[0] == (0, end):
            return [received]
        return [received[first:last] for first, last in spans]

    def squeeze(self, buffer: bytearray, view: memoryview, start: int, end: int) -> int:
        target = start
        for first, last in self._spans(buffer, start, end):
            size = last - first
            if first != target:
                view[target : target + size] = view[first:last]
            target += size
        return target

    def _spans(self, source: bytes | bytearray, position: int, end: int) -> list[tuple[int, int]]:
        """Where in `source[position:end]` the body's bytes are."""
        spans: list[tuple[int, int]] = []
        while position < end and not self.ended:
            left = self._left
            if left:
                stop = min(position + left, end)
                spans.append((position, stop))
                self._left = left - (stop - position)
                position = stop
                continue
            if not self._line and not self._in_trailer:
                pattern = _NEXT_SIZE_LINE if self._after_data else _SIZE_LINE
                match = pattern.match(source, position, min(end, position + LINE_LIMIT))
                if match is not None:
                    position = match.end()
                    self._open(match[1])
                    continue
            position = self._line_piece(source, position, end)
        if self.ended:
            self.rest = bytes(source[position:end])
        return spans

    def _open(self, digits: bytes) -> None:
        self._left = int(digits, 16)
        self._after_data = True
        self._in_trailer = not self._left

    def _line_piece(self, source: bytes | bytearray, position: int, end: int) -> int:
        """Takes one line or the part of it that is there; returns the position after it."""
        stop = source.find(b"\n", position, min(end, position + LINE_LIMIT)) + 1
        piece = source[position : stop or min(end, position + LINE_LIMIT)]
        self._line += piece
        line = self._line
        if len(line) > LINE_LIMIT or (
            self._after_data and not self._in_trailer and not b"\r\n".startswith(line)
        ):
            raise BodyInvalid("the chunk framing of the body is broken")
        if not stop:
            if len(line) == LINE_LIMIT:
                raise BodyInvalid("a line of the chunk framing is too long")
            return position + len(piece)
        self._line = b""
        if self._in_trailer:
            self._trailer(line)
        elif self._after_data:
            self._after_data = False
        else:
            match = _SIZE_LINE.fullmatch(line)
            if match is None:
                raise BodyInvalid("the size of a chunk is not a hexadecimal number")
            self._open(match[1])
        return stop

    def _trailer(self, line: bytes) -> None:
        self._trailer_size += len(line)
        if line == b"\r\n":
            self.ended = True
        elif self._trailer_size > TRAILER_LIMIT or _TRAILER_LINE.fullmatch(line) is None:
            raise BodyInvalid("a trailer of the body is not a header line, or there are too many")
