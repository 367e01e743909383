"""Requests and answers on one connection, over a real socket."""

from __future__ import annotations

import asyncio
import threading

import pytest

from serving.body import BodyTooLarge
from serving.exchange import UNREAD_LIMIT
from serving.service import ConnectionLimits
from tests.unit.serving.loopback import (
    Client,
    Handler,
    Receive,
    Scope,
    Send,
    answer,
    body,
    chunked,
    echo,
    hello,
    serving,
    until,
)

GET = b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"


def put(content: bytes, *, path: bytes = b"/echo", extra: bytes = b"") -> bytes:
    return b"PUT %b HTTP/1.1\r\nHost: a\r\n%bContent-Length: %d\r\n\r\n%b" % (
        path,
        extra,
        len(content),
        content,
    )


def put_chunked(content: bytes, size: int, *, trailers: bytes = b"") -> bytes:
    head = b"PUT /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + chunked(content, size, trailers=trailers)


async def refuse(_scope: Scope, _receive: Receive, send: Send) -> None:
    """401 without a look at the body."""
    await answer(send, b"who are you?", status=401)


HANDLERS: dict[str, Handler] = {"/hello": hello, "/echo": echo, "/refuse": refuse}


def test_a_connection_is_kept_alive() -> None:
    with serving(HANDLERS) as server, server.connect() as client:
        for _ in range(3):
            response = client.get("/hello")
            assert (response.status, response.content) == (200, b"hello")
            assert response.headers["date"].endswith(" GMT")
            assert "connection" not in response.headers


def test_the_scope_is_that_of_the_asgi_specification() -> None:
    with serving(HANDLERS) as server, server.connect() as client:
        client.send(b"GET /hell%6F?x=%41 HTTP/1.1\r\nHOST: a\r\nX: y\r\n\r\n")
        assert client.response().status == 200
        scope = server.application.scopes[0]
        assert scope["method"] == "GET"
        assert scope["path"] == "/hello"
        assert scope["raw_path"] == b"/hell%6F"
        assert scope["query_string"] == b"x=%41"
        assert scope["headers"] == [(b"host", b"a"), (b"x", b"y")]
        assert scope["scheme"] == "http"
        assert scope["http_version"] == "1.1"
        assert scope["client"] == client.socket.getsockname()
        assert scope["server"] == server.address
        assert set(scope["extensions"]) == {
            "serving.request.body",
            "serving.request.gone",
            "http.response.zerocopysend",
        }


def test_pipelined_requests_are_answered_one_after_the_other() -> None:
    running = threading.Semaphore(1)

    async def alone(_scope: Scope, _receive: Receive, send: Send) -> None:
        assert running.acquire(blocking=False)
        await asyncio.sleep(0.01)
        running.release()
        await answer(send, b"alone")

    with serving({**HANDLERS, "/alone": alone}) as server, server.connect() as client:
        client.send(
            b"GET /alone HTTP/1.1\r\n\r\n" * 5 + put(b"abc") + put_chunked(b"x" * 99, 7) + GET
        )
        assert [client.response().content for _ in range(8)] == [
            *[b"alone"] * 5,
            b"abc",
            b"x" * 99,
            b"hello",
        ]


@pytest.mark.parametrize("step", [1, 2, 3, 7, 50])
def test_requests_in_pieces_of_any_size(step: int) -> None:
    requests = put(b"abcdef") + put_chunked(b"0123456789" * 3, 4, trailers=b"A: b\r\n") + GET
    with serving(HANDLERS) as server, server.connect() as client:
        for start in range(0, len(requests), step):
            client.send(requests[start : start + step])
        assert client.response().content == b"abcdef"
        assert client.response().content == b"0123456789" * 3
        assert client.response().content == b"hello"


@pytest.mark.parametrize("offset", [0, 1, 10, 8000, 15900, 300_000])
@pytest.mark.parametrize("framing", ["counted", "chunked"])
def test_a_body_that_begins_anywhere_in_the_first_packet(offset: int, framing: str) -> None:
    content = bytes(range(256)) * 1600
    request = put(content) if framing == "counted" else put_chunked(content, 32768)
    request += GET + GET
    cut = request.index(b"\r\n\r\n") + 4 + offset
    with serving(HANDLERS) as server, server.connect() as client:
        client.send(request[:cut])
        client.send(request[cut:])
        assert client.response().content == content
        assert client.response().content == b"hello"
        assert client.response().content == b"hello"


