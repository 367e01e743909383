"""HTTP/1.1 responses out of bytes (RFC 9112). Pure: no sockets.

Only what a benchmark's client meets: bodies by Content-Length, by chunks, or none.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit


class MalformedResponse(Exception):
    """The server's bytes are no response that this client understands."""


@dataclass(frozen=True, slots=True)
class Response:
    """One answer; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def closes(self) -> bool:
        """Whether the server ends the connection after this answer."""
        return self.headers.get("connection", "").lower() == "close"


def parse_head(raw: bytes) -> tuple[int, dict[str, str]]:
    """The status and the headers of `raw`, which ends with the blank line. Raises
    MalformedResponse.
    """
    lines = raw.decode("latin-1").split("\r\n")
    parts = lines[0].split(" ", 2)
    if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdigit():
        raise MalformedResponse(f"no status line: {lines[0][:100]!r}")
    headers = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    return int(parts[1]), headers


def parse_chunks(buffer: bytes | bytearray, start: int) -> tuple[bytes, int] | None:
    """The chunked body at `start` and the offset behind it; None while it is incomplete. Raises
    MalformedResponse.
    """
    body = bytearray()
    at = start
    while True:
        end = buffer.find(b"\r\n", at)
        if end < 0:
            return None
        try:
            size = int(bytes(buffer[at:end]).partition(b";")[0], 16)
        except ValueError as error:
            raise MalformedResponse(f"no chunk size: {bytes(buffer[at:end])[:40]!r}") from error
        if size == 0:
            break
        at = end + 2 + size + 2
        if len(buffer) < at:
            return None
        body += buffer[end + 2 : at - 2]
    if buffer[end + 2 : end + 4] == b"\r\n":
        return bytes(body), end + 4
    trailers = buffer.find(b"\r\n\r\n", end)
    return None if trailers < 0 else (bytes(body), trailers + 4)


def parse_response(
    buffer: bytes | bytearray, method: str, start: int = 0
) -> tuple[Response, int] | None:
    """The answer to a `method` request at `start` and the offset behind it; None while it is
    incomplete.

    Interim answers (1xx) are skipped. Raises MalformedResponse, also for a body that only the end
    of the connection would end.
    """
    blank = buffer.find(b"\r\n\r\n", start)
    if blank < 0:
        return None
    at = blank + 4
    status, headers = parse_head(bytes(buffer[start:at]))
    if 100 <= status < 200:
        return parse_response(buffer, method, at)
    if method == "HEAD" or status in (204, 304):
        return Response(status, headers, b""), at
    if "chunked" in headers.get("transfer-encoding", "").lower():
        chunked = parse_chunks(buffer, at)
        return None if chunked is None else (Response(status, headers, chunked[0]), chunked[1])
    length = headers.get("content-length", "")
    if not length.isdigit():
        raise MalformedResponse(f"{status} answer to {method} without a length")
    end = at + int(length)
    if len(buffer) < end:
        return None
    return Response(status, headers, bytes(buffer[at:end])), end


def next_page(response: Response) -> str | None:
    """Path and query of `Link: <...>; rel="next"` (OCI distribution-spec, "Listing Tags"), or None
    on the last page.
    """
    link = response.headers.get("link", "")
    if "<" not in link or "next" not in link:
        return None
    return local_path(link[link.index("<") + 1 : link.index(">")])


def local_path(location: str) -> str:
    """Path and query of a Location, which may be relative or absolute."""
    parts = urlsplit(location)
    return parts.path + (f"?{parts.query}" if parts.query else "")


def with_digest(location: str, digest: str) -> str:
    """An upload's Location, made into the target of its closing PUT."""
    path = local_path(location)
    return f"{path}{'&' if '?' in path else '?'}digest={digest}"
