"""JSON documents changed at random: other values, types and keys, and bytes that are no JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any, Final

_ODD: Final[tuple[Callable[[Random], Any], ...]] = (
    lambda rng: None,
    lambda rng: rng.choice((True, False)),
    lambda rng: rng.choice((0, -1, 1, 2, 2**31, 2**63 - 1, 2**63, 2**64, 10**30, -(2**63) - 1)),
    lambda rng: rng.choice((0.5, 2.0, 1e308, float("inf"), float("nan"), -0.0)),
    lambda rng: "",
    lambda rng: rng.choice(("\ud800", "\udfff\ud800", "a\0b", "\r\nX-Injected: yes", "\u202e")),
    lambda rng: "\N{PILE OF POO}" * rng.choice((1, 1000)),
    lambda rng: "x" * rng.choice((300, 5000, 70_000)),
    lambda rng: [],
    lambda rng: {},
    lambda rng: [[[[[[]]]]]],
    lambda rng: [None, 1, "x", {}],
    lambda rng: {"": "", "a": None},
    lambda rng: "sha256:" + "0" * 64,
    lambda rng: "sha256:" + "\u0660" * 64,
    lambda rng: "sha512:" + "a" * 128,
    lambda rng: "application/vnd.docker.distribution.manifest.v1+json",
    lambda rng: "application/vnd.oci.image.index.v1+json",
)
_KEYS: Final = (
    "mediaType", "schemaVersion", "config", "layers", "manifests", "subject", "artifactType",
    "annotations", "digest", "size", "urls", "data", "platform", "\ud800", "", "__proto__", "blobs"
)  # fmt: skip


def odd_value(rng: Random) -> Any:
    """A value that no manifest has there."""
    return rng.choice(_ODD)(rng)


def mutated(document: Any, rng: Random) -> Any:
    """A changed copy of the document: a few places are replaced, removed, added or repeated."""
    made = json.loads(json.dumps(document))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        holders = list(_holders(made))
        if not holders:
            return odd_value(rng)
        _change(rng.choice(holders), rng)
    return made


def _holders(node: Any) -> list[Any]:
    found: list[Any] = []
    if isinstance(node, dict):
        found.append(node)
        for value in node.values():
            found += _holders(value)
    elif isinstance(node, list):
        found.append(node)
        for value in node:
            found += _holders(value)
    return found


def _change(holder: Any, rng: Random) -> None:
    kind = rng.randrange(4)
    if isinstance(holder, list):
        if not holder or kind == 0:
            holder.append(odd_value(rng))
        elif kind == 1:
            holder.pop(rng.randrange(len(holder)))
        elif kind == 2:
            holder[rng.randrange(len(holder))] = odd_value(rng)
        else:
            holder += holder * rng.choice((1, 20))
        return
    keys = list(holder)
    if not keys or kind == 0:
        holder[rng.choice(_KEYS)] = odd_value(rng)
    elif kind == 1:
        del holder[rng.choice(keys)]
    else:
        holder[rng.choice(keys)] = odd_value(rng)


def written(document: Any, rng: Random) -> bytes:
    """The document as bytes, mostly as JSON."""
    indent = rng.choice((None, None, 3))
    text = json.dumps(document, ensure_ascii=rng.random() < 0.7, indent=indent)
    body = text.encode("utf-8", "surrogatepass")
    kind = rng.randrange(24)
    if kind == 0:
        return body[: rng.randrange(len(body))]
    if kind == 1:
        return body + rng.choice((b"{}", b"\0", b"]", b"\n\n"))
    if kind == 2:
        return rng.choice(
            (b"\xef\xbb\xbf" + body, text.encode("utf-16", "surrogatepass"), b"\xff" + body)
        )
    if kind == 3:
        at = rng.randrange(len(body))
        return body[:at] + rng.randbytes(1) + body[at + 1 :]
    if kind == 4:
        return body[:1] + b'"schemaVersion":2,' + body[1:]
    if kind == 5:
        return rng.choice(
            (b"", b"null", b"[]", b"[" * 50_000, b'{"a":' * 30_000, b"1" * 5000, b'"')
        )
    if kind == 6 and rng.random() < 0.1:
        size = 4 * 1024 * 1024 + rng.choice((-1, 0, 1, 5000))
        return body[:-1] + b',"x":"' + b"x" * (size - len(body) - 7) + b'"}'
    return body