@pytest.mark.parametrize("size", [1, 3, 1000, 32768, 100_000])
def test_chunks_of_any_size(size: int) -> None:
    content = bytes(range(256)) * (8 if size < 100 else 1200)
    with serving(HANDLERS) as server, server.connect() as client:
        client.send(put_chunked(content, size, trailers=b"Digest: x\r\n") + GET)
        assert client.response().content == content
        assert client.response().content == b"hello"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (b"GET / HTTP/1.1\r\nbroken\r\n\r\n", 400),
        (b"PUT / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000, 431),
        (GET + b"nonsense\r\n\r\n", 400),
    ],
)
def test_what_is_not_http_gets_a_bare_answer_and_the_end(request_: bytes, status: int) -> None:
    with serving(HANDLERS) as server, server.connect() as client:
        client.send(request_)
        response = client.response()
        if request_.startswith(GET):
            response = client.response()
        assert response.status == status
        assert response.headers["connection"] == "close"
        assert response.headers["content-type"] == "text/plain"
        assert response.content
        assert client.closed()


def test_a_broken_chunk_is_400_and_the_end() -> None:
    with serving(HANDLERS) as server, server.connect() as client:
        client.send(b"PUT /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n" + GET)
        response = client.response()
        assert (response.status, response.headers["connection"]) == (400, "close")
        assert client.closed()


def test_a_body_over_the_readers_limit_is_413_where_the_application_does_not_mind() -> None:
    async def small(scope: Scope, _receive: Receive, _send: Send) -> None:
        await body(scope).read(10)

    with serving({"/small": small}) as server:
        for request in (
            put(b"x" * 11, path=b"/small"),
            b"PUT /small HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"x" * 11, 5),
        ):
            with server.connect() as client:
                client.send(request)
                assert client.response().status == 413
        assert all(isinstance(error, BodyTooLarge) for error in server.application.errors)


def test_http_1_0_is_answered_and_closed() -> None:
    async def stream(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (b"one ", b"two ", b"three"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    with serving({**HANDLERS, "/stream": stream}) as server:
        for path, content in ((b"/hello", b"hello"), (b"/stream", b"one two three")):
            with server.connect() as client:
                client.send(b"GET %b HTTP/1.0\r\n\r\n" % path)
                response = client.response()
                assert response.content == content
                assert response.headers["connection"] == "close"
                assert "transfer-encoding" not in response.headers
                assert client.closed()
        with server.connect() as client:
            client.send(b"GET /stream HTTP/1.1\r\n\r\n")
            response = client.response()
            assert response.headers["transfer-encoding"] == "chunked"
            assert response.content == b"one two three"
            assert client.get("/hello").content == b"hello"


def test_connection_close_is_obeyed() -> None:
    async def closing(_scope: Scope, _receive: Receive, send: Send) -> None:
        await answer(send, b"bye", headers=((b"connection", b"close"),))

    with serving({**HANDLERS, "/closing": closing}) as server:
        for request in (
            b"GET /hello HTTP/1.1\r\nConnection: close\r\n\r\n",
            b"GET /closing HTTP/1.1\r\n\r\n",
        ):
            with server.connect() as client:
                client.send(request)
                status, headers = client.head()
                assert (status, headers["connection"]) == (200, "close")
                client.exactly(int(headers["content-length"]))
                assert client.closed()


def test_an_upgrade_is_not_taken() -> None:
    with serving(HANDLERS) as server, server.connect() as client:
        client.send(
            b"GET /hello HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Key: x\r\n\r\n"
        )
        assert client.response().content == b"hello"
        assert client.get("/hello").content == b"hello"


def test_head_has_the_headers_of_get_and_no_body() -> None:
    with serving(HANDLERS) as server, server.connect() as client:
        client.send(b"HEAD /hello HTTP/1.1\r\n\r\n")
        response = client.response(bodiless=True)
        assert (response.status, response.headers["content-length"]) == (200, "5")
        assert client.get("/hello").content == b"hello"


@pytest.mark.parametrize("status", [204, 304])
def test_answers_that_have_no_body(status: int) -> None:
    async def bodiless(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(b"content-length", b"4")],
            }
        )
        await send({"type": "http.response.body", "body": b"body"})

    with serving({**HANDLERS, "/none": bodiless}) as server, server.connect() as client:
        response = client.get("/none")
        assert response.status == status
        assert ("content-length" in response.headers) == (status == 304)
        assert client.get("/hello").content == b"hello"


