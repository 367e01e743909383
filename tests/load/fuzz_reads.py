"""Scenarios of reading: blobs and their ranges, lists, odd paths, and what is beside /v2."""

from __future__ import annotations

import json
from typing import Final
from urllib.parse import quote

from oci.digest import Digest
from tests.load.fuzz_calls import Call
from tests.load.fuzz_run import Run
from tests.load.fuzz_world import BASE, target_of


async def blob(run: Run) -> None:
    rng = run.rng
    digest, content = rng.choice(list(run.world.blobs.items()))
    target = f"/v2/{BASE}/blobs/{quote(digest, safe=rng.choice((':', '')))}"
    size = len(content)
    for _ in range(rng.randrange(1, 4)):
        outcome = await run.call(Call(rng.choice(("GET", "HEAD")), target), expect=(200,))
        if outcome.clean and outcome.header("content-length") != str(size):
            run.find("the blob has another length", None, outcome.answer)
        await _part(run, target, content)
    call = Call("GET", target).with_header(
        "If-None-Match", rng.choice((f'"{digest}"', "*", digest))
    )
    await run.call(call, expect=(304,), wild=0.1)


async def _part(run: Run, target: str, content: bytes) -> None:
    """One range: its bytes, or the right refusal."""
    rng, size = run.rng, len(content)
    first = rng.choice((0, 1, max(0, size - 1), size, size + 1, rng.randrange(size + 1)))
    last = rng.choice((0, max(0, size - 1), size, rng.randrange(size + 1), 10**18))
    form = rng.randrange(3)
    if form == 0:
        text, wanted = f"{first}-{last}", content[first : last + 1]
    elif form == 1:
        text, wanted = f"{first}-", content[first:]
    else:
        length = rng.choice((0, 1, size, size + 5))
        text, wanted = f"-{length}", content[max(0, size - length) :] if length else b""
    call = Call("GET", target).with_header("Range", f"bytes={text}")
    outcome = await run.call(call, expect=(206,) if wanted else (416,), wild=0.1)
    answer = outcome.answer
    if outcome.clean and answer is not None and answer.status == 206 and answer.body != wanted:
        run.find(f"the range {text} has other bytes", None, answer)


_NUMBERS: Final = (
    "0", "1", "2", "1000", "1001", "99999999", "-1", "1.5", "x", "", "%00", "%D9%A1", "9" * 30,
    "+1", "1_0"
)  # fmt: skip
_LASTS: Final = (
    "",
    "a",
    "latest",
    "zzzz",
    "%ff",
    "%00",
    "fuzz/base",
    "%F0%9F%92%A9",
    "..",
    "x" * 3000,
)


async def listing(run: Run) -> None:
    rng = run.rng
    target = rng.choice((f"/v2/{BASE}/tags/list", "/v2/_catalog"))
    query = ""
    if rng.random() < 0.7:
        query = f"?n={rng.choice(_NUMBERS)}"
    if rng.random() < 0.4:
        query += f"{'&' if query else '?'}last={rng.choice(_LASTS)}"
    method = rng.choice(("GET", "GET", "HEAD"))
    outcome = await run.call(Call(method, target + query), expect=(200, 400))
    for _ in range(3):
        link = outcome.header("link")
        if outcome.clean and outcome.status == 200 and method == "GET" and outcome.answer:
            _check_list(run, outcome.answer.body)
        if not link or not outcome.clean:
            return
        method = "GET"
        following = target_of(link.partition("<")[2].partition(">")[0])
        outcome = await run.call(Call("GET", following), expect=(200,))


def _check_list(run: Run, body: bytes) -> None:
    document = json.loads(body)
    names = document.get("tags", document.get("repositories"))
    if not isinstance(names, list) or names != sorted(names):
        run.find(f"a list that is not sorted: {body[:200]!r}", None, None)


_SEGMENTS: Final = (
    "v2", "fuzz", "base", "blobs", "uploads", "manifests", "tags", "list", "referrers", "_catalog",
    "latest", "", ".", "..", "%2e%2e", "%2F", "%00", "%ff", "%C3%A9", "A", "_layers", "a" * 300,
    "sha256:" + "0" * 64, "sha256%3A" + "0" * 64, "sha512:" + "0" * 128, "sha256:xyz", "extensions",
    "metrics", "admin", "healthz", "%F0%9F%92%A9", "a..b", "-a", "a-", "a__b", "a___b", "~",
    "*", "@"
)  # fmt: skip


async def path(run: Run) -> None:
    """Paths of random segments, with every method."""
    rng = run.rng
    for _ in range(rng.randrange(2, 8)):
        prefix = "/v2/" if rng.random() < 0.8 else "/"
        target = prefix + "/".join(rng.choice(_SEGMENTS) for _ in range(rng.randrange(1, 7)))
        method = rng.choice(("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"))
        body = b"{}" if method in ("PUT", "POST", "PATCH") and rng.random() < 0.5 else None
        if method == "DELETE" and target.startswith(f"/v2/{BASE}/"):
            method = "GET"
        await run.call(Call(method, target, body=body))


async def beside(run: Run) -> None:
    """Probes, metrics and administration."""
    rng = run.rng
    absent = Digest.of(rng.randbytes(8))
    target, method, statuses = rng.choice(
        (
            ("/", "GET", (200,)),
            ("/livez", "HEAD", (200,)),
            ("/readyz", "GET", (200,)),
            ("/healthz", "POST", (405,)),
            ("/metrics", "GET", (200,)),
            ("/metrics", "HEAD", (200,)),
            ("/extensions/v2/metrics", "POST", (405,)),
            (f"/admin/blobs/{absent}", "DELETE", (204,)),
            (f"/admin/blobs/{absent}", "GET", (405,)),
            ("/admin/blobs/sha256:x", "DELETE", (400,)),
            ("/admin/blobs/%ff%00", "DELETE", (400,)),
            ("/nothing", "GET", (404,)),
            ("/v2", "GET", (200,)),
            ("/v2/", "HEAD", (200,)),
            ("/v2/", "POST", (405,)),
            ("http://reg.example/v2/", "GET", (200,)),
            ("*", "OPTIONS", (404, 405)),
        )
    )
    await run.call(Call(method, target), expect=statuses)
