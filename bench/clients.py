"""The two clients of the benchmark: a blocking one that moves bulk, and one that drives many small
conversations.
"""

from __future__ import annotations

import contextlib
import hashlib
import selectors
import socket
import ssl
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from bench.wire import Response, parse_head, parse_response

_PATIENCE: Final = 120.0
"""seconds without a byte after which a server counts as hung"""

_READ: Final = 1 << 18


class RequestFailed(Exception):
    """A server's answer was not the expected one."""


@dataclass(frozen=True, slots=True)
class Wire:
    """A request, encoded; the method decides how its answer is read."""

    method: str
    data: bytes


class Target:
    """A registry on loopback. With `ca`, a PEM file, it is spoken to over TLS and its certificate
    is checked.
    """

    def __init__(self, port: int, ca: str | None = None) -> None:
        self.host: Final = "127.0.0.1"
        self.port: Final = port
        self.url: Final = f"{'https' if ca else 'http'}://{self.host}:{port}"
        self._tls = ssl.create_default_context(cafile=ca) if ca else None

    @property
    def plain(self) -> bool:
        return self._tls is None

    def connect(self) -> socket.socket:
        connection = socket.create_connection((self.host, self.port), timeout=_PATIENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is None:
            return connection
        return self._tls.wrap_socket(connection, server_hostname=self.host)

    def wire(
        self,
        method: str,
        path: str,
        headers: str = "",
        body: bytes = b"",
        *,
        length: int | None = None,
    ) -> Wire:
        """Encodes a request. `headers`: whole lines; `length`: of a body that the caller sends
        afterwards.
        """
        if length is None and (
            body or (method in ("POST", "PUT", "PATCH") and "Transfer-Enc" not in headers)
        ):
            length = len(body)
        framing = "" if length is None else f"Content-Length: {length}\r\n"
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n{headers}{framing}\r\n"
        )
        return Wire(method, head.encode() + body)


class Client:
    """One keep-alive connection, opened when needed. A context manager."""

    def __init__(self, target: Target) -> None:
        self.target: Final = target
        self._connection: socket.socket | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def open(self) -> socket.socket:
        if self._connection is None:
            self._connection = self.target.connect()
        return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def abort(self) -> None:
        """Ends what another thread is doing on this connection."""
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)

    def request(
        self,
        method: str,
        path: str,
        headers: str = "",
        body: bytes | Iterable[memoryview] = b"",
        *,
        length: int | None = None,
        expect: tuple[int, ...] = (),
    ) -> Response:
        """Sends one request and reads its answer whole. A body in pieces needs `length` or the
        header of its coding.

        Raises RequestFailed if the status is not one of `expect` (empty: any will do),
        ConnectionError, TimeoutError.
        """
        connection = self.open()
        if isinstance(body, bytes):
            connection.sendall(self.target.wire(method, path, headers, body).data)
        else:
            connection.sendall(self.target.wire(method, path, headers, length=length).data)
            for piece in body:
                connection.sendall(piece)
        received = bytearray()
        while (answer := parse_response(received, method)) is None:
            data = connection.recv(_READ)
            if not data:
                self.close()
                raise ConnectionError(
                    f"{method} {path}: the server closed after {len(received)} bytes"
                )
            received += data
        response = answer[0]
        if response.closes:
            self.close()
        if expect:
            check(response, f"{method} {path}", expect)
        return response

    def download(self, path: str) -> int:
        """GETs `path`, throws the body away and returns its bytes."""
        return sum(len(piece) for piece in self._body(path, 0))

    def discard(self, path: str) -> int:
        """As `download`, at less cost: over plain TCP the kernel drops the bytes without a copy
        (tcp(7), MSG_TRUNC).
        """
        return sum(
            len(piece) for piece in self._body(path, socket.MSG_TRUNC if self.target.plain else 0)
        )

    def digest(self, path: str) -> str:
        """GETs `path` and returns the sha256 digest of what came."""
        running = hashlib.sha256()
        for piece in self._body(path, 0):
            running.update(piece)
        return "sha256:" + running.hexdigest()

    def begin(self, path: str) -> tuple[int, bytes]:
        """GETs `path` up to the end of its head: the body's length and the part of it that came
        along.
        """
        connection = self.open()
        connection.sendall(self.target.wire("GET", path).data)
        received = bytearray()
        while (blank := received.find(b"\r\n\r\n")) < 0:
            data = connection.recv(1 << 16)
            if not data:
                raise ConnectionError(f"GET {path}: the server closed within the head")
            received += data
        status, headers = parse_head(bytes(received[: blank + 4]))
        if status != 200 or "content-length" not in headers:
            raise RequestFailed(f"GET {path}: {status} {bytes(received[blank + 4 :])[:200]!r}")
        return int(headers["content-length"]), bytes(received[blank + 4 :])

    def _body(self, path: str, flags: int) -> Iterator[memoryview]:
        """The body in pieces of at most 1 MiB, each good until the next. Raises RequestFailed,
        ConnectionError.
        """
        total, first = self.begin(path)
        yield memoryview(first)
        connection, buffer, left = self.open(), memoryview(bytearray(1 << 20)), total - len(first)
        while left > 0:
            count = connection.recv_into(buffer, min(left, len(buffer)), flags)
            if count == 0:
                raise ConnectionError(f"GET {path}: {left} bytes are missing")
            left -= count
            yield buffer[:count]


