"""Backends laid out file by file, with files as old as a test needs them, on a storage that can
fail or be killed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from oci.descriptor import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from oci.digest import Digest
from storage import paths
from storage.driver import FileInfo, StorageDriver, Unavailable, Writer
from storage.memory import MemoryDriver

NOW: Final = 1_700_000_000.0
"""seconds since the epoch: the time of tests"""

HOUR: Final = 3600.0
OLD: Final = 2 * HOUR
YOUNG: Final = 60.0
"""ages in seconds, around a grace of one hour"""

LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"


class Killed(BaseException):
    """What every call of a killed process's storage raises."""


@dataclass(slots=True)
class AgedDriver:
    """StorageDriver in memory where each file has the age that it was given; what is written later
    is new.

    `refused`: verbs and paths that raise Unavailable; `kill_after`: deletions after which the
    process is dead; `before_delete` is called with each path that is about to go.
    """

    now: float = NOW
    refused: set[tuple[str, str]] = field(default_factory=set)
    kill_after: int | None = None
    before_delete: Callable[[str], None] = lambda path: None
    deleted: list[str] = field(default_factory=list)
    name: str = "aged"
    _inner: MemoryDriver = field(default_factory=MemoryDriver)
    _modified: dict[str, float] = field(default_factory=dict)

    def set_age(self, path: str, age: float) -> None:
        self._modified[path] = self.now - age

    def _check(self, verb: str, path: str) -> None:
        if self.kill_after is not None and len(self.deleted) >= self.kill_after:
            raise Killed
        if (verb, path) in self.refused:
            raise Unavailable(path, "refused")

    def _aged(self, info: FileInfo) -> FileInfo:
        return FileInfo(info.path, info.size, self._modified.get(info.path, self.now))

    async def stat(self, path: str) -> FileInfo | None:
        self._check("stat", path)
        info = await self._inner.stat(path)
        if info is None or not info.is_folder:
            return None if info is None else self._aged(info)
        below = [self._aged(file).modified async for file in self._inner.walk(path)]
        return FileInfo(path, 0, max(below, default=0.0), is_folder=True)

    async def get(self, path: str, limit: int = 4 * 1024 * 1024) -> bytes:
        self._check("get", path)
        return await self._inner.get(path, limit)

    def read(self, path: str, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        return self._inner.read(path, offset, length)

    async def put(self, path: str, content: bytes) -> None:
        self._modified.pop(path, None)
        await self._inner.put(path, content)

    async def writer(self, path: str, *, append: bool) -> Writer:
        self._check("writer", path)
        return await self._inner.writer(path, append=append)

    async def list(self, path: str, after: str = "", limit: int | None = None) -> list[str]:
        self._check("list", path)
        return await self._inner.list(path, after, limit)

    async def walk(self, path: str) -> AsyncIterator[FileInfo]:
        self._check("walk", path)
        async for info in self._inner.walk(path):
            yield self._aged(info)

    async def move(self, source: str, target: str) -> None:
        self._modified.pop(target, None)
        await self._inner.move(source, target)

    async def delete(self, path: str) -> None:
        self._check("delete", path)
        self.before_delete(path)
        self.deleted.append(path)
        await self._inner.delete(path)

    async def redirect_url(self, path: str, method: str) -> str | None:
        return None

    async def close(self) -> None:
        return None

    async def files(self) -> set[str]:
        """The paths of all files."""
        return {info.path async for info in self._inner.walk("")}


def descriptor(digest: Digest, media_type: str = LAYER, size: int = 1) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": size}


def image(
    layers: Sequence[Digest] = (), *, config: Digest, subject: Digest | None = None, note: str = ""
) -> bytes:
    """An image manifest; `note` makes it differ from others."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(config, OCI_CONFIG),
        "layers": [descriptor(layer) for layer in layers],
        "annotations": {"note": note},
    }
    if subject is not None:
        document["subject"] = descriptor(subject, OCI_MANIFEST)
    return json.dumps(document).encode()


def index(
    children: Sequence[tuple[Digest, str]], *, subject: Digest | None = None, note: str = ""
) -> bytes:
    """An index of children and their media types."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [descriptor(child, media_type) for child, media_type in children],
        "annotations": {"note": note},
    }
    if subject is not None:
        document["subject"] = descriptor(subject, OCI_MANIFEST)
    return json.dumps(document).encode()


@dataclass(frozen=True, slots=True)
class Backend:
    """Puts the files of a registry onto a driver as a push would leave them, each `age` seconds old
    (`set_age` sees to that)."""

    driver: StorageDriver
    set_age: Callable[[str, float], None]

    @classmethod
    def on(cls, driver: AgedDriver) -> Backend:
        return cls(driver, driver.set_age)

    @classmethod
    def in_folder(cls, driver: StorageDriver, root: str) -> Backend:
        """On a driver of local files, whose times are real ones."""

        def set_age(path: str, age: float) -> None:
            then = time.time() - age
            os.utime(root + path, (then, then))

        return cls(driver, set_age)

    async def file(self, path: str, content: bytes, age: float = OLD) -> str:
        await self.driver.put(path, content)
        self.set_age(path, age)
        return path

    async def blob(self, content: bytes, age: float = OLD) -> Digest:
        digest = Digest.of(content)
        await self.file(paths.blob(digest), content, age)
        return digest

    async def layer_link(self, name: str, digest: Digest, age: float = OLD) -> str:
        return await self.file(paths.layer_link(name, digest), digest.encode(), age)

    async def layer(self, name: str, content: bytes, age: float = OLD) -> Digest:
        """A blob with a link to it."""
        digest = await self.blob(content, age)
        await self.layer_link(name, digest, age)
        return digest

    async def revision(self, name: str, digest: Digest, age: float = OLD) -> str:
        return await self.file(paths.revision_link(name, digest), digest.encode(), age)

    async def manifest(self, name: str, content: bytes, *tags: str, age: float = OLD) -> Digest:
        """A manifest with its revision link, its referrer edge and its tags."""
        digest = await self.blob(content, age)
        await self.revision(name, digest, age)
        subject = json.loads(content).get("subject")
        if subject is not None:
            await self.referrer(name, Digest.parse(subject["digest"]), digest, age)
        for tag in tags:
            await self.tag(name, tag, digest, age)
        return digest

    async def referrer(self, name: str, subject: Digest, referrer: Digest, age: float = OLD) -> str:
        path = paths.referrer_link(name, subject, referrer)
        return await self.file(path, referrer.encode(), age)

    async def tag(self, name: str, tag: str, digest: Digest, age: float = OLD) -> str:
        await self.file(paths.tag_index(name, tag, digest), digest.encode(), age)
        return await self.file(paths.tag_current(name, tag), digest.encode(), age)

    async def image(
        self,
        name: str,
        *tags: str,
        seed: str = "image",
        age: float = OLD,
        subject: Digest | None = None,
    ) -> Digest:
        """An image of its own config and layer."""
        config = await self.layer(name, f"config of {seed}".encode(), age)
        layer = await self.layer(name, f"layer of {seed}".encode(), age)
        content = image([layer], config=config, subject=subject, note=seed)
        return await self.manifest(name, content, *tags, age=age)

    async def upload(self, name: str, upload: str, *, started: str | None, age: float = OLD) -> str:
        """An open upload with some bytes; its folder."""
        if started is not None:
            await self.file(paths.upload_started(name, upload), started.encode(), age)
        await self.file(paths.upload_data(name, upload), b"bytes", age)
        return paths.upload_folder(name, upload)
