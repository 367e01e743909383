"""Files sent without a thread and without a copy: http.response.zerocopysend."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from serving.body import ClientDisconnected
from serving.service import ConnectionLimits
from tests.unit.serving.loopback import (
    Client,
    Handler,
    Receive,
    Scope,
    Send,
    descriptors,
    hello,
    serving,
    until,
)

CONTENT = bytes(range(253)) * 80_000
"""20 MB"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = tmp_path_factory.mktemp("files") / "blob"
    made.write_bytes(CONTENT)
    yield made
    made.unlink()


def sender(
    path: Path,
    *,
    offset: int = 0,
    count: int = len(CONTENT),
    before: bytes = b"",
    after: bytes = b"",
    failed: Callable[[BaseException], object] = lambda error: None,
) -> Handler:
    async def send_file(_scope: Scope, _receive: Receive, send: Send) -> None:
        length = len(before) + count + len(after)
        file: IO[bytes] = path.open("rb", buffering=0)
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": 200,
                    "headers": [(b"content-length", b"%d" % length)],
                }
            )
            if before:
                await send({"type": "http.response.body", "body": before, "more_body": True})
            await send(
                {
                    "type": "http.response.zerocopysend",
                    "file": file,
                    "offset": offset,
                    "count": count,
                    "more_body": bool(after),
                }
            )
            if after:
                await send({"type": "http.response.body", "body": after})
        except BaseException as error:
            failed(error)
            raise
        finally:
            file.close()

    return send_file


GET = b"GET /file HTTP/1.1\r\nHost: a\r\n\r\n"
HELLO = b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize(
    ("offset", "count"),
    [(0, len(CONTENT)), (1, 5), (12_345, 3 << 20), (len(CONTENT) - 1, 1), (7, 0)],
)
def test_any_part_of_a_file_arrives_and_the_connection_goes_on(
    offset: int, count: int, path: Path
) -> None:
    handler = sender(path, offset=offset, count=count)
    with serving({"/file": handler, "/hello": hello}) as server, server.connect() as client:
        client.send(GET + GET + HELLO)
        for _ in range(2):
            assert client.response().content == CONTENT[offset : offset + count]
        assert client.response().content == b"hello"


def test_a_file_between_other_pieces(path: Path) -> None:
    before, after = b"a" * (3 << 20), b"z" * 100
    handler = sender(path, before=before, after=after)
    with serving({"/file": handler}) as server, server.connect() as client:
        client.send(GET)
        time.sleep(0.05)
        assert client.response().content == before + CONTENT + after


def test_head_sends_no_file(path: Path) -> None:
    with (
        serving({"/file": sender(path), "/hello": hello}) as server,
        server.connect() as client,
    ):
        client.send(b"HEAD /file HTTP/1.1\r\n\r\n")
        assert client.response(bodiless=True).headers["content-length"] == str(len(CONTENT))
        assert client.get("/hello").content == b"hello"


def test_pages_that_are_not_in_memory_are_read_first(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    with serving({"/file": sender(path)}) as server, server.connect() as client:
        client.send(GET)
        assert client.response().content == CONTENT


def test_a_half_closed_client_gets_the_whole_file(path: Path) -> None:
    with serving({"/file": sender(path)}) as server, server.connect() as client:
        client.send(GET)
        client.socket.shutdown(socket.SHUT_WR)
        assert client.response().content == CONTENT
        assert client.closed()


def test_a_file_shorter_than_promised_ends_the_connection(path: Path) -> None:
    handler = sender(path, offset=len(CONTENT) - 10, count=11)
    with serving({"/file": handler}) as server, server.connect() as client:
        client.send(GET)
        with pytest.raises(ConnectionError):
            client.response()


@pytest.mark.parametrize("end", ["close", "reset"])
def test_a_client_that_leaves_within_a_file_leaves_nothing_behind(end: str, path: Path) -> None:
    errors: list[BaseException] = []
    with serving({"/file": sender(path, failed=errors.append)}) as server:
        before = descriptors()
        client = server.connect()
        client.send(GET)
        client.exactly(1 << 20)
        assert server.tasks() == 1
        if end == "close":
            client.socket.close()
        else:
            client.reset()
        until(lambda: server.tasks() == 0)
        until(lambda: descriptors() == before)
    assert len(errors) == 1
    assert isinstance(errors[0], ClientDisconnected)
    assert isinstance(errors[0], OSError)


def test_slow_readers_hold_no_thread_and_do_not_slow_a_fast_one(path: Path) -> None:
    with serving({"/file": sender(path)}) as server:
        slow = [server.connect() for _ in range(20)]
        for client in slow:
            client.send(GET)
        until(lambda: server.tasks() == 20)
        threads = threading.active_count()
        with server.connect() as fast:
            begun = time.monotonic()
            for _ in range(5):
                fast.send(GET)
                assert fast.response().content == CONTENT
            assert time.monotonic() - begun < 5
        assert threading.active_count() == threads
        for client in slow:
            client.socket.close()


def test_a_reader_that_stops_is_ended_after_the_idle_limit_and_a_slow_one_is_not(
    path: Path,
) -> None:
    limits = ConnectionLimits(idle=0.4)
    errors: list[BaseException] = []
    with serving({"/file": sender(path, failed=errors.append)}, limits=limits) as server:
        stuck, slow = server.connect(), server.connect()
        stuck.send(GET)
        slow.send(GET)
        begun = time.monotonic()
        content = b""
        while len(content) < len(CONTENT):  # takes longer than the limit, but never stops
            content += slow.exactly(min(1 << 20, len(CONTENT) - len(content)))
            time.sleep(0.05)
            if not content.startswith(b"HTTP"):
                continue
            head = content.index(b"\r\n\r\n") + 4
            content = content[head:]
        assert time.monotonic() - begun > 0.8
        assert content == CONTENT
        until(lambda: len(errors) == 1)
        assert _ends(stuck)
        slow.socket.close()
        stuck.socket.close()


def _ends(client: Client) -> bool:
    try:
        return len(client.rest()) < len(CONTENT)
    except ConnectionResetError:
        return True
