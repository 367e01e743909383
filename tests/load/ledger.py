"""What the clients know: the images they push, and what the registry has answered for.

The registry may have done more than it could answer before it was killed, never less.
"""

from __future__ import annotations

import math
import random
import threading
import time
from dataclasses import dataclass, field

from oci.digest import Digest
from tests.load.wire import Violation


@dataclass(frozen=True, slots=True)
class Blob:
    """`size` bytes that are made of `seed`, so that nobody has to keep them."""

    seed: int
    size: int
    digest: Digest

    @classmethod
    def make(cls, seed: int, size: int) -> Blob:
        return cls(seed, size, Digest.of(_bytes_of(seed, size)))

    def content(self) -> bytes:
        return _bytes_of(self.seed, self.size)


def _bytes_of(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


@dataclass(frozen=True, slots=True)
class Image:
    """A manifest with its blobs; an index has children instead."""

    content: bytes
    media_type: str
    digest: Digest
    blobs: tuple[Blob, ...] = ()
    children: tuple[Image, ...] = ()
    subject: Digest | None = None

    def family(self) -> tuple[Image, ...]:
        """Itself and its children."""
        return (self, *self.children)


@dataclass(frozen=True, slots=True)
class TagWrite:
    """A push to a tag. Times of the monotonic clock; `ended` is infinite while there is no
    answer."""

    digest: Digest
    begun: float
    ended: float = math.inf
    acknowledged: bool = False


@dataclass(slots=True)
class Repository:
    """`images` were answered with 201 and `blobs` are theirs; `tags` have all that was tried."""

    images: dict[Digest, Image] = field(default_factory=dict)
    blobs: dict[Digest, Blob] = field(default_factory=dict)
    tags: dict[str, list[TagWrite]] = field(default_factory=dict)


class Ledger:
    """All that was acknowledged. For any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.repositories: dict[str, Repository] = {}
        self.fresh: list[tuple[str, Image]] = []
        """acknowledged since `take_fresh` was called last"""
        self.acknowledged = 0

    def begin_tag(self, name: str, tag: str, digest: Digest) -> TagWrite:
        with self._lock:
            writes = self._repository(name).tags.setdefault(tag, [])
            write = TagWrite(digest, time.monotonic())
            writes.append(write)
            return write

    def acknowledge(self, name: str, image: Image, tag: str | None, write: TagWrite | None) -> None:
        with self._lock:
            repository = self._repository(name)
            repository.images[image.digest] = image
            repository.blobs.update((blob.digest, blob) for blob in image.blobs)
            self.fresh.append((name, image))
            self.acknowledged += 1
            if tag is not None and write is not None:
                writes = repository.tags[tag]
                done = TagWrite(write.digest, write.begun, time.monotonic(), acknowledged=True)
                writes[writes.index(write)] = done

    def has_blob(self, name: str, digest: Digest) -> bool:
        with self._lock:
            return digest in self._repository(name).blobs

    def sources(self, digest: Digest) -> list[str]:
        """The repositories from which the blob can be mounted."""
        with self._lock:
            return [name for name, one in self.repositories.items() if digest in one.blobs]

    def some_image(self, name: str, dice: random.Random) -> Digest | None:
        with self._lock:
            images = self._repository(name).images
            return dice.choice(list(images)) if images else None

    def server_killed(self) -> None:
        """What had no answer by now happened before now, or never."""
        now = time.monotonic()
        with self._lock:
            for repository in self.repositories.values():
                for writes in repository.tags.values():
                    for at, write in enumerate(writes):
                        if math.isinf(write.ended):
                            writes[at] = TagWrite(write.digest, write.begun, now)

    def take_fresh(self) -> list[tuple[str, Image]]:
        with self._lock:
            taken, self.fresh = self.fresh, []
            return taken

    def observe_tag(self, name: str, tag: str, found: Digest | None) -> None:
        """Checks what a tag points to while nobody pushes (None: it is not there). Raises
        Violation."""
        with self._lock:
            writes = self._repository(name).tags.get(tag, [])
            superseded = max(
                (write.begun for write in writes if write.acknowledged), default=-math.inf
            )
            possible = {write.digest for write in writes if write.ended >= superseded}
            if found is None:
                if not math.isinf(superseded):
                    raise Violation(f"{name}:{tag} was acknowledged and is gone")
                return
            if found not in possible:
                raise Violation(f"{name}:{tag} is {found}, and can only be one of {possible}")
            seen = time.monotonic()
            self._repository(name).tags[tag] = [TagWrite(found, seen, seen, acknowledged=True)]

    def _repository(self, name: str) -> Repository:
        return self.repositories.setdefault(name, Repository())
