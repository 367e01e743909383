"""A server on a loopback port, run in a thread of the test, and raw clients for it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import trustme

from serving.body import RequestBody
from serving.listening import listen
from serving.server import HTTPServer, ServerOptions
from serving.service import ConnectionLimits
from serving.tls import ReloadingContext

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Handler = Callable[[Scope, Receive, Send], Awaitable[None]]

PATIENCE: Final = 10.0


def body(scope: Scope) -> RequestBody:
    found: RequestBody = scope["extensions"]["serving.request.body"]
    return found


async def answer(
    send: Send, content: bytes, *, status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> None:
    length = (b"content-length", b"%d" % len(content))
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": content})


@dataclass
class Application:
    """Handlers by path; keeps what went wrong in them and which requests came."""

    handlers: dict[str, Handler]
    errors: list[BaseException] = field(default_factory=list)
    scopes: list[Scope] = field(default_factory=list)
    loop: asyncio.AbstractEventLoop | None = None
    up: threading.Event = field(default_factory=threading.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        self.scopes.append(scope)
        try:
            await self.handlers[scope["path"]](scope, receive, send)
        except BaseException as error:
            self.errors.append(error)
            raise

    async def _live(self, receive: Receive, send: Send) -> None:
        self.loop = asyncio.get_running_loop()
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
            self.up.set()


class Loopback:
    """A running server."""

    def __init__(
        self, application: Application, server: HTTPServer, address: tuple[Any, ...]
    ) -> None:
        self.application = application
        self.server = server
        self.address = address
        self.exit_code: int | None = None

    def connect(self, tls: ssl.SSLContext | None = None) -> Client:
        made = socket.create_connection(self.address[:2], timeout=PATIENCE)
        return Client(made if tls is None else tls.wrap_socket(made, server_hostname="localhost"))

    def stop(self) -> None:
        assert self.application.loop is not None
        self.application.loop.call_soon_threadsafe(self.server.stop)

    def tasks(self) -> int:
        """Tasks of requests that have not ended."""
        assert self.application.loop is not None
        names = [repr(task.get_coro()) for task in asyncio.all_tasks(self.application.loop)]
        return sum("Exchange" in name for name in names)


@contextlib.contextmanager
def serving(
    handlers: dict[str, Handler],
    *,
    limits: ConnectionLimits | None = None,
    tls: ReloadingContext | None = None,
    drain_delay: float = 0.0,
    drain_timeout: float = 5.0,
    on_stopping: Callable[[], None] = lambda: None,
) -> Iterator[Loopback]:
    sockets = listen("127.0.0.1:0")
    application = Application(handlers)
    options = ServerOptions(
        sockets,
        drain_delay=drain_delay,
        drain_timeout=drain_timeout,
        tls=tls,
        limits=limits or ConnectionLimits(),
    )
    server = HTTPServer(application, options, on_stopping=on_stopping)
    running = Loopback(application, server, sockets[0].getsockname())

    def run() -> None:
        running.exit_code = server.run()

    thread = threading.Thread(target=run, name="server")
    thread.start()
    assert application.up.wait(PATIENCE)
    try:
        yield running
    finally:
        with contextlib.suppress(RuntimeError):  # it has stopped already
            running.stop()
        thread.join(PATIENCE)
        assert not thread.is_alive()


@dataclass(frozen=True)
class Response:
    status: int
    headers: dict[str, str]
    content: bytes


class Client:
    """A socket that speaks HTTP byte by byte where a test wants it."""

    def __init__(self, made: socket.socket) -> None:
        self.socket = made
        self._received = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, content: bytes) -> None:
        self.socket.sendall(content)

    def get(self, path: str) -> Response:
        self.send(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode())
        return self.response()

    def head(self) -> tuple[int, dict[str, str]]:
        """The next head."""
        while b"\r\n\r\n" not in self._received:
            self._more()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        match = re.fullmatch(r"HTTP/1\.1 (\d{3}) .*", first)
        assert match is not None, first
        return int(match[1]), {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }

    def response(self, *, bodiless: bool = False) -> Response:
        """The next answer, interim ones not counted."""
        status, headers = self.head()
        if bodiless or status in (204, 304):
            return Response(status, headers, b"")
        if "content-length" in headers:
            return Response(status, headers, self.exactly(int(headers["content-length"])))
        if headers.get("transfer-encoding") == "chunked":
            return Response(status, headers, self._chunks())
        return Response(status, headers, self.rest())

    def _chunks(self) -> bytes:
        content = b""
        while True:
            while b"\r\n" not in self._received:
                self._more()
            line, _, self._received = self._received.partition(b"\r\n")
            size = int(line, 16)
            content += self.exactly(size)
            assert self.exactly(2) == b"\r\n"
            if not size:
                return content

    def exactly(self, size: int) -> bytes:
        while len(self._received) < size:
            self._more()
        content, self._received = self._received[:size], self._received[size:]
        return content

    def rest(self) -> bytes:
        """All until the server closes."""
        content, self._received = self._received, b""
        while True:
            received = self.socket.recv(1 << 20)
            if not received:
                return content
            content += received

    def _more(self) -> None:
        received = self.socket.recv(1 << 20)
        if not received:
            raise ConnectionError("the server has closed the connection")
        self._received += received

    def closed(self) -> bool:
        """Whether the server closes without another byte."""
        try:
            return not self._received and not self.socket.recv(1)
        except ConnectionResetError:
            return True

    def reset(self) -> None:
        """Closes with a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()


def until(condition: Callable[[], bool]) -> None:
    """Waits for something that the server does on its own."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it has not come about"
        time.sleep(0.01)


def descriptors() -> int:
    """Open files and sockets of this process; the loop keeps /dev/null open in reserve."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            count += os.readlink(f"/proc/self/fd/{name}") != "/dev/null"
    return count


def chunked(content: bytes, size: int, *, trailers: bytes = b"") -> bytes:
    pieces = [content[start : start + size] for start in range(0, len(content), size)]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return framed + b"0\r\n" + trailers + b"\r\n"


async def hello(_scope: Scope, _receive: Receive, send: Send) -> None:
    await answer(send, b"hello")


async def echo(scope: Scope, _receive: Receive, send: Send) -> None:
    """The body itself."""
    await answer(send, await body(scope).read(1 << 24))


async def digest(scope: Scope, _receive: Receive, send: Send) -> None:
    """Size and sha256 of the body, by pump."""
    running = hashlib.sha256()
    size = await body(scope).pump(running.update)
    await answer(send, b"%d %b" % (size, running.hexdigest().encode()), status=201)


def expected_digest(content: bytes) -> bytes:
    return b"%d %b" % (len(content), hashlib.sha256(content).hexdigest().encode())


@dataclass(frozen=True)
class Authority:
    """A certificate authority of the test, and a pair of files with a certificate for localhost."""

    ca: trustme.CA
    certificate: Path
    key: Path

    @classmethod
    def in_folder(cls, folder: Path) -> Authority:
        made = cls(trustme.CA(), folder / "tls.crt", folder / "tls.key")
        made.issue()
        return made

    def issue(self) -> None:
        """Writes a new pair."""
        issued = self.ca.issue_cert("localhost")
        self.key.write_bytes(issued.private_key_pem.bytes())
        self.certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))

    def context(self) -> ReloadingContext:
        return ReloadingContext(str(self.certificate), str(self.key))

    def client(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        return context
