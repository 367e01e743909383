"""The body of a request as the application sees it: never whole in memory unless asked for with a
limit.

The protocol class puts a RequestBody into `scope["extensions"]["serving.request.body"]`; `body_of`
makes one over plain `receive` for any other ASGI server.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

Sink = Callable[[memoryview], None]
"""Takes the next bytes of a body, in a worker thread; may block; the memory is the caller's again
afterwards."""

EXTENSION: Final = "serving.request.body"

GONE: Final = "serving.request.gone"
"""in `scope["extensions"]`: an awaitable call that ends when the client's connection is lost"""


class ClientDisconnected(Exception):
    """The client closed the connection before its body was complete."""


class BodyTimeout(ClientDisconnected):
    """No byte of the body came for the idle time."""


class BodyInvalid(Exception):
    """The chunk framing of the body is broken; nothing after it can be read."""


class BodyTooLarge(Exception):
    """The body is over the limit that the reader gave."""


class RequestBody(Protocol):
    """Every method raises ClientDisconnected, BodyTimeout, BodyInvalid. Reading starts with the
    first call (and only then is `100 Continue` sent)."""

    length: int | None
    """Content-Length, or None for a chunked body; 0 where there is no body"""

    received: int
    """bytes that were handed to the application"""

    async def gather(self, limit: int) -> bytes | None:
        """The whole body if it has at most `limit` bytes, else None; what came so far is kept for
        the calls below."""
        ...

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises BodyTooLarge over `limit` bytes."""
        ...

    async def parts(self) -> list[bytes]:
        """The next pieces, without copies; an empty list at the end."""
        ...

    async def pump(self, sink: Sink) -> int:
        """Gives all that is left to `sink`, in a worker thread, in pieces of up to 1 MiB; returns
        their bytes.

        What `sink` raises ends the pump and is raised here.
        """
        ...
