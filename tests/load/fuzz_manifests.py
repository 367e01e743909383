"""Scenarios of manifests: documents of all four types, whole and mutated, pushed, read, deleted."""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import quote

from oci.descriptor import DOCKER_SCHEMA1, IMAGES, MANIFESTS
from oci.digest import Digest
from tests.load.fuzz_calls import Call
from tests.load.fuzz_json import mutated, odd_value, written
from tests.load.fuzz_run import Run
from tests.load.fuzz_world import BASE, CONFIG

_TYPES: Final = sorted(MANIFESTS)
_ACCEPTS: Final = ("", "*/*", ",".join(sorted(IMAGES)), ", ".join(_TYPES), "text/html", _TYPES[0])
_TAGS: Final = ("latest", "v1.0", "_x", "A" * 128, "a.b-c_d")
_BAD_TAGS: Final = ("-a", ".a", "A" * 129, "a%20b", "a%00", "%C3%A9", "a+b", "%e2%98%83", "a%0ab")


async def manifest(run: Run) -> None:
    """A repository with all blobs and children; some pushes into it, then reads and deletes."""
    rng, name = run.rng, run.new_name()
    for content in (CONFIG, b"layer"):
        await run.call(
            Call("POST", f"/v2/{name}/blobs/uploads/?mount={Digest.of(content)}&from={BASE}"),
            expect=(201,),
            wild=0.0,
        )
    pushed: list[tuple[str, bytes, str]] = []
    for _ in range(rng.randrange(1, 5)):
        await _push(run, name, pushed)
    for _ in range(rng.randrange(1, 4)):
        await _read(run, name, pushed)
    await _referrers(run, name)
    await _delete(run, name, pushed)


async def _push(run: Run, name: str, pushed: list[tuple[str, bytes, str]]) -> None:
    rng = run.rng
    media_type, content = rng.choice(list(run.world.manifests.values()))
    is_whole = media_type in IMAGES and rng.random() < 0.3
    document: Any = json.loads(content)
    if not is_whole:
        if rng.random() < 0.4:
            document["subject"] = {
                "mediaType": _TYPES[0],
                "digest": run.world.subject,
                "size": 5,
            }
            document["annotations"] = {"key": "value"}
        if rng.random() < 0.2:
            document.pop("mediaType")
        if rng.random() < 0.3:  # what goes on into lists of referrers
            document["annotations"] = {"key": odd_value(rng)}
            document["artifactType"] = odd_value(rng)
            content = written(document, rng)
        else:
            content = written(mutated(document, rng), rng)
        if rng.random() < 0.3:
            media_type = rng.choice(
                (*_TYPES, *DOCKER_SCHEMA1, "", "text/plain", "\xff", f"{media_type};x=y")
            )
    reference = _reference(run, content)
    headers = ((b"Content-Type", media_type.encode("latin-1")),) if media_type else ()
    call = Call("PUT", f"/v2/{name}/manifests/{reference}", headers, content, rng.random() < 0.3)
    if rng.random() < 0.1:
        call = call.with_header(
            rng.choice(("If-Match", "If-None-Match")),
            rng.choice(("*", f'"{Digest.of(content)}"', "junk", f'"{run.world.subject}", "x"')),
        )
    expect = (201,) if is_whole and reference in _TAGS and len(call.headers) == 1 else None
    outcome = await run.call(call, expect=expect, wild=0.15)
    if outcome.status == 201 and outcome.clean:
        pushed.append(
            (reference.partition("?")[0], content, outcome.header("docker-content-digest"))
        )


def _reference(run: Run, content: bytes) -> str:
    rng = run.rng
    kind = rng.randrange(8)
    if kind < 4:
        return rng.choice(_TAGS)
    if kind == 4:
        return rng.choice(_BAD_TAGS)
    digest = Digest.of(content, rng.choice(("sha256", "sha512")))
    if kind == 5:
        return quote(digest, safe=rng.choice(("", ":")))
    if kind == 6:
        return rng.choice(
            (digest[:-1], digest.upper(), f"{digest}0", Digest.of(b"other"), "x:y", ":")
        )
    tags = "&".join(f"tag={rng.choice(_TAGS + _BAD_TAGS)}" for _ in range(rng.choice((1, 3, 101))))
    return f"{digest}?{tags}"


async def _read(run: Run, name: str, pushed: list[tuple[str, bytes, str]]) -> None:
    rng = run.rng
    method = rng.choice(("GET", "HEAD"))
    if not pushed or rng.random() < 0.3:
        reference = rng.choice((*_TAGS, *_BAD_TAGS, *run.world.manifests))
        await run.call(Call(method, f"/v2/{name}/manifests/{reference}"))
        return
    _, content, digest = rng.choice(pushed)
    accept = rng.choice(_ACCEPTS)
    call = Call(method, f"/v2/{name}/manifests/{digest}")
    if accept:
        call = call.with_header("Accept", accept)
    outcome = await run.call(call, expect=(200,))
    if outcome.clean and outcome.answer is not None:
        if method == "GET" and outcome.answer.body != content:
            run.find("the manifest is not what was pushed", None, outcome.answer)
        if outcome.header("content-length") != str(len(content)):
            run.find("the manifest has another length", None, outcome.answer)
    call = call.with_header("If-None-Match", f'"{digest}"')
    await run.call(call, expect=(304,), wild=0.1)


async def _referrers(run: Run, name: str) -> None:
    """An index, whatever the referrers are made of."""
    query = run.rng.choice(("", "?artifactType=a", "?artifactType=%ff", "?last=sha256:0", "?n=1"))
    target = f"/v2/{name}/referrers/{run.world.subject}{query}"
    outcome = await run.call(Call("GET", target), expect=(200,), wild=0.1)
    if outcome.clean and outcome.status == 200 and outcome.answer is not None:
        try:
            document = json.loads(outcome.answer.body)
            fine = document["schemaVersion"] == 2 and isinstance(document["manifests"], list)
        except (ValueError, KeyError, TypeError):
            fine = False
        if not fine:
            run.find("referrers are no index", None, outcome.answer)


async def _delete(run: Run, name: str, pushed: list[tuple[str, bytes, str]]) -> None:
    rng = run.rng
    await run.call(
        Call("DELETE", f"/v2/{name}/manifests/{rng.choice(_TAGS + _BAD_TAGS)}"),
        expect=(202, 404),
    )
    for digest in sorted({digest for _, _, digest in pushed}):
        if rng.random() < 0.5:
            continue  # what stays is read again at the end of the campaign
        outcome = await run.call(
            Call("DELETE", f"/v2/{name}/manifests/{digest}"), expect=(202, 404), wild=0.1
        )
        if outcome.clean:
            await run.call(Call("GET", f"/v2/{name}/manifests/{digest}"), expect=(404,), wild=0.0)
    await run.call(Call("GET", f"/v2/{name}/tags/list"), expect=(200, 404))
