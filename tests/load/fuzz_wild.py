"""Scenarios below HTTP: garbage, requests one after the other without waiting, connections left
alone."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

from oci.digest import Digest
from tests.load.fuzz_calls import Call, Ending, Sending, body_bytes, head_of
from tests.load.fuzz_run import Run
from tests.load.fuzz_world import BASE

_UNKNOWN: Final = (("GET", "/"),)

_STARTS: Final = (
    b"",
    b"GET ",
    b"GET /v2/ HTTP/1.1\r\n",
    b"\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"SSH-2.0-x\r\n",
    b"\x05\x01\x00",
    b"{}",
    b"\0" * 20,
    b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
    b"GET /v2/ HTTP/1.1\r\nContent-Length: 3\r\n\r\n",
    b"POST /v2/x/y/blobs/uploads/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n",
)


async def garbage(run: Run) -> None:
    rng = run.rng
    for _ in range(rng.randrange(1, 4)):
        size = rng.choice((0, 1, 10, 1000, 70_000))
        noise = rng.choice(
            (rng.randbytes(size), b"A" * size, b"\r\n" * (size // 2), b"a: b\r\n" * (size // 6))
        )
        data = rng.choice(_STARTS) + noise
        if not data:
            continue
        ending = rng.choice((Ending.CLOSE, Ending.RESET, Ending.HALF_CLOSE))
        run.hang_up()
        await run.send(Sending(data, _UNKNOWN, 0, strict=False, spill=True, ending=ending))


async def pipeline(run: Run) -> None:
    """Several requests in one write: as many answers, in the same order."""
    rng, world = run.rng, run.world
    calls = []
    for number in range(rng.randrange(2, 9)):
        digest, content = rng.choice(list(world.blobs.items()))
        name = f"{run.new_name()}/p{number}"
        calls.append(
            rng.choice(
                (
                    Call("GET", "/v2/"),
                    Call("HEAD", f"/v2/{BASE}/blobs/{digest}"),
                    Call("GET", f"/v2/{BASE}/blobs/{digest}"),
                    Call("GET", f"/v2/{BASE}/manifests/latest"),
                    Call("GET", f"/v2/{BASE}/tags/list?n=2"),
                    Call("GET", "/v2/NAME/tags/list"),
                    Call("GET", "/livez"),
                    Call("PATCH", world.dead, body=world.layer, chunked=rng.random() < 0.5),
                    Call("DELETE", "/v2/x/y/manifests/none"),
                    Call("POST", f"/v2/{name}/blobs/uploads/?digest={digest}", body=content),
                )
            )
        )
    data = b""
    tags: list[str | None] = []
    for number, call in enumerate(calls):
        tag = f"p{run.number}.{number}"
        tags.append(tag if call.target.startswith("/v2/") else None)
        tagged = call.with_header("X-Request-Id", tag)
        data += head_of(tagged) + body_bytes(tagged, rng)
    known = tuple((call.method, call.target) for call in calls)
    ending = rng.choice((Ending.STAY, Ending.HALF_CLOSE))
    sending = Sending(data, known, len(calls), ending=ending)
    kind = rng.randrange(4)
    if kind == 0:
        stop = rng.randrange(1, len(data))
        ending = rng.choice((Ending.CLOSE, Ending.RESET, Ending.HALF_CLOSE))
        sending = replace(sending, data=data[:stop], owed=0, ending=ending)
    elif kind == 1:
        cuts = tuple(rng.randrange(1, len(data)) for _ in range(6))
        sending = replace(sending, cuts=cuts, pause=0.002)
    run.hang_up()
    answers = await run.send(sending)
    for answer, wanted in zip(answers, tags, strict=False):
        is_wrong = wanted is not None and answer.header("x-request-id") != wanted
        if is_wrong and answer.status < 500:
            run.find("pipelined answers are out of order", sending, answer)
    run.hang_up()


async def left_alone(run: Run) -> None:
    """Many connections that send nothing or half a request, while another one works."""
    rng = run.rng
    others = [run.fork() for _ in range(rng.randrange(2, 6))]
    digest = Digest.of(b"layer")
    half = (
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\n",
        b"PATCH /v2/a/b/blobs/uploads/x HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\nabc",
        b"POST /v2/fuzz/x/blobs/uploads/?digest=%b HTTP/1.1\r\nContent-Length: 5\r\n\r\nla"
        % digest.encode(),
    )
    sendings = [
        Sending(rng.choice(half), _UNKNOWN, 0, strict=False, spill=True, ending=Ending.CLOSE)
        for _ in others
    ]
    waits = [other.send(sending) for other, sending in zip(others, sendings, strict=True)]
    probe = run.call(Call("GET", f"/v2/{BASE}/blobs/{digest}"), expect=(200,), wild=0.0)
    await asyncio.gather(probe, *waits)
    for other in others:
        other.hang_up()
