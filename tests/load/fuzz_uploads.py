"""Scenarios of blob uploads: a state machine with a model of what the server must hold.

Every upload is given the beginning of one and the same content. However requests are cut, repeated
or sent twice, the upload is always a beginning of it, so that its digest is known at every offset.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from time import monotonic
from typing import Final
from urllib.parse import quote

from oci.digest import ALGORITHMS, Digest
from tests.load.fuzz_calls import Call
from tests.load.fuzz_run import Outcome, Run
from tests.load.fuzz_world import BASE, offset_of, target_of

SETTLE_SECONDS: Final = 5.0
"""after a lost connection the upload can be continued within this time"""

_SIZES: Final = (0, 1, 2, 1000, 30_000, 65_535, 65_536, 65_537, 150_000)
_BIG_SIZES: Final = (1_048_576, 1_500_000)
_OCTETS: Final = ((b"Content-Type", b"application/octet-stream"),)


@dataclass(slots=True)
class Upload:
    """The client's view of one upload. `older` are Locations from before, with their offsets."""

    run: Run
    name: str
    location: str
    size: int = 0
    older: list[tuple[str, int]] = field(default_factory=list)

    @property
    def status_target(self) -> str:
        return self.location.partition("?")[0]

    def chunk(self, size: int | None = None) -> bytes:
        rng, master = self.run.rng, self.run.world.master
        if size is None:
            size = rng.choice(_BIG_SIZES if rng.random() < 0.02 else _SIZES)
        return master[self.size : self.size + size]

    def digest(self, algorithm: str, size: int | None = None) -> Digest:
        end = self.size if size is None else size
        return Digest.of(memoryview(self.run.world.master)[:end], algorithm)

    def moved(self, outcome: Outcome) -> None:
        """Takes over where an answer says that the upload stands."""
        location = outcome.header("location")
        if not location:
            return
        self.older.append((self.location, self.size))
        self.location = target_of(location)
        self.size = offset_of(self.location)
        if outcome.header("range") != f"0-{max(self.size - 1, 0)}":
            self.run.find(f"range {outcome.header('range')} beside an offset", None, outcome.answer)


async def upload(run: Run) -> None:
    """A few steps of any kind, then the commit."""
    rng = run.rng
    opened = await _open(run)
    if opened is None:
        return
    for _ in range(rng.randrange(1, 7)):
        alive = await rng.choice(_STEPS)(opened)
        if not alive:
            return
    await _commit(opened)


async def _open(run: Run) -> Upload | None:
    rng = run.rng
    name = run.new_name()
    query = rng.choice(
        (
            "",
            "",
            "?digest-algorithm=sha512",
            f"?mount={Digest.of(b'nowhere')}&from={BASE}",
            "?mount=bad&from=BAD",
        )
    )
    slash = "" if rng.random() < 0.2 else "/"
    outcome = await run.call(
        Call("POST", f"/v2/{name}/blobs/uploads{slash}{query}", body=rng.choice((None, b""))),
        expect=(202,),
        wild=0.1,
    )
    if outcome.status != 202 or not outcome.header("location"):
        return None
    location = target_of(outcome.header("location"))
    name = location[4:].partition("/blobs/uploads/")[0]
    return Upload(run, name, location)


def _patch(opened: Upload, chunk: bytes, *, located: str | None = None) -> Call:
    rng = opened.run.rng
    headers = _OCTETS if rng.random() < 0.7 else ()
    chunked = rng.random() < 0.5
    if chunk and rng.random() < 0.4:
        first = opened.size
        unit = rng.choice(("", "", "bytes "))
        text = f"{unit}{first}-{first + len(chunk) - 1}"
        headers = (*headers, (b"Content-Range", text.encode()))
    expects = rng.random() < 0.15
    return Call("PATCH", located or opened.location, headers, chunk, chunked, expects)


async def _append(opened: Upload) -> bool:
    chunk = opened.chunk()
    before = opened.size
    outcome = await opened.run.call(_patch(opened, chunk), expect=(202,), wild=0.35)
    if outcome.clean and outcome.status == 202:
        opened.moved(outcome)
        if opened.size != before + len(chunk):
            opened.run.find(f"{before} + {len(chunk)} is {opened.size}", None, outcome.answer)
        return True
    return not outcome.garbled and await settle(opened)


async def settle(opened: Upload) -> bool:
    """After anything may have happened: asks where the upload stands and appends until it is taken
    again. False if the upload is gone."""
    deadline = monotonic() + SETTLE_SECONDS
    while True:
        outcome = await opened.run.call(
            Call("GET", opened.status_target), expect=(204, 404), wild=0.0
        )
        if outcome.status != 204:
            return False
        opened.moved(outcome)
        chunk = opened.chunk(1)
        call = Call("PATCH", opened.location, _OCTETS, chunk)
        outcome = await opened.run.call(call, expect=(202, 404, 416), wild=0.0)
        if outcome.status == 202:
            opened.moved(outcome)
            return True
        if outcome.status != 416:
            return False
        if monotonic() > deadline:
            opened.run.find("the upload cannot be continued", None, outcome.answer)
            return False
        await asyncio.sleep(0.02)


