"""All the ways in which a request goes wrong on the wire: cut, slow, of other lengths, with broken
framing, with bytes that are no HTTP."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Final

from tests.load.fuzz_calls import Call, Ending, Sending, body_bytes, chunks_of, head_of
from tests.load.fuzz_odd import odd_headers, odd_path, odd_query


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
    extra = rng.choice(
        (b"x", b"\r\n", b"\0" * 100, rng.randbytes(5000), b"GET /v2/ HTTP/1.1\r\n\r\n")
    )
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
        data[:at] = rng.choice(
            (b"", b"-1", b"+5", b"0x5", b"g", b"5 5", b"f" * 17, b"\xff", b"5\0")
        )
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
        (
            "HTTP/1.0",
            "HTTP/0.9",
            "HTTP/2.0",
            "HTTP/1.2",
            "HTTP/9.9",
            "http/1.1",
            "HTTP/1",
            "",
            "ICE/1.0",
        )
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
    """Another method: never DELETE, which would take from a scenario what it goes on to read. Those
    that the parser does not know are no HTTP to it."""
    known = ("GET", "HEAD", "POST", "PUT", "PATCH", "OPTIONS", "TRACE", "MKCOL", "PURGE")
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


_WAYS: Final = (
    cut, slow, half_closed, gone, conflicting_framing, odd_version, odd_line, huge_head, flipped,
    renamed, odd_headers, odd_headers, odd_query, odd_query, odd_path, odd_path
)  # fmt: skip
_BODY_WAYS: Final = (cut, cut, cut, longer, shorter, broken_chunks, broken_chunks)
