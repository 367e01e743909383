"""Requests as they are meant, as bytes on the wire, and all the ways to send them badly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from random import Random
from typing import Final

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
        return [self.data[a:b] for a, b in zip(marks, marks[1:], strict=False) if a < b]


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


def disturbed(call: Call, rng: Random) -> Sending:
    """The request in one of the ways in which it goes wrong on the wire."""
    ways = _BODY_WAYS + _WAYS if call.body else _WAYS
    return rng.choice(ways)(call, rng)


def _simple(call: Call, data: bytes, owed: int, **more: object) -> Sending:
    return replace(Sending(data, ((call.method, call.target),), owed), **more)  # type: ignore[arg-type]


def cut(call: Call, rng: Random) -> Sending:
    """Ends at a random byte; whether that was before the end of the request is not always clear."""
    data = head_of(call) + body_bytes(call, rng)
    if call.body and rng.random() < 0.7:  # inside the body
        first = len(head_of(call))
        stop = rng.randrange(first, len(data))
    else:
        stop = rng.randrange(1, len(data))
    ending = rng.choice((Ending.CLOSE, Ending.RESET, Ending.HALF_CLOSE))
    return _simple(call, data[:stop], 0, ending=ending)


def slow(call: Call, rng: Random) -> Sending:
    """A byte at a time in the head, then in a few pieces."""
    head = head_of(call)
    data = head + body_bytes(call, rng)
    start = rng.randrange(len(head))
    cuts = tuple(range(start + 1, min(start + 40, len(data))))
    return _simple(call, data, 1, cuts=cuts, pause=0.001)


def half_closed(call: Call, rng: Random) -> Sending:
    data = head_of(call) + body_bytes(call, rng)
    return _simple(call, data, 1, ending=Ending.HALF_CLOSE)


def gone(call: Call, rng: Random) -> Sending:
    """Complete, but nobody waits for the answer."""
    data = head_of(call) + body_bytes(call, rng)
    return _simple(call, data, 0, ending=rng.choice((Ending.CLOSE, Ending.RESET)))


def longer(call: Call, rng: Random) -> Sending:
    """More bytes than were announced."""
    data = head_of(call) + body_bytes(call, rng)
    extra = rng.choice((b"x", b"\r\n", b"\0" * 100, rng.randbytes(5000), b"GET /v2/ HTTP/1.1\r\n\r\n"))
    return _simple(call, data + extra, 1, spill=True, ending=Ending.CLOSE)


def shorter(call: Call, rng: Random) -> Sending:
    """Content-Length says less than what follows, or more."""
    assert call.body is not None
    stated = max(0, len(call.body) + rng.choice((-1, -5, 1, 1000, -len(call.body))))
    bodiless = replace(call, body=None).with_header("Content-Length", str(stated))
    owed = 1 if stated <= len(call.body) else 0
    return _simple(call, head_of(bodiless) + call.body, owed, spill=True, ending=Ending.CLOSE)


def broken_chunks(call: Call, rng: Random) -> Sending:
    data = bytearray(chunks_of(call.body or b"", rng))
    at = data.find(b"\r\n")
    kind = rng.randrange(6)
    if kind == 0:
        data[:at] = rng.choice((b"", b"-1", b"+5", b"0x5", b"g", b"5 5", b"f" * 17, b"\xff", b"5\0"))
    elif kind == 1:
        data[at : at + 2] = rng.choice((b"\n", b"\r", b"\r\r\n", b"\n\r", b""))
    elif kind == 2:
        data[:at] = b"5;" + b"e" * rng.choice((10, 4090, 4096, 5000))
    elif kind == 3:
        data[-2:] = rng.choice((b"bad trailer\r\n\r\n", b"a: " + b"b" * 5000 + b"\r\n\r\n"))
    elif kind == 4:
        data[-2:] = b"t: v\r\n" * 4000 + b"\r\n"
    else:
        spot = rng.randrange(len(data))
        data[spot] = rng.randrange(256)
    head = head_of(replace(call, chunked=True))
    data[:0] = head
    return _simple(call, bytes(data), 0, spill=True, ending=Ending.CLOSE, garbled=True)


def conflicting_framing(call: Call, rng: Random) -> Sending:
    extra = rng.choice(
        (
            (b"Content-Length", b"5"),
            (b"Content-Length", b"-1"),
            (b"Content-Length", b"1e3"),
            (b"Content-Length", b""),
            (b"Content-Length", b"0x10"),
            (b"Content-Length", b"5, 5"),
            (b"Content-Length", b"18446744073709551616"),
            (b"Content-Length", b"9" * 400),
            (b"Transfer-Encoding", b"chunked"),
            (b"Transfer-Encoding", b"gzip, chunked"),
            (b"Transfer-Encoding", b"chunked, identity"),
            (b"Transfer-Encoding", b"\x0bchunked"),
            (b"Transfer-Encoding ", b"chunked"),
            (b"Transfer_Encoding", b"chunked"),
        )
    )
    data = head_of(replace(call, headers=(*call.headers, extra))) + body_bytes(call, rng)
    return _simple(call, data, 0, strict=False, spill=True, ending=Ending.CLOSE)


def odd_version(call: Call, rng: Random) -> Sending:
    version = rng.choice(
        ("HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/1.2", "HTTP/9.9", "http/1.1", "HTTP/1", "", "ICE/1.0")
    )
    data = head_of(call, version=version) + body_bytes(call, rng)
    owed = 1 if version == "HTTP/1.0" else 0
    return _simple(call, data, owed, strict=False, spill=True, ending=Ending.HALF_CLOSE)


def odd_line(call: Call, rng: Random) -> Sending:
    """A header line that no HTTP has."""
    line = rng.choice(
        (
            b"X: a\0b",
            b"X: a\rX-Injected: yes",
            b"X: a\nX-Injected: yes",
            b" folded: line",
            b"X : blank",
            b"no colon",
            b": no name",
            b"X\xff: y",
            b"\x00",
            b"X-Request-Id: a\x0d\x0d\x0aX-Injected: yes",
            b"Host: other.example",
            b"Host: a\0b",
        )
    )
    head = head_of(call)
    data = head[:-2] + line + b"\r\n\r\n" + body_bytes(call, rng)
    return _simple(call, data, 0, strict=False, spill=True, ending=Ending.CLOSE)


def huge_head(call: Call, rng: Random) -> Sending:
    """Headers near the limit of 64 KiB: under it they are taken, over it they are not."""
    over = rng.random() < 0.5
    room = (65 if over else 50) * 1024
    if rng.random() < 0.5:
        big = call.with_header("Authorization", "Bearer " + "a" * room)
    else:
        lines = tuple((b"X-%d" % number, b"v" * 90) for number in range(room // 99))
        big = replace(call, headers=(*call.headers, *lines))
    data = head_of(big) + body_bytes(call, rng)
    return _simple(call, data, 1, strict=not over, spill=over, ending=Ending.CLOSE)


def flipped(call: Call, rng: Random) -> Sending:
    """Random bytes of the head changed, put in or taken out."""
    head = bytearray(head_of(call))
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(head))
        kind = rng.randrange(3)
        if kind == 0:
            head[at] = rng.randrange(256)
        elif kind == 1:
            head.insert(at, rng.choice(b"\0\r\n :%/?\xff\x80A0"))
        else:
            del head[at]
    data = bytes(head) + body_bytes(call, rng)
    return _simple(call, data, 0, strict=False, spill=True, ending=Ending.CLOSE)


def renamed(call: Call, rng: Random) -> Sending:
    """Another method. Those that the parser does not know are no HTTP to it."""
    known = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "MKCOL", "PURGE")
    odd = ("CONNECT", "FOO", "get", "G\0T", "", "GETGETGET", "PRI", "A" * 1000)
    strict = rng.random() < 0.7
    method = rng.choice(known if strict else odd)
    other = replace(call, method=method)
    data = head_of(other) + body_bytes(call, rng)
    return Sending(
        data,
        ((method, call.target),),
        int(strict),
        strict=strict,
        spill=not strict,
        ending=Ending.CLOSE,
    )


_ODD_HEADERS: Final[Sequence[tuple[bytes, tuple[bytes, ...]]]] = (
    (b"Accept", (b"", b"*/*", b"text/html", b"\xff\xfe", b";;;,,,", b"a/b;q=x," * 500)),
    (b"If-Match", (b"*", b'"', b"sha256:0", b'"a", "b"', b'W/"x"', b"," * 1000, b"\xff")),
    (b"If-None-Match", (b"*", b"", b'W/"x"', b"\xff", b"a," * 3000)),
    (b"If-Range", (b"", b'"x"', b"Tue, 01 Jan 2030 00:00:00 GMT", b"\xff")),
    (b"Range", (b"bytes=0-", b"bytes=-1", b"bytes=9-1", b"bytes=0-0,2-3", b"lines=1-2", b"bytes=" + b"9" * 40 + b"-", b"bytes=\xb2-", b"bytes= 0 - 1", b"x")),
    (b"Content-Range", (b"0-0", b"bytes 0-4/5", b"9-1", b"-", b"0-" + b"9" * 30, b"\xb2-\xb3", b"bytes */5")),
    (b"Expect", (b"100-continue", b"100-CONTINUE", b"200-ok", b"", b"100-continue, x")),
    (b"Content-Type", (b"", b"text/plain", b"application/octet-stream; x=y", b"\xff/\xff", b"application/json", b"APPLICATION/OCTET-STREAM")),
    (b"X-Forwarded-Proto", (b"https", b"javascript", b"https,http", b"", b"\xff", b"a b")),
    (b"X-Forwarded-Host", (b"reg.example:8443", b"a,b", b"a/b@c", b"", b"\xff\x80", b"[::1]:5", b"a b\tc", b"h" * 5000)),
    (b"Forwarded", (b"proto=https;host=reg.example", b'host="[::1]:5"', b"host", b"=;=,=", b"for=x, host=y", b"proto=\xff", b'host="a\tb"')),
    (b"X-Request-Id", (b"", b"a" * 129, b"a b", b"\xff", b"%0d%0aX-Injected:%20yes", b"ok-1")),
    (b"Connection", (b"keep-alive", b"upgrade", b"x, y", b"")),
    (b"Upgrade", (b"h2c", b"websocket")),
    (b"Cookie", (b"a=b; c=" + b"d" * 8000,)),
    (b"Accept-Encoding", (b"gzip, deflate, br",)),
    (b"Content-Encoding", (b"gzip",)),
    (b"X-HTTP-Method-Override", (b"DELETE",)),
    (b"User-Agent", (b"fuzz/1.0 \xe2\x98\x83", b"")),
)  # fmt: skip


def odd_headers(call: Call, rng: Random) -> Sending:
    """Headers that are HTTP, with values that say little or too much."""
    for _ in range(rng.randrange(1, 4)):
        name, values = rng.choice(_ODD_HEADERS)
        call = replace(call, headers=(*call.headers, (name, rng.choice(values))))
    if any(name == b"Connection" for name, _ in call.headers):
        return replace(clean(call, rng), ending=Ending.CLOSE)
    return clean(call, rng)


_ODD_VALUES: Final = (
    "", "0", "1", "-1", "1e9", "99999999999999999999", "%00", "%0d%0aX-Injected:%20yes", "%ff%fe",
    "%E2%98%83", "\x7f", "a" * 3000, "../..", "%2e%2e%2f", "sha256:", "sha256%3A" + "0" * 64,
    "sha512:" + "a" * 128, "%", "%zz", "+", "null", "[]", "%F0%9F%92%A9", "%ED%A0%80", "\u00b2"
)  # fmt: skip
_PARAMETERS: Final = (
    "n", "last", "digest", "digest-algorithm", "mount", "from", "tag", "artifactType", "_state", "x"
)  # fmt: skip


def odd_query(call: Call, rng: Random) -> Sending:
    """Parameters added, repeated or changed."""
    path, _, query = call.target.partition("?")
    parts = [part for part in query.split("&") if part]
    for _ in range(rng.randrange(1, 4)):
        value = rng.choice(_ODD_VALUES).replace("\u00b2", "%B2").replace("\x7f", "%7F")
        part = f"{rng.choice(_PARAMETERS)}={value}"
        if parts and rng.random() < 0.4:
            parts[rng.randrange(len(parts))] = part
        else:
            parts.insert(rng.randrange(len(parts) + 1), part)
    if rng.random() < 0.03:
        parts += ["n=1"] * rng.choice((990, 1010))
    return clean(replace(call, target=f"{path}?{'&'.join(parts)}"), rng)


def odd_path(call: Call, rng: Random) -> Sending:
    """The path spelled in another way, or broken."""
    path, mark, query = call.target.partition("?")
    at = rng.randrange(1, len(path) + 1)
    kind = rng.randrange(4)
    if kind == 0 and at < len(path):
        spelled = f"%{ord(path[at]):02X}"
        path = path[:at] + (spelled if rng.random() < 0.5 else spelled.lower()) + path[at + 1 :]
    elif kind == 1:
        path = path[:at] + rng.choice(("%2F", "%00", "%FF", "%", "//", "/./", "/../", "%25", "%0A", ";", "@", "%C3%A9", "A", "%F0%9F%92%A9")) + path[at:]  # fmt: skip
    elif kind == 2:
        path = path[:at]
    else:
        path += rng.choice(("/", "x", "/blobs/uploads/", "/tags/list", "%20", ":", "/manifests/a"))
    # What is left of the prefix decides who answers: the forms of /v2 are owed only under it.
    return clean(replace(call, target=path + mark + query), rng)


_WAYS: Final = (
    cut, slow, half_closed, gone, conflicting_framing, odd_version, odd_line, huge_head, flipped,
    renamed, odd_headers, odd_headers, odd_query, odd_query, odd_path, odd_path
)  # fmt: skip
_BODY_WAYS: Final = (cut, cut, cut, longer, shorter, broken_chunks, broken_chunks)