async def _status(opened: Upload) -> bool:
    method = opened.run.rng.choice(("GET", "HEAD"))
    outcome = await opened.run.call(Call(method, opened.status_target), expect=(204,))
    if not outcome.clean:
        return await settle(opened)
    if outcome.status != 204:
        return False
    if offset_of(target_of(outcome.header("location"))) != opened.size:
        opened.run.find(f"status is not at {opened.size}", None, outcome.answer)
    return True


async def _out_of_order(opened: Upload) -> bool:
    """A Content-Range elsewhere, backward, of another length, or none at all."""
    rng, size = opened.run.rng, opened.size
    text, statuses = rng.choice(
        (
            (f"{size + 1}-{size + 5}", (416,)),
            (f"{size + 5}-{size}", (416,)),
            (f"{size}-{size + 9}", (400,)),
            ("x-y", (400,)),
            (f"{size}", (400,)),
            (f"{10**25}-{10**26}", (400,)),
        )
    )
    headers = (*_OCTETS, (b"Content-Range", text.encode()))
    call = Call("PATCH", opened.location, headers, b"12345", expects=rng.random() < 0.3)
    outcome = await opened.run.call(call, expect=statuses, wild=0.0)
    if outcome.status == 416:
        opened.moved(outcome)
    return True


async def _older_location(opened: Upload) -> bool:
    """A Location from before: refused with where the upload stands, or taken with a Content-Range
    that begins there."""
    stale = [location for location, size in opened.older if size != opened.size]
    if not stale:
        return True
    rng = opened.run.rng
    location = rng.choice(stale)
    chunk = opened.chunk(rng.choice((1, 1000)))
    if not chunk or rng.random() < 0.5:
        outcome = await opened.run.call(
            Call("PATCH", location, _OCTETS, b"zzz"), expect=(416,), wild=0.0
        )
    else:
        text = f"{opened.size}-{opened.size + len(chunk) - 1}".encode()
        headers = (*_OCTETS, (b"Content-Range", text))
        call = Call("PATCH", location, headers, chunk, rng.random() < 0.5)
        outcome = await opened.run.call(call, expect=(202,), wild=0.0)
    opened.moved(outcome)
    return True


async def _foreign(opened: Upload) -> bool:
    """States of another repository, of an upload that is gone, and of nobody."""
    run, rng = opened.run, opened.run.rng
    state = opened.location.partition("?_state=")[2]
    stranger = run.world.foreign.partition("?_state=")[2]
    location, statuses = rng.choice(
        (
            (run.world.dead, (404,)),
            (f"{opened.status_target}?_state={stranger}", (404,)),
            (f"{run.world.foreign.partition('?')[0]}?_state={state}", (404,)),
            (f"{opened.status_target}?_state={state[:-6]}AAAA==", (404,)),
            (f"{opened.status_target}?_state={'A' * rng.choice((1, 3, 43, 44, 5000))}", (404,)),
            (f"{opened.status_target}?_state=%ff%00", (404,)),
            (opened.status_target, (404,)),
            (f"/v2/{opened.name}/blobs/uploads/{rng.choice(('x', '..', '%00', '-' * 36))}", (404,)),
        )
    )
    method = rng.choice(("PATCH", "PUT", "DELETE"))
    if method == "PUT":
        join = "&" if "?" in location else "?"
        location += f"{join}digest={opened.digest('sha256')}"
    body = None if method == "DELETE" else opened.chunk(10)
    await run.call(Call(method, location, body=body), expect=statuses, wild=0.1)
    return True


async def _wrong_kind(opened: Upload) -> bool:
    headers = ((b"Content-Type", opened.run.rng.choice((b"text/plain", b"application/json"))),)
    call = Call("PATCH", opened.location, headers, b"12345")
    await opened.run.call(call, expect=(400,), wild=0.0)
    return True


async def _race(opened: Upload) -> bool:
    """The same chunk from two clients at once: one of them is taken."""
    chunk = opened.chunk(opened.run.rng.choice((1000, 70_000, 400_000)))
    if not chunk:
        return True
    call = Call("PATCH", opened.location, _OCTETS, chunk)
    others = opened.run.fork(), opened.run.fork()
    outcomes = await asyncio.gather(
        *(run.call(call, expect=(202, 416), wild=0.0) for run in others)
    )
    for run in others:
        run.hang_up()
    if sorted(outcome.status for outcome in outcomes) != [202, 416]:
        opened.run.find(
            f"two writers: {[outcome.status for outcome in outcomes]}", None, outcomes[0].answer
        )
    for outcome in outcomes:
        if outcome.status == 202:
            opened.moved(outcome)
    return True


