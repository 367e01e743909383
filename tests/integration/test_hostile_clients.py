"""Clients that leave, stall, flood or ignore what they are told: they get what they deserve, and
the others notice nothing."""

# The plain HTTP client may block the loop: nothing else that the test waits for runs on it then.
# ruff: noqa: ASYNC212

from __future__ import annotations

import asyncio
import json
import random
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from oci.descriptor import OCI_MANIFEST
from oci.digest import Digest
from tests.e2e.server import Server, running_server
from tests.fakes.images import descriptor, image
from tests.integration.api import new_name, push_blob, push_image, push_manifest, refused, start
from tests.load.fuzz_calls import Call, chunks_of, head_of
from tests.load.fuzz_process import Footprint, faults_in_log
from tests.load.fuzz_wire import Answer, NoAnswer, Peer

MIB = 1 << 20
CONTENT = random.Random(9).randbytes(50 * MIB)
PIECE = 64 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("hostile")
    with running_server(
        storage=folder / "data",
        log=folder / "log",
        secret="s",
        host="127.0.0.1",
        extra={"REGISTRY_LOG_ACCESSLOG_DISABLED": "false", "REGISTRY_LOG_FORMATTER": "json"},
    ) as running:
        yield running


@pytest.fixture
def peers(server: Server) -> Iterator[list[Peer]]:
    """Connections to be closed in the end."""
    made: list[Peer] = []
    yield made
    for peer in made:
        peer.close()


async def connect(server: Server, peers: list[Peer]) -> Peer:
    peer = Peer(server.port)
    peers.append(peer)
    await peer.open()
    return peer


