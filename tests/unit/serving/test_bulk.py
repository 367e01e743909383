"""Big bodies: from the socket to the sink, past the loop."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.body import BodyInvalid, ClientDisconnected
from serving.bulk import BUFFER, bulk_threads
from serving.service import ConnectionLimits
from tests.unit.serving.loopback import (
    Authority,
    Client,
    Handler,
    Loopback,
    Receive,
    Scope,
    Send,
    answer,
    body,
    chunked,
    descriptors,
    digest,
    echo,
    expected_digest,
    hello,
    serving,
    until,
)

GET = b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"
BIG = bytes(range(251)) * 40_000
"""10 MB"""


class Recorder:
    """A sink that keeps what it got; `pump` answers with what came of it."""

    def __init__(self) -> None:
        self.pieces: list[int] = []
        self.digest = hashlib.sha256()
        self.error: BaseException | None = None
        self.fail_after: int | None = None
        self.threads: set[str] = set()

    def __call__(self, piece: memoryview) -> None:
        self.threads.add(threading.current_thread().name)
        if self.fail_after is not None and self.size >= self.fail_after:
            raise OSError(28, "no space")
        self.digest.update(piece)
        self.pieces.append(len(piece))

    @property
    def size(self) -> int:
        return sum(self.pieces)

    async def pump(self, scope: Scope, _receive: Receive, send: Send) -> None:
        try:
            size = await body(scope).pump(self)
        except BaseException as error:
            self.error = error
            if isinstance(error, OSError) and not isinstance(error, ClientDisconnected):
                await answer(send, b"full", status=507)
                return
            raise
        assert size == self.size == body(scope).received
        await answer(send, self.digest.hexdigest().encode())


def head(length: int | None, path: str = "/pump") -> bytes:
    framing = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
    return b"PATCH %b HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n" % (path.encode(), framing)


def handlers(recorder: Recorder) -> dict[str, Handler]:
    return {"/pump": recorder.pump, "/digest": digest, "/hello": hello, "/echo": echo}


@contextlib.contextmanager
def recording(**options: object) -> Iterator[tuple[Loopback, Recorder]]:
    recorder = Recorder()
    with serving(handlers(recorder), **options) as server:  # type: ignore[arg-type]  # passed on
        yield server, recorder


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.in_folder(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize("transport", ["plain", "tls"])
@pytest.mark.parametrize("chunk", [None, 1000, 32768, 3_000_000])
def test_50_mb_arrive_whole_and_the_connection_goes_on(
    transport: str, chunk: int | None, authority: Authority
) -> None:
    content = BIG * 5
    coded = content if chunk is None else chunked(content, chunk)
    tls = transport == "tls"
    with (
        serving(handlers(Recorder()), tls=authority.context() if tls else None) as server,
        server.connect(authority.client() if tls else None) as client,
    ):
        client.send(head(None if chunk else len(content), "/digest") + coded + GET + GET)
        response = client.response()
        assert (response.status, response.content) == (201, expected_digest(content))
        assert client.response().content == b"hello"
        assert client.response().content == b"hello"


@pytest.mark.parametrize("chunk", [None, 32768])
def test_the_sink_gets_big_pieces_in_a_worker_thread(chunk: int | None) -> None:
    content = BIG
    with recording() as (server, recorder), server.connect() as client:
        client.send(head(None if chunk else len(content)))
        client.send(content if chunk is None else chunked(content, chunk))
        assert client.response().content == hashlib.sha256(content).hexdigest().encode()
        assert max(recorder.pieces) <= BUFFER
        assert len(recorder.pieces) <= 3 * len(content) // BUFFER
        assert all(name.startswith("bulk") for name in recorder.threads)


@pytest.mark.parametrize("size", [0, 1, 70_000, 300_000])
@pytest.mark.parametrize("framing", ["counted", "chunked"])
def test_a_body_that_came_with_its_head_is_pumped(size: int, framing: str) -> None:
    content = BIG[:size]
    with recording() as (server, recorder), server.connect() as client:
        if framing == "counted":
            client.send(head(size) + content + GET)
        else:
            client.send(head(None) + chunked(content, 4096, trailers=b"A: b\r\n") + GET)
        assert client.response().content == hashlib.sha256(content).hexdigest().encode()
        assert recorder.size == size
        assert client.response().content == b"hello"


@pytest.mark.parametrize("offset", [0, 1, 10, 8000, 15_900])
@pytest.mark.parametrize("chunk", [None, 1, 7, 4096, 100_000])
def test_the_end_is_found_wherever_the_packets_are_cut(offset: int, chunk: int | None) -> None:
    content = BIG[: 40_000 if chunk in (1, 7) else 400_000]
    coded = content if chunk is None else chunked(content, chunk, trailers=b"A: b\r\n")
    with recording() as (server, _), server.connect() as client:
        first = head(None if chunk else len(content)) + coded[:offset]
        client.send(first)
        time.sleep(0.02)
        client.send(coded[offset:-3])
        time.sleep(0.02)
        client.send(coded[-3:] + GET + GET)
        assert client.response().content == hashlib.sha256(content).hexdigest().encode()
        assert client.response().content == b"hello"
        assert client.response().content == b"hello"


def test_what_was_gathered_in_vain_is_pumped_too() -> None:
    async def gathered(scope: Scope, _receive: Receive, send: Send) -> None:
        assert await body(scope).gather(1000) is None
        assert body(scope).received == 0
        await digest(scope, _receive, send)

    with serving({"/gathered": gathered}) as server, server.connect() as client:
        content = BIG[:500_000]
        for coded, length in ((content, len(content)), (chunked(content, 999), None)):
            client.send(head(length, "/gathered") + coded)
            assert client.response().content == expected_digest(content)


def test_slow_senders_hold_no_thread() -> None:
    with recording() as (server, _):
        slow = [server.connect() for _ in range(2 * bulk_threads())]
        going = threading.Event()
        going.set()

        def trickle() -> None:
            for client in slow:
                client.send(head(1 << 20, "/digest"))
            while going.is_set():
                for client in slow:
                    client.send(b"x" * 1000)
                time.sleep(0.005)

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            until(lambda: len(server.application.scopes) == len(slow))
            with server.connect() as fast:
                content = BIG * 5
                begun = time.monotonic()
                fast.send(head(len(content), "/digest") + content)
                assert fast.response().content == expected_digest(content)
                assert time.monotonic() - begun < 3
                assert fast.get("/hello").content == b"hello"
        finally:
            going.clear()
            thread.join()
            for client in slow:
                client.socket.close()
        until(lambda: server.tasks() == 0)
        workers = [one for one in threading.enumerate() if one.name.startswith("bulk")]
        assert len(workers) <= bulk_threads()


def test_a_body_in_many_small_packets_is_pumped_to_its_end() -> None:
    with recording() as (server, _), server.connect() as client:
        content = BIG[:3000]
        for coded, length in ((content, 3000), (chunked(content, 100), None)):
            client.send(head(length, "/digest"))
            for start in range(0, len(coded), 97):
                client.send(coded[start : start + 97])
                time.sleep(0.001)
            assert client.response().content == expected_digest(content)


@pytest.mark.parametrize("transport", ["plain", "tls"])
@pytest.mark.parametrize("end", ["close", "reset", "half-close"])
def test_a_client_that_leaves_within_its_body_leaves_nothing_behind(
    transport: str, end: str, authority: Authority
) -> None:
    tls = transport == "tls"
    with recording(tls=authority.context() if tls else None) as (server, recorder):
        before = descriptors()
        client = server.connect(authority.client() if tls else None)
        client.send(head(len(BIG)) + BIG[: 3 << 20])
        until(lambda: recorder.size > 1 << 20)
        if end == "close":
            client.socket.close()
        elif end == "reset":
            client.reset()
        elif tls:
            client.socket.shutdown(1)
        else:
            client.socket.shutdown(1)
            assert client.closed()
        until(lambda: server.tasks() == 0)
        client.socket.close()
        assert isinstance(recorder.error, ClientDisconnected)
        if end == "half-close":
            assert recorder.size == 3 << 20, "what came is given to the sink"
        until(lambda: descriptors() == before)


def test_a_sink_that_fails_ends_the_pump_and_the_answer_arrives() -> None:
    with recording() as (server, recorder):
        recorder.fail_after = 2 << 20
        with server.connect() as client:
            content = BIG
            client.send(head(len(content)) + content[: 4 << 20])
            response = client.response()
            assert (response.status, response.content) == (507, b"full")
            assert client.closed()
        recorder.pieces.clear()
        with server.connect() as client:  # little was left: the connection goes on
            client.send(head(5 << 19) + BIG[: 5 << 19] + GET)
            assert client.response().status == 507
            assert client.response().content == b"hello"


@pytest.mark.parametrize("transport", ["plain", "tls"])
def test_broken_chunks_within_a_pump_are_400(transport: str, authority: Authority) -> None:
    tls = transport == "tls"
    context, limits = (authority.context() if tls else None), ConnectionLimits(linger=0.3)
    with (
        recording(tls=context, limits=limits) as (server, recorder),
        server.connect(authority.client() if tls else None) as client,
    ):
        client.send(head(None) + chunked(BIG, 32768)[: 2 << 20] + b"nonsense" * 10_000)
        assert client.response().status == 400
        assert isinstance(recorder.error, BodyInvalid)
        assert client.closed()


def test_a_cancelled_pump_is_left_by_its_worker_before_the_caller_goes_on() -> None:
    inside = threading.Event()
    calls: list[float] = []
    ended: list[float] = []

    def sink(_piece: memoryview) -> None:
        inside.set()
        time.sleep(0.3)
        calls.append(time.monotonic())

    async def cancelled(scope: Scope, _receive: Receive, _send: Send) -> None:
        pumping = asyncio.ensure_future(body(scope).pump(sink))
        await asyncio.to_thread(inside.wait)
        pumping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await pumping
        ended.append(time.monotonic())

    with serving({"/cancelled": cancelled, "/hello": hello}) as server:
        before = descriptors()
        with server.connect() as client:
            client.send(head(len(BIG), "/cancelled") + BIG[: 2 << 20])
            assert client.closed()
        until(lambda: server.tasks() == 0)
        time.sleep(0.1)
        assert len(calls) == 1
        assert calls[0] <= ended[0]
        until(lambda: descriptors() == before)


def test_100_continue_goes_out_before_a_pump_reads() -> None:
    with recording() as (server, _), server.connect() as client:
        content = BIG
        request = head(len(content)).replace(b"Host: a", b"Expect: 100-continue")
        client.send(request)
        assert client.head() == (100, {})
        client.send(content)
        assert client.response().content == hashlib.sha256(content).hexdigest().encode()


def test_tls_refuses_what_is_not_tls_and_serves_on(authority: Authority, tmp_path: Path) -> None:
    with recording(tls=authority.context()) as (server, _):
        with server.connect() as client:
            client.send(GET)
            client.socket.recv(100)
        with server.connect(authority.client()) as client:
            assert isinstance(client.socket, ssl.SSLSocket)
            assert client.get("/hello").content == b"hello"
            assert server.application.scopes[0]["scheme"] == "https"
            extensions = set(server.application.scopes[0]["extensions"])
            assert extensions == {"serving.request.body", "serving.request.gone"}


def test_many_senders_at_once_arrive_whole() -> None:
    with recording() as (server, _):
        results: list[bool] = []

        def push(client: Client, content: bytes) -> None:
            coded = chunked(content, 32768) if len(results) % 2 else content
            length = None if coded is not content else len(content)
            client.send(head(length, "/digest") + coded)
            results.append(client.response().content == expected_digest(content))
            client.socket.close()

        threads = [
            threading.Thread(target=push, args=(server.connect(), BIG[index : 5 << 20]))
            for index in range(12)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [True] * 12
