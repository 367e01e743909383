"""A driver that keeps its files in memory, for tests and demonstrations.

It has no `LocalPlans`, so that every plan takes the way that remote storage takes, and it lets
other tasks run in each verb, as a driver that waits for something does.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Iterator, Sequence
from types import TracebackType
from typing import Final, Self

from oci.digest import Chunk
from storage.driver import (
    GET_LIMIT,
    Busy,
    FileInfo,
    FileTooLarge,
    InvalidOffset,
    InvalidPath,
    PathNotFound,
    Unavailable,
    Writer,
)

PIECE: Final = 64 * 1024
"""bytes that `read` hands over at a time"""


class _File:
    __slots__ = ("content", "has_writer", "modified")

    def __init__(self, content: bytes) -> None:
        self.content = bytearray(content)
        self.modified = time.time()
        self.has_writer = False


class MemoryDriver:
    """StorageDriver for the tasks of one process, gone with it."""

    name = "inmemory"

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        self._folders: dict[str, dict[str, int]] = {"": {}}
        """per folder: how many files each name in it stands for"""

    async def stat(self, path: str) -> FileInfo | None:
        await asyncio.sleep(0)
        file = self._files.get(path)
        if file is not None:
            return FileInfo(path, len(file.content), file.modified)
        if path.rstrip("/") not in self._folders:
            return None
        newest = max((info.modified for info in self._below(path)), default=0.0)
        return FileInfo(path, 0, newest, is_folder=True)

    async def get(self, path: str, limit: int = GET_LIMIT) -> bytes:
        await asyncio.sleep(0)
        content = self._file(path).content
        if len(content) > limit:
            raise FileTooLarge(path, f"the file has more than {limit} bytes")
        return bytes(content)

    async def read(
        self, path: str, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        await asyncio.sleep(0)
        content = self._file(path).content
        if offset > len(content):
            raise InvalidOffset(path, len(content))
        end = len(content) if length is None else min(offset + length, len(content))
        for start in range(offset, end, PIECE):
            yield bytes(content[start : min(start + PIECE, end)])
            await asyncio.sleep(0)

    async def put(self, path: str, content: bytes) -> None:
        await asyncio.sleep(0)
        self._insert(path, _File(content))

    async def writer(self, path: str, *, append: bool) -> Writer:
        await asyncio.sleep(0)
        file = self._files.get(path)
        if file is None:
            if append and path.rpartition("/")[0] not in self._folders:
                raise PathNotFound(path)
            file = _File(b"")
            self._insert(path, file)
        if file.has_writer:
            raise Busy(path, "another writer has the file open")
        if not append:
            file.content.clear()
        return _MemoryWriter(self, path, file)

    async def list(self, path: str, after: str = "", limit: int | None = None) -> list[str]:
        await asyncio.sleep(0)
        names = sorted(self._folders.get(path.rstrip("/"), ()))
        start = bisect_right(names, after) if after else 0
        return names[start:] if limit is None else names[start : start + limit]

    async def walk(self, path: str) -> AsyncIterator[FileInfo]:
        for info in self._below(path):
            await asyncio.sleep(0)
            if info.path in self._files:
                yield info

    async def move(self, source: str, target: str) -> None:
        """Raises Busy, too, where a writer has `source` open."""
        await asyncio.sleep(0)
        file = self._file(source)
        if file.has_writer:
            raise Busy(source, "another writer has the file open")
        if source != target:
            self._insert(target, file)
            self._remove(source)

    async def delete(self, path: str) -> None:
        await asyncio.sleep(0)
        if path in self._files:
            self._remove(path)
        elif path in self._folders:
            for info in self._below(path):
                self._remove(info.path)
        else:
            raise PathNotFound(path)

    async def redirect_url(self, path: str, method: str) -> str | None:
        return None

    async def close(self) -> None:
        return None

    def discard(self, path: str, file: _File) -> None:
        """Removes `file` if it still has the name `path`."""
        if self._files.get(path) is file:
            self._remove(path)

    def _file(self, path: str) -> _File:
        file = self._files.get(path)
        if file is None:
            raise PathNotFound(path)
        return file

    def _insert(self, path: str, file: _File) -> None:
        if path in self._folders:
            raise InvalidPath(path, "it is a folder")
        if path not in self._files:
            steps = list(_steps(path))
            if any(folder in self._files for folder, _ in steps):
                raise PathNotFound(path, "a file is in the place of one of its folders")
            for folder, name in steps:
                names = self._folders.setdefault(folder, {})
                names[name] = names.get(name, 0) + 1
        self._files[path] = file

    def _remove(self, path: str) -> None:
        del self._files[path]
        for folder, name in _steps(path):
            names = self._folders[folder]
            names[name] -= 1
            if not names[name]:
                del names[name]
            if folder and not names:
                del self._folders[folder]

    def _below(self, path: str) -> Sequence[FileInfo]:
        found: list[FileInfo] = []
        pending = [path.rstrip("/")]
        while pending:
            folder = pending.pop()
            for name in self._folders.get(folder, ()):
                below = f"{folder}/{name}"
                file = self._files.get(below)
                if file is None:
                    pending.append(below)
                else:
                    found.append(FileInfo(below, len(file.content), file.modified))
        return found


class _MemoryWriter:
    def __init__(self, driver: MemoryDriver, path: str, file: _File) -> None:
        self.size = len(file.content)
        self._driver = driver
        self._path = path
        self._file = file
        self._is_open = file.has_writer = True

    async def write(self, chunk: Chunk) -> None:
        await asyncio.sleep(0)
        self._check_open()
        self._file.content += chunk
        self._file.modified = time.time()
        self.size = len(self._file.content)

    async def commit(self) -> None:
        await asyncio.sleep(0)
        self._check_open()
        self._close()

    async def cancel(self) -> None:
        await asyncio.sleep(0)
        self._check_open()
        self._driver.discard(self._path, self._file)
        self._close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_open:
            self._close()

    def _check_open(self) -> None:
        if not self._is_open:
            raise Unavailable(self._path, "the writer is closed")

    def _close(self) -> None:
        self._is_open = self._file.has_writer = False


def _steps(path: str) -> Iterator[tuple[str, str]]:
    """Each folder above `path`, the nearest first, with the name in it that leads there."""
    while path:
        folder, _, name = path.rpartition("/")
        yield folder, name
        path = folder