def check(response: Response, what: str, expect: tuple[int, ...]) -> None:
    """Raises RequestFailed unless the status is one of `expect`."""
    if response.status not in expect:
        raise RequestFailed(f"{what}: {response.status} {response.body[:200]!r}")


Script = Generator[Wire, Response, None]
"""A conversation: yields requests, is sent their answers, and returns at its end."""


class _Talk:
    """A script on its connection."""

    __slots__ = ("connection", "method", "received", "script")

    def __init__(self, script: Script, connection: socket.socket) -> None:
        self.script = script
        self.connection = connection
        self.received = bytearray()
        self.method = ""

    def send(self, wire: Wire) -> None:
        self.method = wire.method
        self.connection.sendall(wire.data)

    def receive(self) -> Response | None:
        data = self.connection.recv(_READ)
        if not data:
            raise ConnectionError(f"the server closed before its answer to a {self.method}")
        self.received += data
        answer = parse_response(self.received, self.method)
        if answer is None:
            return None
        del self.received[: answer[1]]
        return answer[0]


def drive(target: Target, scripts: Iterable[Script]) -> None:
    """Runs the scripts at once, each on one connection of its own, until all have returned.

    Raises what a script raises, ConnectionError, TimeoutError if no server byte comes for two
    minutes.
    """
    selector = selectors.DefaultSelector()
    try:
        for script in scripts:
            talk = _Talk(script, target.connect())
            selector.register(talk.connection, selectors.EVENT_READ, talk)
            _advance(selector, talk, None)
        while selector.get_map():
            ready = selector.select(_PATIENCE)
            if not ready:
                raise TimeoutError("no answer from the server")
            for key, _ in ready:
                _receive(selector, key.data, target)
    finally:
        for key in list(selector.get_map().values()):
            key.data.connection.close()
        selector.close()


def _receive(selector: selectors.BaseSelector, talk: _Talk, target: Target) -> None:
    response = talk.receive()
    if response is None:
        return
    if response.closes:
        selector.unregister(talk.connection)
        talk.connection.close()
        talk.connection = target.connect()
        talk.received.clear()
        selector.register(talk.connection, selectors.EVENT_READ, talk)
    _advance(selector, talk, response)


def _advance(selector: selectors.BaseSelector, talk: _Talk, response: Response | None) -> None:
    try:
        wire = next(talk.script) if response is None else talk.script.send(response)
    except StopIteration:
        selector.unregister(talk.connection)
        talk.connection.close()
        return
    talk.send(wire)
