"""A response as a value, and the one place that sends it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final

from registry.repository import BlobContent
from registry.v2.ranges import ByteRange

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]

ZERO_COPY: Final = "http.response.zerocopysend"
JSON: Final = (b"content-type", b"application/json")

BASE_HEADERS: Final[tuple[Header, ...]] = (
    (b"docker-distribution-api-version", b"registry/2.0"),
    (b"x-content-type-options", b"nosniff"),
)


@dataclass(slots=True)
class Response:
    """`length` is Content-Length where it is not that of `body`: for HEAD, and for a blob from its
    file."""

    status: int
    headers: list[Header] = field(default_factory=list)
    body: bytes = b""
    length: int | None = None
    blob: BlobContent | None = None
    part: ByteRange | None = None


async def send_response(response: Response, send: Send, *, zero_copy: bool, head: bool) -> int:
    """Sends it all and gives the bytes of the body that were handed over; closes the blob."""
    blob = response.blob
    try:
        length = len(response.body) if response.length is None else response.length
        headers = response.headers
        if response.status != 204 and response.status != 304:
            headers.append((b"content-length", b"%d" % length))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        if blob is None or head:
            body = b"" if head else response.body
            await send({"type": "http.response.body", "body": body})
            return len(body)
        part = response.part or ByteRange(0, blob.size)
        if blob.file is not None and zero_copy:
            await send(
                {"type": ZERO_COPY, "file": blob.file, "offset": part.start, "count": part.length}
            )
            return part.length
        sent = 0
        async for piece in blob.read(part.start, part.length):
            sent += len(piece)
            await send(
                {"type": "http.response.body", "body": piece, "more_body": sent < part.length}
            )
        if part.length == 0:
            await send({"type": "http.response.body", "body": b""})
        return sent
    finally:
        if blob is not None:
            blob.close()
