"""Requests that are HTTP, with headers, parameters and paths that no client has reason to send."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Final

from tests.load.fuzz_calls import Call, Ending, Sending, clean

_ODD_HEADERS: Final[Sequence[tuple[bytes, tuple[bytes, ...]]]] = (
    (b"Accept", (b"", b"*/*", b"text/html", b"\xff\xfe", b";;;,,,", b"a/b;q=x," * 500)),
    (b"If-Match", (b"*", b'"', b"sha256:0", b'"a", "b"', b'W/"x"', b"," * 1000, b"\xff")),
    (b"If-None-Match", (b"*", b"", b'W/"x"', b"\xff", b"a," * 3000)),
    (b"If-Range", (b"", b'"x"', b"Tue, 01 Jan 2030 00:00:00 GMT", b"\xff")),
    (
        b"Range",
        (
            b"bytes=0-",
            b"bytes=-1",
            b"bytes=9-1",
            b"bytes=0-0,2-3",
            b"lines=1-2",
            b"bytes=" + b"9" * 40 + b"-",
            b"bytes=\xb2-",
            b"bytes= 0 - 1",
            b"x",
        ),
    ),
    (
        b"Content-Range",
        (b"0-0", b"bytes 0-4/5", b"9-1", b"-", b"0-" + b"9" * 30, b"\xb2-\xb3", b"bytes */5"),
    ),
    (b"Expect", (b"100-continue", b"100-CONTINUE", b"200-ok", b"", b"100-continue, x")),
    (
        b"Content-Type",
        (
            b"",
            b"text/plain",
            b"application/octet-stream; x=y",
            b"\xff/\xff",
            b"application/json",
            b"APPLICATION/OCTET-STREAM",
        ),
    ),
    (b"X-Forwarded-Proto", (b"https", b"javascript", b"https,http", b"", b"\xff", b"a b")),
    (
        b"X-Forwarded-Host",
        (
            b"reg.example:8443",
            b"a,b",
            b"a/b@c",
            b"",
            b"\xff\x80",
            b"[::1]:5",
            b"a b\tc",
            b"h" * 5000,
        ),
    ),
    (
        b"Forwarded",
        (
            b"proto=https;host=reg.example",
            b'host="[::1]:5"',
            b"host",
            b"=;=,=",
            b"for=x, host=y",
            b"proto=\xff",
            b'host="a\tb"',
        ),
    ),
    (b"X-Request-Id", (b"", b"a" * 129, b"a b", b"\xff", b"%0d%0aX-Injected:%20yes", b"ok-1")),
    (b"Connection", (b"keep-alive", b"upgrade", b"x, y", b"")),
    (b"Upgrade", (b"h2c", b"websocket")),
    (b"Cookie", (b"a=b; c=" + b"d" * 8000,)),
    (b"Accept-Encoding", (b"gzip, deflate, br",)),
    (b"Content-Encoding", (b"gzip",)),
    (b"X-HTTP-Method-Override", (b"DELETE",)),
    (b"User-Agent", (b"fuzz/1.0 \xe2\x98\x83", b"")),
)


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


_ODD_BITS: Final = (
    "%2F", "%00", "%FF", "%", "//", "/./", "/../", "%25", "%0A", ";", "@", "%C3%A9", "A",
    "%F0%9F%92%A9"
)  # fmt: skip


def odd_path(call: Call, rng: Random) -> Sending:
    """The path spelled in another way, or broken."""
    path, mark, query = call.target.partition("?")
    if not path.startswith("/"):
        return clean(call, rng)
    at = rng.randrange(1, len(path) + 1)
    kind = rng.randrange(4)
    if kind == 0 and at < len(path):
        spelled = f"%{ord(path[at]):02X}"
        path = path[:at] + (spelled if rng.random() < 0.5 else spelled.lower()) + path[at + 1 :]
    elif kind == 1:
        path = path[:at] + rng.choice(_ODD_BITS) + path[at:]
    elif kind == 2:
        path = path[:at]
    else:
        path += rng.choice(("/", "x", "/blobs/uploads/", "/tags/list", "%20", ":", "/manifests/a"))
    # What is left of the prefix decides who answers: the forms of /v2 are owed only under it.
    return clean(replace(call, target=path + mark + query), rng)