async def _cancel(opened: Upload) -> bool:
    outcome = await opened.run.call(Call("DELETE", opened.location), expect=(204,))
    # One that was sent and not waited for may still be under way.
    statuses = (404,) if outcome.clean else (204, 404)
    await opened.run.call(Call("GET", opened.status_target), expect=statuses, wild=0.0)
    return False


async def _wrong_digest(opened: Upload) -> bool:
    """A digest of something else ends the upload; what is no digest at all does not."""
    rng = opened.run.rng
    if rng.random() < 0.5:
        text = rng.choice(("", "sha256:", "md5:" + "0" * 32, "sha256:" + "A" * 64, "%00", "latest"))
        call = Call("PUT", f"{opened.location}&digest={text}")
        await opened.run.call(call, expect=(400,), wild=0.0)
        return True
    call = Call("PUT", f"{opened.location}&digest={Digest.of(b'other')}", body=opened.chunk(100))
    await opened.run.call(call, expect=(400,), wild=0.0)
    await opened.run.call(Call("GET", opened.status_target), expect=(404,), wild=0.0)
    return False


async def _commit(opened: Upload) -> None:
    """The closing PUT, with or without a last chunk; what was committed is then read."""
    run, rng = opened.run, opened.run.rng
    for attempt in range(3):
        algorithm = rng.choice(ALGORITHMS)
        chunk = opened.chunk(rng.choice((0, 0, 1, 5000, 70_000)))
        digest = opened.digest(algorithm, opened.size + len(chunk))
        text = quote(digest, safe="") if rng.random() < 0.3 else digest
        body = chunk or rng.choice((None, b""))
        target = f"{opened.location}&digest={text}"
        call = Call("PUT", target, _OCTETS, body, body is not None and rng.random() < 0.3)
        # A PUT that was sent and not waited for may end the upload under what follows it.
        statuses = (201, 404, 416) if attempt else (201,)
        outcome = await run.call(call, expect=statuses, wild=0.4 if attempt == 0 else 0.0)
        if outcome.clean:
            await _read_back(opened, outcome, digest, opened.size + len(chunk))
            return
        if outcome.garbled or not await settle(opened):
            return


async def _read_back(opened: Upload, outcome: Outcome, digest: Digest, size: int) -> None:
    run = opened.run
    if outcome.status != 201:
        return
    if outcome.header("docker-content-digest") != digest:
        run.find("201 with another digest", None, outcome.answer)
    target = target_of(outcome.header("location"))
    found = await run.call(Call("GET", target), expect=(200,), wild=0.0)
    if found.answer is not None and found.answer.body != run.world.master[:size]:
        run.find("the blob is not what was sent", None, found.answer)


async def single_post(run: Run) -> None:
    """The whole blob in one request."""
    rng, name = run.rng, run.new_name()
    size = rng.choice(_BIG_SIZES if rng.random() < 0.02 else _SIZES)
    content = run.world.master[:size]
    digest = Digest.of(content, rng.choice(ALGORITHMS))
    call = Call(
        "POST",
        f"/v2/{name}/blobs/uploads/?digest={digest}",
        _OCTETS,
        content,
        rng.random() < 0.5,
        rng.random() < 0.15,
    )
    outcome = await run.call(call, expect=(201,), wild=0.4)
    method = rng.choice(("GET", "HEAD"))
    statuses = (200,) if outcome.clean else (200, 404)
    found = await run.call(Call(method, f"/v2/{name}/blobs/{digest}"), expect=statuses, wild=0.0)
    if method == "GET" and found.status == 200 and found.answer is not None:
        if found.answer.body != content:
            run.find("the blob is not what was sent", None, found.answer)
        await run.call(Call("DELETE", f"/v2/{name}/blobs/{digest}"), expect=(202,), wild=0.2)


async def mount(run: Run) -> None:
    rng, name = run.rng, run.new_name()
    digest = rng.choice(list(run.world.blobs))
    source = "" if rng.random() < 0.3 else f"&from={quote(BASE, safe=rng.choice(('', '/')))}"
    target = f"/v2/{name}/blobs/uploads/?mount={digest}{source}"
    outcome = await run.call(Call("POST", target), expect=(201,))
    if outcome.clean:
        await run.call(Call("HEAD", f"/v2/{name}/blobs/{digest}"), expect=(200,), wild=0.0)


_STEPS: Final = (
    _append, _append, _append, _append, _status, _out_of_order, _older_location, _foreign,
    _wrong_kind, _race, _cancel, _wrong_digest
)  # fmt: skip
