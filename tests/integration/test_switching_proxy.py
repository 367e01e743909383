"""The proxy of the conformance run: it must not lose, join or reorder what it passes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from tests.conformance.proxy import running_proxy

Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def backends(*conversations: Conversation) -> AsyncIterator[int]:
    """Backends that each hold the given conversation; gives the port of a proxy before them."""
    async with AsyncExitStack() as stack:
        ports = []
        for conversation in conversations:
            server = await asyncio.start_server(conversation, "127.0.0.1", 0)
            await stack.enter_async_context(server)
            ports.append(("127.0.0.1", server.sockets[0].getsockname()[1]))
        _, port = await stack.enter_async_context(running_proxy(ports))
        yield port


def answering(answer: bytes, *, length: int = 0) -> Conversation:
    """Reads a head and `length` bytes of body, answers, closes."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(length)
        writer.write(answer)
        await writer.drain()
        writer.close()

    return converse


async def talk(port: int, *requests: bytes) -> bytes:
    """Sends the requests on one connection and gives all that comes back until it is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"".join(requests))
    answer = await reader.read()
    writer.close()
    return answer


async def test_each_request_of_one_connection_goes_to_the_next_backend() -> None:
    first = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none")
    second = answering(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n"
    )
    get, last = b"GET /x HTTP/1.1\r\n\r\n", b"GET /x HTTP/1.1\r\nConnection: close\r\n\r\n"
    async with backends(first, second) as port:
        answer = await talk(port, get, get, last)
    bodies = [part.split(b"\r\n\r\n", 1)[1] for part in answer.split(b"HTTP/1.1 200 OK")[1:]]
    assert bodies == [b"one", b"3\r\ntwo\r\n0\r\n\r\n", b"one"]


async def test_answers_without_a_body_do_not_hold_the_connection_up() -> None:
    head = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 700\r\n\r\n")
    deleted = answering(b"HTTP/1.1 204 No Content\r\n\r\n")
    async with backends(head, deleted) as port:
        answer = await talk(
            port,
            b"HEAD /x HTTP/1.1\r\n\r\n",
            b"DELETE /x HTTP/1.1\r\n\r\n",
            b"HEAD /x HTTP/1.1\r\nConnection: close\r\n\r\n",
        )
    assert answer.count(b"HTTP/1.1 ") == 3


async def test_a_chunked_body_arrives_as_it_was_sent() -> None:
    body = b"5;x=y\r\nhello\r\n0\r\nTrailer: t\r\n\r\n"
    seen = asyncio.get_running_loop().create_future()

    async def backend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        seen.set_result(await reader.readexactly(len(body)))
        writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async with backends(backend) as port:
        await talk(port, b"PATCH /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    assert await seen == body


async def test_a_refusal_before_the_body_reaches_the_client_and_ends_the_connection() -> None:
    refused = answering(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
    async with backends(refused) as port:
        answer = await talk(port, b"PUT /x HTTP/1.1\r\nContent-Length: 1000000\r\n\r\npart of it")
    assert answer.endswith(b"\r\n\r\nno")