async def until(holds: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it does not come to that"
        await asyncio.sleep(0.05)


def access_line(server: Server, request: str) -> dict[str, Any] | None:
    """The line of the request with that id."""
    for line in server.log.read_text().splitlines():
        if request in line:
            entry: dict[str, Any] = json.loads(line)
            if entry.get("http.request.id") == request and "http.response.status" in entry:
                return entry
    return None


async def logged(server: Server, request: str) -> dict[str, Any]:
    await until(lambda: access_line(server, request))
    entry = access_line(server, request)
    assert entry is not None
    return entry


def descriptors(server: Server) -> int:
    return Footprint.of(server.pid).descriptors


def new_id() -> str:
    return f"h-{random.randrange(1 << 60)}"


# Clients that leave.


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("way", ["reset", "close", "half-close"])
async def test_a_push_that_is_cut_goes_on_where_the_upload_stands(
    server: Server, client: httpx.Client, peers: list[Peer], chunked: bool, way: str
) -> None:
    name, request = new_name(), new_id()
    location = start(client, name)
    before = descriptors(server)
    peer = await connect(server, peers)
    call = Call("PATCH", location, body=CONTENT, chunked=chunked)
    body = chunks_of(CONTENT, random.Random(1)) if chunked else CONTENT
    sent = 20 * MIB
    data = head_of(call.with_header("X-Request-Id", request)) + body[:sent]
    await peer.send([data])
    if way == "reset":
        peer.reset()
    elif way == "close":
        peer.close()
    else:
        peer.half_close()
        assert await peer.ended() == b""
        peer.close()

    assert (await logged(server, request))["http.response.status"] == 499
    status = client.get(location.partition("?")[0])
    assert status.status_code == 204
    size = int(status.headers["range"].removeprefix("0-")) + 1
    assert 1 < size <= sent
    headers = {"Content-Range": f"{size}-{len(CONTENT) - 1}"}
    answer = client.patch(location, content=CONTENT[size:], headers=headers)
    assert answer.status_code == 202, answer.text
    digest = Digest.of(CONTENT)
    answer = client.put(f"{answer.headers['location']}&digest={digest}")
    assert answer.status_code == 201
    assert Digest.of(client.get(answer.headers["location"]).content) == digest
    await until(lambda: descriptors(server) <= before)


@pytest.mark.parametrize("way", ["reset", "close"])
async def test_a_pull_that_is_cut_leaves_nothing(
    server: Server, client: httpx.Client, peers: list[Peer], way: str
) -> None:
    name, request = new_name(), new_id()
    digest = push_blob(client, name, CONTENT)
    before = descriptors(server)
    with socket.create_connection(("127.0.0.1", server.port)) as wire:
        call = Call("GET", f"/v2/{name}/blobs/{digest}").with_header("X-Request-Id", request)
        wire.sendall(head_of(call))
        taken = 0
        while taken < MIB:
            taken += len(wire.recv(PIECE))
        if way == "reset":
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert (await logged(server, request))["http.response.status"] == 499
    await until(lambda: descriptors(server) <= before)


async def test_clients_that_leave_are_no_error_of_the_server(
    server: Server, client: httpx.Client, peers: list[Peer]
) -> None:
    begun = server.log.stat().st_size
    for way in ("reset", "close", "half-close"):
        request = new_id()
        peer = await connect(server, peers)
        call = Call("PATCH", start(client, new_name()), body=bytes(1000))
        data = head_of(call.with_header("X-Request-Id", request)) + bytes(500)
        await peer.send([data])
        if way == "reset":
            peer.reset()
        elif way == "close":
            peer.close()
        else:
            peer.half_close()
            assert await peer.ended() == b""
        assert (await logged(server, request))["http.response.status"] == 499
    await asyncio.sleep(0.1)
    assert list(faults_in_log(server.log, begun)) == []


# Clients that do nothing, or next to nothing.


@pytest.mark.timeout(90)
async def test_silent_clients_and_slow_heads_are_closed_and_disturb_nobody(
    server: Server, client: httpx.Client, peers: list[Peer]
) -> None:
    """200 connections that say nothing, and 50 that send their head byte by byte: gone after the 30
    s that a head may take."""
    name = new_name()
    digest = push_blob(client, name, b"content")
    before = descriptors(server)
    begun = time.monotonic()
    silent = [await connect(server, peers) for _ in range(200)]
    slow = [await connect(server, peers) for _ in range(50)]
    head = head_of(Call("GET", "/v2/").with_header("X", "y" * 5000))
    longest = 0.0
    for position in range(len(head)):
        for peer in slow:
            await peer.send([head[position : position + 1]])
        asked = time.monotonic()
        answer = client.get(f"/v2/{name}/blobs/{digest}")
        longest = max(longest, time.monotonic() - asked)
        assert answer.content == b"content"
        if descriptors(server) <= before:
            break
        await asyncio.sleep(0.5)
    taken = time.monotonic() - begun
    assert 28 < taken < 45
    assert longest < 2
    for peer in (*silent, *slow):
        assert await peer.ended() == b""


async def test_clients_that_never_read_cost_neither_memory_nor_the_time_of_others(
    server: Server, client: httpx.Client
) -> None:
    name = new_name()
    digest = push_blob(client, name, CONTENT + CONTENT)
    other = push_blob(client, name, b"small")
    before = Footprint.of(server.pid)
    wires = []
    try:
        for _ in range(20):
            wire = socket.create_connection(("127.0.0.1", server.port))
            wires.append(wire)
            wire.sendall(head_of(Call("GET", f"/v2/{name}/blobs/{digest}")))
        await asyncio.sleep(0.5)
        for _ in range(50):
            asked = time.monotonic()
            assert client.get(f"/v2/{name}/blobs/{other}").content == b"small"
            push_blob(client, name, b"another")
            assert time.monotonic() - asked < 2
        assert Footprint.of(server.pid).memory < before.memory + 32 * MIB
        assert Digest.of(client.get(f"/v2/{name}/blobs/{digest}").content) == digest
    finally:
        for wire in wires:
            wire.close()
    await until(lambda: descriptors(server) <= before.descriptors)


async def test_one_byte_chunks_make_a_blob(
    server: Server, client: httpx.Client, peers: list[Peer]
) -> None:
    """20 000 chunks of one byte in one request, then 200 requests of one byte each."""
    name, content = new_name(), CONTENT[:20_200]
    location = start(client, name)
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in content[:20_000]) + b"0\r\n\r\n"
    peer = await connect(server, peers)
    head = head_of(Call("PATCH", location, body=b"", chunked=True))
    await peer.send([head, *(chunks[at : at + 1000] for at in range(0, len(chunks), 1000))])
    answer = await peer.answer("PATCH")
    assert answer is not None and answer.status == 202
    location = str(answer.header("location"))
    for byte in content[20_000:]:
        patched = client.patch(location, content=bytes([byte]))
        assert patched.status_code == 202
        location = patched.headers["location"]
    digest = Digest.of(content)
    assert client.put(f"{location}&digest={digest}").status_code == 201
    assert client.get(f"/v2/{name}/blobs/{digest}").content == content


# Refusals before the body.


def error_of(answer: Answer | None) -> tuple[int, str]:
    assert answer is not None
    return answer.status, json.loads(answer.body)["errors"][0]["code"]


def refusals(client: httpx.Client, size: int) -> dict[str, tuple[Call, int, str]]:
    """Requests with a body that nobody wants, by their reason."""
    name = new_name()
    old = start(client, name)
    location = client.patch(old, content=b"12345").headers["location"]
    body = bytes(size)
    return {
        "no such path": (Call("PUT", "/v2/a/nothing", body=body), 404, "NAME_UNKNOWN"),
        "wrong method": (Call("PUT", f"/v2/{name}/blobs/uploads/", body=body), 405, "UNSUPPORTED"),
        "wrong state": (Call("PATCH", f"{location}x", body=body), 404, "BLOB_UPLOAD_INVALID"),
        "old offset": (Call("PATCH", old, body=body), 416, "RANGE_INVALID"),
        "another offset": (
            Call("PATCH", location, ((b"Content-Range", b"9-%d" % (size + 8)),), body),
            416,
            "RANGE_INVALID",
        ),
        "no digest": (Call("PUT", location, body=body), 400, "DIGEST_INVALID"),
        "wrong type": (
            Call("PATCH", location, ((b"Content-Type", b"text/plain"),), body),
            400,
            "BLOB_UPLOAD_INVALID",
        ),
    }


