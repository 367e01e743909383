"""What is pushed and pulled: cheap to make, fresh where it has to be, with digests that cost one
hash for each size.

A big content is one random MiB repeated, with a tail of its own: contents of one size share the
hash of all but the tail.
"""

from __future__ import annotations

import functools
import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hashlib import _Hash

MIB: Final = 1 << 20
GIB: Final = 1 << 30
CHUNK: Final = 32 * 1024
"""bytes of a chunk as docker and podman send them (Go's io.Copy buffer)"""

_TAIL: Final = 64

MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
_CONFIG_TYPE: Final = "application/vnd.oci.image.config.v1+json"
_LAYER_TYPE: Final = "application/vnd.oci.image.layer.v1.tar+gzip"


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


@functools.cache
def _block() -> bytes:
    return random.Random("image registry bench").randbytes(MIB)


@functools.cache
def _framed_block() -> bytes:
    block = _block()
    return b"".join(_frame(block[at : at + CHUNK]) for at in range(0, MIB, CHUNK))


@functools.cache
def _common_hash(length: int) -> _Hash:
    """The hash of the first `length` bytes that contents share. Copy it before use."""
    running = hashlib.sha256()
    for piece in _common(length):
        running.update(piece)
    return running


def _common(length: int) -> Iterator[memoryview]:
    block = memoryview(_block())
    for at in range(0, length, MIB):
        yield block[: min(MIB, length - at)]


def _frame(data: bytes | memoryview) -> bytes:
    return b"".join((b"%x\r\n" % len(data), data, b"\r\n"))


class Content:
    """`size` bytes (at least 64) that differ from those of any other `salt`; iterate for pieces of
    at most 1 MiB.
    """

    __slots__ = ("_tail", "digest", "size")

    def __init__(self, size: int, salt: str) -> None:
        if size < _TAIL:
            raise ValueError(f"a content has at least {_TAIL} bytes")
        self.size = size
        self._tail = hashlib.sha512(salt.encode()).digest()
        running = _common_hash(size - _TAIL).copy()
        running.update(self._tail)
        self.digest = "sha256:" + running.hexdigest()

    def __iter__(self) -> Iterator[memoryview]:
        yield from _common(self.size - _TAIL)
        yield memoryview(self._tail)

    def chunks(self) -> Iterator[memoryview]:
        """The same bytes in the chunked transfer coding (RFC 9112, 7.1), one piece for each chunk
        of 32 KiB.
        """
        framed = memoryview(_framed_block())
        step = len(framed) // (MIB // CHUNK)
        for piece in self:
            if len(piece) == MIB:
                for at in range(0, len(framed), step):
                    yield framed[at : at + step]
            else:
                for at in range(0, len(piece), CHUNK):
                    yield memoryview(_frame(piece[at : at + CHUNK]))
        yield memoryview(b"0\r\n\r\n")


@dataclass(frozen=True, slots=True)
class Image:
    """A whole small image: its blobs, config first, and its manifest."""

    blobs: tuple[bytes, ...]
    manifest: bytes


def small_image(seed: str, *, layers: int = 3, layer_size: int = 10 * 1024) -> Image:
    """An image of one config of 1 KiB and `layers` layers that no other seed has."""
    salt = hashlib.sha256(seed.encode()).digest()
    filler = _block()
    bodies = [
        salt + i.to_bytes(4, "big") + filler[: layer_size - len(salt) - 4] for i in range(layers)
    ]
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "2026-01-01T00:00:00Z",
            "config": {"Cmd": ["/bin/true"], "Labels": {"seed": seed}},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(body) for body in bodies]},
        }
    ).encode()
    config = config.ljust(1024)
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": _descriptor(_CONFIG_TYPE, config),
            "layers": [_descriptor(_LAYER_TYPE, body) for body in bodies],
        }
    ).encode()
    return Image((config, *bodies), manifest)


def _descriptor(media_type: str, content: bytes) -> dict[str, str | int]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}
