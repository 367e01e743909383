"""An HTTP client for servers that are killed: it tells a lost server from a wrong answer, and tries
nothing twice."""

from __future__ import annotations

import http.client
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

PATIENCE: Final = 20.0
"""seconds without a byte after which a server hangs"""


class Violation(Exception):
    """The registry broke one of its promises."""


class ServerLost(Exception):
    """The connection ended before the answer was whole."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`headers` by their names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Wire:
    """One connection to a server on this machine, made anew where it was lost."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()

    def call(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """The answer to one request; pieces are sent with chunked transfer encoding.

        Raises ServerLost, and Violation where the server hangs.
        """
        connection = self._connection
        try:
            connection.request(method, path, body, dict(headers or {}))
            with connection.getresponse() as response:
                content = response.read()
        except TimeoutError as error:
            connection.close()
            raise Violation(f"{method} {path}: nothing for {PATIENCE:.0f} s") from error
        except (OSError, http.client.HTTPException) as error:
            with suppress(OSError):
                connection.close()
            raise ServerLost(f"{method} {path}: {error!r}") from error
        named = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, named, content)

    def expect(
        self,
        status: int | tuple[int, ...],
        method: str,
        path: str,
        body: bytes | Iterable[bytes] = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """As `call`; any other status is a Violation."""
        answer = self.call(method, path, body, headers)
        wanted = status if isinstance(status, tuple) else (status,)
        if answer.status not in wanted:
            raise Violation(
                f"{method} {path}: {answer.status}, not {wanted}: {answer.body[:500]!r}"
            )
        return answer