async def test_a_client_that_expects_100_is_refused_without_it(
    server: Server, client: httpx.Client, peers: list[Peer]
) -> None:
    cases = refusals(client, 900_000)
    too_large = Call("PUT", f"/v2/{new_name()}/manifests/t", body=bytes(4 * MIB + 1))
    cases["too large"] = (too_large, 413, "MANIFEST_INVALID")
    for reason, (call, status, code) in cases.items():
        peer = await connect(server, peers)
        expecting = Call(call.method, call.target, call.headers, call.body, expects=True)
        await peer.send([head_of(expecting)])
        answer = await peer.answer(call.method, interim=True)
        assert error_of(answer) == (status, code), reason
        assert answer is not None and answer.closes, reason
        assert await peer.ended() == b"", reason


async def test_a_client_that_expects_100_gets_it_where_its_body_is_wanted(
    server: Server, client: httpx.Client, peers: list[Peer]
) -> None:
    name, content = new_name(), CONTENT[:900_000]
    digest = Digest.of(content)
    peer = await connect(server, peers)
    for _ in range(2):
        target = f"{start(client, name)}&digest={digest}"
        call = Call("PUT", target, body=content, expects=True)
        await peer.send([head_of(call)])
        interim = await peer.answer("PUT", interim=True)
        assert interim is not None and interim.status == 100
        await peer.send([content])
        answer = await peer.answer("PUT")
        assert answer is not None and answer.status == 201 and not answer.closes


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_an_early_refusal_reaches_a_client_that_sends_all_before_it_reads(
    server: Server, client: httpx.Client, peers: list[Peer], chunked: bool
) -> None:
    for reason, (call, status, code) in refusals(client, 900_000).items():
        assert call.body is not None
        peer = await connect(server, peers)
        sent = Call(call.method, call.target, call.headers, call.body, chunked)
        body = chunks_of(call.body, random.Random(2)) if chunked else call.body
        await peer.send([head_of(sent), body])
        await asyncio.sleep(0.05)
        assert error_of(await peer.answer(call.method)) == (status, code), reason


@pytest.mark.parametrize("size", [5 * MIB, 50 * MIB])
async def test_an_early_refusal_reaches_a_client_that_reads_while_it_sends(
    server: Server, client: httpx.Client, peers: list[Peer], size: int
) -> None:
    """As Go's client does. The rest of its body is not wanted: the server ends the connection."""
    before = descriptors(server)
    cases = refusals(client, size)
    too_large = Call("PUT", f"/v2/{new_name()}/manifests/t", body=bytes(size))
    cases["too large"] = (too_large, 413, "MANIFEST_INVALID")

    async def refuse(call: Call, status: int, code: str) -> None:
        peer = await connect(server, peers)
        sending = asyncio.create_task(peer.send([head_of(call), call.body or b""]))
        assert error_of(await peer.answer(call.method)) == (status, code), call.target
        await asyncio.wait_for(sending, 10)
        await peer.ended()
        peer.close()

    await asyncio.gather(*(refuse(*case) for case in cases.values()))
    await until(lambda: descriptors(server) <= before + 1)  # the test's own client


async def test_a_connection_goes_on_after_a_refusal_with_a_body_of_moderate_size(
    server: Server, client: httpx.Client, peers: list[Peer]
) -> None:
    peer = await connect(server, peers)
    for reason, (call, status, code) in refusals(client, 200_000).items():
        assert call.body is not None
        await peer.send([head_of(call), call.body])
        answer = await peer.answer(call.method)
        assert error_of(answer) == (status, code), reason
        assert answer is not None and not answer.closes
    await peer.send([head_of(Call("GET", "/v2/"))])
    answer = await peer.answer("GET")
    assert answer is not None and answer.status == 200


# Ways to speak HTTP.


