"""Requests as they are meant, and as bytes on the wire."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto
from itertools import pairwise
from random import Random

Headers = tuple[tuple[bytes, bytes], ...]


class Ending(Enum):
    """What the client does with the connection once its bytes are sent."""

    STAY = auto()
    CLOSE = auto()
    RESET = auto()
    HALF_CLOSE = auto()


@dataclass(frozen=True, slots=True)
class Call:
    """A request that is well-formed HTTP. `target` is ASCII as it is sent; `body` None is no body,
    with `chunked` it goes out in chunks."""

    method: str
    target: str
    headers: Headers = ()
    body: bytes | None = None
    chunked: bool = False
    expects: bool = False
    """waits for `100 Continue` before it sends the body"""

    def with_header(self, name: str, value: str | bytes) -> Call:
        encoded = value.encode("latin-1") if isinstance(value, str) else value
        return replace(self, headers=(*self.headers, (name.encode(), encoded)))


@dataclass(frozen=True, slots=True)
class Sending:
    """Bytes, and what the server owes for them.

    `known` are method and target of the requests in it that will be answered in this order, at
    least `owed` of them; `strict`: they are HTTP for certain. `spill`: further bytes follow that
    may be answered as requests. `garbled`: what the server takes for the body need not be the
    call's. `head` bytes are sent first where the client waits for `100
    Continue`.
    """

    data: bytes
    known: tuple[tuple[str, str], ...]
    owed: int
    strict: bool = True
    spill: bool = False
    ending: Ending = Ending.STAY
    cuts: tuple[int, ...] = ()
    pause: float = 0.0
    head: int = 0
    garbled: bool = False

    @property
    def pieces(self) -> list[bytes]:
        marks = [0, *sorted(self.cuts), len(self.data)]
        return [self.data[a:b] for a, b in pairwise(marks) if a < b]


def head_of(call: Call, *, version: str = "HTTP/1.1") -> bytes:
    lines = [f"{call.method} {call.target} {version}".encode("latin-1")]
    names = {name.lower() for name, _ in call.headers}
    if b"host" not in names:
        lines.append(b"Host: fuzz.example")
    lines += [name + b": " + value for name, value in call.headers]
    if call.body is not None:
        if call.chunked:
            lines.append(b"Transfer-Encoding: chunked")
        else:
            lines.append(b"Content-Length: %d" % len(call.body))
        if call.expects:
            lines.append(b"Expect: 100-continue")
    return b"\r\n".join(lines) + b"\r\n\r\n"


def chunks_of(body: bytes, rng: Random) -> bytes:
    """`body` in chunks of random sizes, now and then with extensions and trailers."""
    out = []
    at = 0
    while at < len(body):
        size = min(len(body) - at, rng.choice((1, 7, 1000, 16384, 65536, 1 << 20)))
        if size < 100 and len(body) - at > 3000:
            size = 3000
        form = b"%X" if rng.random() < 0.5 else b"%x"
        extension = b";name=value" if rng.random() < 0.1 else b""
        out += [form % size, extension, b"\r\n", body[at : at + size], b"\r\n"]
        at += size
    out.append(b"0\r\n")
    if rng.random() < 0.1:
        out.append(b"X-Trailer: yes\r\n")
    return b"".join(out) + b"\r\n"


def body_bytes(call: Call, rng: Random) -> bytes:
    if call.body is None:
        return b""
    return chunks_of(call.body, rng) if call.chunked else call.body


def clean(call: Call, rng: Random) -> Sending:
    """The request as it is meant, in one or in some pieces, on a connection that lives on."""
    head = head_of(call)
    data = head + body_bytes(call, rng)
    cuts = _some_cuts(data, rng) if rng.random() < 0.2 else ()
    waits = len(head) if call.expects and call.body is not None and rng.random() < 0.5 else 0
    return Sending(
        data, ((call.method, call.target),), 1, cuts=() if waits else cuts, pause=0.002, head=waits
    )


def _some_cuts(data: bytes, rng: Random) -> tuple[int, ...]:
    return tuple(rng.randrange(1, len(data)) for _ in range(rng.randrange(1, 5)))
