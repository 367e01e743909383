"""Time limits: none on a whole request, all on standing still."""

from __future__ import annotations

import asyncio
import time

import pytest

from serving.body import BodyTimeout
from serving.service import ConnectionLimits
from tests.unit.serving.loopback import (
    Client,
    Handler,
    Receive,
    Scope,
    Send,
    answer,
    body,
    digest,
    echo,
    expected_digest,
    hello,
    serving,
    until,
)

LONG = 60.0
GET = b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"


def limits(
    *, head: float = LONG, keep_alive: float = LONG, idle: float = LONG, linger: float = LONG
) -> ConnectionLimits:
    return ConnectionLimits(head=head, keep_alive=keep_alive, idle=idle, linger=linger)


HANDLERS: dict[str, Handler] = {"/hello": hello, "/echo": echo, "/digest": digest}


def seconds_to_close(client: Client) -> float:
    begun = time.monotonic()
    assert client.closed()
    return time.monotonic() - begun


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP", b"GET / HTTP/1.1\r\nA: b\r\n"])
def test_a_head_that_does_not_end_in_time_is_cut_off(begun: bytes) -> None:
    with serving(HANDLERS, limits=limits(head=0.3)) as server, server.connect() as client:
        client.send(begun)
        assert 0.15 < seconds_to_close(client) < 2


def test_a_head_that_trickles_in_is_cut_off_too() -> None:
    with serving(HANDLERS, limits=limits(head=0.3)) as server, server.connect() as client:
        assert client.get("/hello").status == 200
        time.sleep(0.5)  # between requests only the other limit counts
        begun = time.monotonic()
        with pytest.raises(OSError):
            for byte in GET * 100:
                client.send(bytes([byte]))
                time.sleep(0.02)
                if byte == 10:
                    break
            client.send(b"A: b\r\n")
            while time.monotonic() - begun < 2:
                time.sleep(0.02)
                client.send(b"x")
        assert time.monotonic() - begun < 2


def test_an_idle_connection_is_closed_after_its_own_limit() -> None:
    with serving(HANDLERS, limits=limits(keep_alive=0.3)) as server:
        with server.connect() as client:
            for _ in range(4):
                assert client.get("/hello").status == 200
                time.sleep(0.1)
            assert seconds_to_close(client) < 2
        with server.connect() as fresh:  # has not been idle between requests yet
            time.sleep(0.6)
            assert fresh.get("/hello").status == 200


def test_a_request_that_is_worked_on_is_not_limited() -> None:
    async def working(_scope: Scope, _receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.8)
        await answer(send, b"done")

    short = limits(head=0.2, keep_alive=0.2, idle=0.2, linger=0.2)
    with serving({"/working": working}, limits=short) as server, server.connect() as client:
        client.send(b"PUT /working HTTP/1.1\r\nContent-Length: 5\r\n\r\nhell")
        assert client.response().content == b"done"


@pytest.mark.parametrize("path", ["/echo", "/digest"])
@pytest.mark.parametrize("sent", [0, 5, 200_000])
def test_a_body_that_stops_is_a_timeout_for_the_application(path: str, sent: int) -> None:
    with serving(HANDLERS, limits=limits(idle=0.3)) as server, server.connect() as client:
        head = b"PUT %b HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n" % path.encode()
        client.send(head + b"x" * sent)
        response = client.response()
        assert (response.status, response.headers["connection"]) == (408, "close")
        assert client.closed()
        assert [type(error) for error in server.application.errors] == [BodyTimeout]


@pytest.mark.parametrize("path", ["/echo", "/digest"])
def test_a_body_that_trickles_in_is_not_limited(path: str) -> None:
    content = b"x" * 30
    with serving(HANDLERS, limits=limits(idle=0.3)) as server, server.connect() as client:
        client.send(b"PUT %b HTTP/1.1\r\nContent-Length: 30\r\n\r\n" % path.encode())
        for byte in content:
            client.send(bytes([byte]))
            time.sleep(0.03)
        expected = content if path == "/echo" else expected_digest(content)
        assert client.response().content == expected


def test_a_body_that_the_application_does_not_ask_for_is_not_limited() -> None:
    async def thinking(scope: Scope, _receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.6)
        await answer(send, await body(scope).read(100))

    short = limits(idle=0.2)
    with serving({"/slow": thinking}, limits=short) as server, server.connect() as client:
        client.send(b"PUT /slow HTTP/1.1\r\nContent-Length: 4\r\n\r\n")
        time.sleep(0.7)
        client.send(b"body")
        assert client.response().content == b"body"


def test_a_client_that_does_not_read_its_answer_is_cut_off() -> None:
    async def big(_scope: Scope, _receive: Receive, send: Send) -> None:
        await answer(send, b"x" * (30 << 20))

    with serving({"/big": big}, limits=limits(idle=0.4)) as server, server.connect() as client:
        client.send(b"GET /big HTTP/1.1\r\n\r\n")
        time.sleep(2)
        with pytest.raises(ConnectionError):
            client.response()


def test_a_client_that_reads_slowly_gets_its_answer() -> None:
    content = b"x" * (20 << 20)

    async def big(_scope: Scope, _receive: Receive, send: Send) -> None:
        await answer(send, content)

    with serving({"/big": big}, limits=limits(idle=0.4)) as server, server.connect() as client:
        client.send(b"GET /big HTTP/1.1\r\n\r\n")
        status, _ = client.head()
        assert status == 200
        got = 0
        while got < len(content):
            got += len(client.exactly(min(1 << 20, len(content) - got)))
            time.sleep(0.06)


def test_a_client_that_goes_on_sending_an_unwanted_body_is_cut_off() -> None:
    async def refuse(_scope: Scope, _receive: Receive, send: Send) -> None:
        await answer(send, b"no", status=403)

    with serving({"/refuse": refuse}, limits=limits(linger=0.3)) as server:
        with server.connect() as client:
            client.send(b"PUT /refuse HTTP/1.1\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 100)
            assert client.response().status == 403
            client.send(b"x" * 5)
            assert seconds_to_close(client) < 0.2, "the server has closed its side at once"
            with pytest.raises(OSError):
                for _ in range(100):
                    client.send(b"x" * 100_000)
                    time.sleep(0.02)
        with server.connect() as client:
            client.send(b"PUT /refuse HTTP/1.1\r\nContent-Length: 90000\r\n\r\n" + b"x" * 100)
            assert client.response().status == 403
            assert 0.1 < seconds_to_close(client) < 2


def test_a_ticker_does_not_hold_what_is_gone() -> None:
    with serving(HANDLERS, limits=limits(idle=0.2)) as server:
        for _ in range(5):
            with server.connect() as client:
                client.send(b"PUT /digest HTTP/1.1\r\nContent-Length: 5\r\n\r\nab")
        until(lambda: server.tasks() == 0)