async def test_pipelined_requests_are_answered_in_their_order(
    server: Server, client: httpx.Client, peers: list[Peer]
) -> None:
    name = new_name()
    push_image(client, name, "t")
    digest = push_blob(client, name, CONTENT[:MIB])
    calls = [
        Call("GET", f"/v2/{name}/blobs/{digest}"),
        Call("HEAD", f"/v2/{name}/blobs/{digest}"),
        Call("PATCH", f"/v2/{name}/blobs/uploads/x", body=b"refused"),
        Call("POST", f"/v2/{name}/blobs/uploads/?digest={Digest.of(b'p')}", body=b"p"),
        Call("GET", f"/v2/{name}/manifests/t"),
        Call("GET", f"/v2/{name}/tags/list"),
    ] * 5
    data = b"".join(
        head_of(call.with_header("X-Request-Id", f"p-{index}")) + (call.body or b"")
        for index, call in enumerate(calls)
    )
    peer = await connect(server, peers)
    sending = asyncio.create_task(peer.send([data]))
    for index, call in enumerate(calls):
        answer = await peer.answer(call.method)
        assert answer is not None
        assert answer.header("x-request-id") == f"p-{index}"
        wanted = {"PATCH": 404, "POST": 201}.get(call.method, 200)
        assert answer.status == wanted
    await sending


async def test_an_old_http_client_can_push_and_pull(
    server: Server, client: httpx.Client, peers: list[Peer]
) -> None:
    """HTTP/1.0: each answer ends with the connection, also where the client would keep it."""
    name, content = new_name(), CONTENT[:MIB]
    digest = Digest.of(content)
    push = Call("POST", f"/v2/{name}/blobs/uploads/?digest={digest}", body=content)
    pull = Call("GET", f"/v2/{name}/blobs/{digest}", ((b"Connection", b"keep-alive"),))
    for call, status in ((push, 201), (pull, 200)):
        peer = await connect(server, peers)
        await peer.send([head_of(call, version="HTTP/1.0"), call.body or b""])
        answer = await peer.answer(call.method)
        assert answer is not None and answer.status == status
        assert answer.closes
        assert await peer.ended() == b""
        assert call.method == "POST" or answer.body == content


async def test_a_client_that_has_no_more_to_say_still_gets_its_answer(
    server: Server, client: httpx.Client, peers: list[Peer]
) -> None:
    name, content = new_name(), CONTENT[: 8 * MIB]
    digest = push_blob(client, name, content)
    peer = await connect(server, peers)
    await peer.send([head_of(Call("GET", f"/v2/{name}/blobs/{digest}"))])
    peer.half_close()
    answer = await peer.answer("GET")
    assert answer is not None and answer.body == content
    assert await peer.ended() == b""


@pytest.mark.parametrize(("size", "status"), [(65_536, 200), (65_537, 431)])
async def test_a_head_of_64_kib_is_taken_and_not_a_byte_more(
    server: Server, peers: list[Peer], size: int, status: int
) -> None:
    call = Call("GET", "/v2/").with_header("Authorization", "Bearer ")
    room = size - len(head_of(call))
    call = Call("GET", "/v2/").with_header("Authorization", "Bearer " + "t" * room)
    head = head_of(call)
    assert len(head) == size
    for pieces in ([head], [head[at : at + 1000] for at in range(0, size, 1000)]):
        peer = await connect(server, peers)
        await peer.send(pieces)
        answer = await peer.answer("GET")
        assert answer is not None and answer.status == status
        if status == 200:
            with pytest.raises(NoAnswer):
                await peer.ended(0.1)
        else:
            assert await peer.ended() == b""


# Documents that are JSON, but no text.


def test_half_a_surrogate_pair_in_a_manifest_is_refused(client: httpx.Client) -> None:
    r"""JSON can write `\ud800`, which no text has, and no answer can repeat (RFC 8259, 8.2)."""
    name = new_name()
    push_image(client, name, "t")
    good = json.loads(image(b"layer"))
    for change in (
        {"mediaType": "\ud800"},
        {"config": {**good["config"], "digest": "\ud800"}},
        {"config": {**good["config"], "mediaType": "\udfff"}},
        {"artifactType": "\ud800"},
        {"annotations": {"key": "\ud800"}},
        {"annotations": {"\ud800": "value"}},
    ):
        content = json.dumps({**good, **change}).encode()
        answer = push_manifest(client, name, "t", content)
        refused(answer, 400, "MANIFEST_INVALID")


def test_referrers_can_be_listed_whatever_was_pushed(client: httpx.Client) -> None:
    name, subject = new_name(), Digest.of(b"subject")
    push_image(client, name, "t")
    good = {**json.loads(image(b"layer")), "subject": descriptor(b"subject", OCI_MANIFEST)}
    for change in (
        {"annotations": {"key": "\ud800"}},
        {"artifactType": "\ud800"},
        {"artifactType": "\u2028\x00\x7f"},
        {"annotations": {"": "\x00", "\r\n": "\U0010ffff"}},
    ):
        answer = push_manifest(client, name, "t", json.dumps({**good, **change}).encode())
        assert answer.status_code in (201, 400)
        listed = client.get(f"/v2/{name}/referrers/{subject}")
        assert listed.status_code == 200, listed.text
        assert isinstance(listed.json()["manifests"], list)