def test_a_body_without_length_gets_one_where_it_is_whole() -> None:
    async def whole(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"whole"})

    with serving({"/whole": whole}) as server, server.connect() as client:
        response = client.get("/whole")
        assert (response.headers["content-length"], response.content) == ("5", b"whole")


def test_an_empty_body_message_sends_the_head_at_once() -> None:
    async def watch(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        await asyncio.sleep(0.2)
        await send({"type": "http.response.body", "body": b"event"})

    with serving({"/watch": watch}) as server, server.connect() as client:
        client.send(b"GET /watch HTTP/1.1\r\n\r\n")
        client.socket.settimeout(0.15)
        status, headers = client.head()
        assert (status, headers["transfer-encoding"]) == (200, "chunked")
        client.socket.settimeout(5)
        assert client.exactly(15) == b"5\r\nevent\r\n0\r\n\r\n"


def test_a_big_answer_in_pieces_arrives_whole_at_a_slow_reader() -> None:
    content = bytes(range(256)) * 4096

    async def big(_scope: Scope, _receive: Receive, send: Send) -> None:
        length = b"%d" % (len(content) * 8)
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]}
        )
        for left in range(7, -1, -1):
            await send({"type": "http.response.body", "body": content, "more_body": left > 0})

    with serving({**HANDLERS, "/big": big}) as server, server.connect() as client:
        client.send(b"GET /big HTTP/1.1\r\n\r\n" + GET)
        assert client.response().content == content * 8
        assert client.response().content == b"hello"


@pytest.mark.parametrize("size", [0, 5, 2 << 20])
def test_a_half_closed_client_gets_the_whole_answer(size: int) -> None:
    async def late(_scope: Scope, _receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.05)
        await answer(send, b"x" * size)

    with serving({"/late": late, **HANDLERS}) as server, server.connect() as client:
        client.send(b"GET /late HTTP/1.1\r\n\r\n" + GET)
        client.socket.shutdown(1)
        assert client.response().content == b"x" * size
        assert client.response().content == b"hello"
        assert client.closed()


def test_the_plain_receive_of_asgi_works() -> None:
    events: list[str] = []

    async def plain(_scope: Scope, receive: Receive, send: Send) -> None:
        content, more = b"", True
        while more:
            message = await receive()
            content, more = content + message["body"], message["more_body"]
        await answer(send, content)
        events.append((await receive())["type"])

    with serving({"/plain": plain}) as server, server.connect() as client:
        content = b"x" * 300_000
        client.send(put(content, path=b"/plain"))
        assert client.response().content == content
        client.send(b"GET /plain HTTP/1.1\r\n\r\n")
        assert client.response().content == b""
    assert events == ["http.disconnect"] * 2


def test_a_client_that_is_gone_is_told_to_who_waits_for_it() -> None:
    events: list[str] = []

    async def wait(_scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()
        events.append((await receive())["type"])

    with serving({"/wait": wait}) as server:
        client = server.connect()
        client.send(b"GET /wait HTTP/1.1\r\n\r\n")
        until(lambda: len(server.application.scopes) == 1)
        client.reset()
        until(lambda: server.tasks() == 0)
    assert events == ["http.disconnect"]


# Errors of the application.


@pytest.mark.parametrize("started", [False, True])
def test_an_application_that_fails_before_it_answers_is_500(started: bool) -> None:
    async def broken(_scope: Scope, _receive: Receive, send: Send) -> None:
        if started:
            await send({"type": "http.response.start", "status": 200})
        raise ValueError("broken")

    with serving({"/broken": broken}) as server, server.connect() as client:
        response = client.get("/broken")
        assert (response.status, response.headers["connection"]) == (500, "close")
        assert client.closed()


@pytest.mark.parametrize("error", [ValueError, None])
def test_an_answer_that_breaks_off_ends_the_connection(error: type[Exception] | None) -> None:
    async def broken(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]}
        )
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        if error is not None:
            raise error("broken")

    with serving({"/broken": broken}) as server, server.connect() as client:
        client.send(b"GET /broken HTTP/1.1\r\n\r\n")
        with pytest.raises(ConnectionError):
            client.response()


