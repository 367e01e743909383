"""Heads of requests: the parser sees nothing else, bodies are cut off before it."""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote

import httptools

from serving.service import Headers

HEAD_LIMIT: Final = 64 << 10
"""bytes of a head, request line included"""

_END: Final = b"\r\n\r\n"
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding", b"expect"})


class HeadInvalid(Exception):
    """The head is refused with `status`; the connection cannot be used any further."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class HeadParser:
    """Parses one head after the other; read the fields when `feed` has returned an offset."""

    __slots__ = (
        "_heads",
        "_overrun",
        "_parser",
        "_size",
        "_tail",
        "_url",
        "chunked",
        "expects_continue",
        "headers",
        "keep_alive",
        "length",
        "version",
    )

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Gets ready for the next head with a new parser: this one waits for a body, or is at odds.

        A request for another protocol leaves it so.
        """
        self._parser = httptools.HttpRequestParser(self)
        self.reset()

    def reset(self) -> None:
        """Gets ready for the next head after a request without a body."""
        self.headers: Headers = []
        self.length = 0
        """Content-Length"""
        self.chunked = False
        self.expects_continue = False
        self.version = ""
        self.keep_alive = False
        """the client would use the connection again; HTTP/1.0 clients are not asked"""
        self._url = b""
        self._heads = 0
        self._overrun = False
        self._size = 0
        self._tail = b""

    @property
    def begun(self) -> bool:
        """Part of a head has come."""
        return self._size > 0

    @property
    def plain(self) -> bool:
        """The same parser can take the next head."""
        return not (self.length or self.chunked or self._parser.should_upgrade())

    def feed(self, received: bytes) -> int:
        """Takes a head in any pieces; returns where it ends in `received`, 0 where it goes on.

        Raises HeadInvalid.
        """
        position = 0
        while position < len(received):
            end = self._end_in(received, position)
            stop = end or len(received)
            self._size += stop - position
            over = self._size - HEAD_LIMIT
            stop = max(position, stop - over) if over > 0 else stop
            self._parse(received if stop - position == len(received) else received[position:stop])
            if over > 0:
                raise HeadInvalid(431, f"the head of the request is over {HEAD_LIMIT} bytes")
            if self._heads:
                return end
            position = stop
        return 0

    def _end_in(self, received: bytes, position: int) -> int:
        """Where the empty line ends that ends the head, or 0; it may begin in an earlier piece."""
        tail = self._tail
        if tail:
            found = (tail + received[position : position + 3]).find(_END)
            if found >= 0:
                self._tail = b""
                return position + found + 4 - len(tail)
        found = received.find(_END, position)
        if found >= 0:
            self._tail = b""
            return found + 4
        self._tail = (tail + received[max(position, len(received) - 3) :])[-3:]
        return 0

    def _parse(self, block: bytes) -> None:
        try:
            self._parser.feed_data(block)
        except httptools.HttpParserUpgrade:
            pass  # no other protocol is spoken: the request is answered as it is (RFC 9110, 7.8)
        except httptools.HttpParserCallbackError as error:
            raise (
                error.__context__ if isinstance(error.__context__, HeadInvalid) else error
            ) from None
        except httptools.HttpParserError as error:
            raise HeadInvalid(400, f"this is not HTTP: {error}") from error
        if self._overrun or self._heads > 1:
            raise HeadInvalid(400, "the head of the request does not end at its empty line")
        if self._heads and self.version != "1.1":
            self._check_old_version()

    def _check_old_version(self) -> None:
        if self.version != "1.0":
            raise HeadInvalid(505, "only HTTP/1.1 and HTTP/1.0 are spoken here")
        if self.chunked:
            raise HeadInvalid(400, "HTTP/1.0 has no transfer codings")
        self.expects_continue = False

    @property
    def method(self) -> str:
        method: bytes = self._parser.get_method()
        return method.decode("ascii")

    def target(self) -> tuple[str, bytes, bytes]:
        """Path (percent-decoded), path as it was sent, query. Raises HeadInvalid."""
        url = self._url
        if url.startswith(b"/"):
            raw, _, query = url.partition(b"#")[0].partition(b"?")
        elif b"://" in url:
            try:
                parsed = httptools.parse_url(url)
            except httptools.HttpParserInvalidURLError as error:
                raise HeadInvalid(400, "the target of the request is not a URL") from error
            raw, query = parsed.path or b"/", parsed.query or b""
        else:  # "*", or the host and port of a CONNECT
            raw, query = url, b""
        path = raw.decode("ascii")
        return unquote(path) if "%" in path else path, raw, query

    # What httptools calls.

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name, value = name.lower(), value.rstrip()  # the parser leaves blanks at the end
        if name in _FRAMING:
            self._note(name, value)
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._heads += 1
        self.version = self._parser.get_http_version()
        # Only here: the parser has forgotten it when a request without a body is over.
        self.keep_alive = self.version == "1.1" and bool(self._parser.should_keep_alive())

    def on_body(self, _body: bytes) -> None:
        self._overrun = True

    def _note(self, name: bytes, value: bytes) -> None:
        if name == b"content-length":
            self.length = int(value)
        elif name == b"expect":
            self.expects_continue = value.lower() == b"100-continue"
        elif value.lower() == b"chunked":
            self.chunked = True
        else:
            raise HeadInvalid(501, "the only transfer coding known here is chunked")
