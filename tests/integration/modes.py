"""A registry with settings of a test's own, and what tests of such look at."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.server import Certificate, Server, running_server

NAME = "team/app"
CONTENT = bytes(range(256)) * 4096


@contextmanager
def serving(
    folder: Path,
    *,
    workers: int = 1,
    certificate: Certificate | None = None,
    host: str = "127.0.0.1",
    **variables: str,
) -> Iterator[tuple[Server, httpx.Client]]:
    """A registry whose settings are REGISTRY_<variables>, and a client of it."""
    with running_server(
        storage=folder / "data",
        log=folder / "log",
        secret="s",
        workers=workers,
        certificate=certificate,
        host=host,
        extra={f"REGISTRY_{name}": value for name, value in variables.items()},
    ) as server:
        trust = ssl.create_default_context(cafile=certificate.authority) if certificate else True
        with httpx.Client(base_url=server.url, timeout=30, verify=trust) as client:
            yield server, client


def until(holds: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it does not come to that"
        time.sleep(0.02)


def entries(server: Server) -> list[dict[str, Any]]:
    """The log, of the formatter json."""
    return [json.loads(line) for line in server.log.read_text().splitlines()]


def rest_of(wire: socket.socket) -> bytes:
    """All that comes until the end of the connection."""
    received = b""
    while piece := wire.recv(1 << 20):
        received += piece
    return received