@pytest.mark.parametrize("value", [b"a\r\nx: y", b"a\nb", b"a\rb", b"a\0b"])
def test_a_header_with_a_line_break_is_never_sent(value: bytes) -> None:
    async def injected(_scope: Scope, _receive: Receive, send: Send) -> None:
        await answer(send, b"", headers=((b"location", value),))

    with serving({"/injected": injected}) as server, server.connect() as client:
        response = client.get("/injected")
        assert response.status == 500
        assert "location" not in response.headers


@pytest.mark.parametrize("content", [b"long", b"longer"])
def test_a_body_of_the_wrong_length_is_an_error(content: bytes) -> None:
    async def wrong(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]}
        )
        await send({"type": "http.response.body", "body": content})

    with serving({"/wrong": wrong}) as server, server.connect() as client:
        assert client.get("/wrong").status == 500


# Expect: 100-continue, and bodies that nobody wants.


def expecting(content: bytes, path: bytes) -> tuple[bytes, bytes]:
    request = put(content, path=path, extra=b"Expect: 100-continue\r\n")
    return request[: -len(content)], content


def test_100_continue_is_sent_when_the_body_is_asked_for() -> None:
    with serving(HANDLERS) as server, server.connect() as client:
        head, content = expecting(b"content", b"/echo")
        client.send(head)
        assert client.head() == (100, {})
        client.send(content)
        assert client.response().content == b"content"
        assert client.get("/hello").content == b"hello"


def test_a_client_that_did_not_wait_is_not_told_to_continue() -> None:
    with serving(HANDLERS) as server, server.connect() as client:
        client.send(b"".join(expecting(b"content", b"/echo")))
        assert client.response().content == b"content"


def test_a_refused_request_is_never_told_to_continue() -> None:
    with serving(HANDLERS) as server, server.connect() as client:
        client.send(expecting(b"content", b"/refuse")[0])
        response = client.response()
        assert (response.status, response.headers["connection"]) == (401, "close")
        assert response.content == b"who are you?"
        assert client.closed()


@pytest.mark.parametrize("size", [10, 100_000, UNREAD_LIMIT // 2])
@pytest.mark.parametrize("framing", ["counted", "chunked"])
def test_a_small_body_that_was_refused_is_read_over(size: int, framing: str) -> None:
    request = put(b"x" * size) if framing == "counted" else put_chunked(b"x" * size, 1000)
    request = request.replace(b"/echo", b"/refuse")
    with serving(HANDLERS) as server, server.connect() as client:
        client.send(request[:200])
        response = client.response()
        assert response.content == b"who are you?"
        assert "connection" not in response.headers
        client.send(request[200:])
        assert client.get("/hello").content == b"hello"


@pytest.mark.parametrize("framing", ["counted", "chunked"])
def test_a_big_body_that_was_refused_is_cut_off_but_the_answer_arrives(framing: str) -> None:
    content = b"x" * (30 << 20)
    request = put(content) if framing == "counted" else put_chunked(content, 32768)
    limits = ConnectionLimits(linger=0.3)
    with serving(HANDLERS, limits=limits) as server, server.connect() as client:
        failed = _send_in_thread(client, request.replace(b"/echo", b"/refuse"))
        response = client.response()
        assert (response.status, response.content) == (401, b"who are you?")
        assert ("connection" in response.headers) == (framing == "counted")
        assert client.closed()
        client.socket.close()
        failed.join(10)


def _send_in_thread(client: Client, content: bytes) -> threading.Thread:
    def send() -> None:
        try:
            client.send(content)
        except OSError:
            return

    thread = threading.Thread(target=send)
    thread.start()
    return thread
