"""The driver of a local or mounted file system: a PVC, an emptyDir.

The driver's path `/a/b` is the file `<root>/a/b`. Any number of processes use one root at once:
nothing about uploads, links or what exists is remembered in a process. Every call on files is made
in a thread, so that a hung server of the volume never stops the event loop.

Needs of the mount: `rename` that replaces, `flock` that is seen by all replicas (NFS: version 4, or
version 3 with its lock service; not `nolock`), and `fsync`.

Temporary names, which `walk` shows and `list` does not: `<name>.<uuid>.tmp` of a file,
`.new-<uuid>` of a folder that is being made, `.del-<uuid>` of one that is being removed. After a
crash they stay, and mean nothing.
"""

from __future__ import annotations

import asyncio
import os
from bisect import bisect_right
from collections.abc import AsyncIterator, Awaitable
from typing import Final, TypeVar

import aiofiles

from storage.driver import GET_LIMIT, FileInfo, InvalidOffset, PathNotFound, Writer
from storage.folders import Walker
from storage.localfiles import content_of, file_info, storage_error
from storage.localplans import LocalSteps
from storage.localpublish import move_file, publish
from storage.localthreads import QuickLane, SlowLane
from storage.localwriter import LocalWriter, open_anew, open_to_append
from storage.plan import Plan, Put

T = TypeVar("T")

_Names = list[str]
"""has a name because `list` means the verb inside the driver"""

PIECE: Final = 512 * 1024
"""bytes that `read` hands over at a time: what each of many slow readers over TLS costs in memory,
a few times over"""

QUICK_THREADS: Final = 4


class FilesystemDriver:
    """StorageDriver and LocalPlans over the folder `root`, which must be there.

    `threads` is how many jobs that sync, stream or scan run at once.
    """

    name = "filesystem"

    def __init__(self, root: str, *, threads: int = 16) -> None:
        self._root = os.path.abspath(root).rstrip("/")
        self._steps = LocalSteps(self._root)
        self._quick = QuickLane(QUICK_THREADS)
        self._slow = SlowLane(threads)

    async def perform(self, plan: Plan[T], *, writes: bool) -> T:
        """Runs the whole plan in one thread, to its end even when the caller is cancelled."""
        if writes:
            return await self._slow.submit(self._steps.drive, plan)
        return await self._quick.submit(self._steps.drive, plan)

    async def stat(self, path: str) -> FileInfo | None:
        return await self._quick.submit(self._file_info, path)

    async def get(self, path: str, limit: int = GET_LIMIT) -> bytes:
        return await self._quick.submit(self._content_of, (path, limit))

    async def read(
        self, path: str, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        opening = aiofiles.open(self._root + path, "rb", buffering=0, executor=self._slow.pool)
        try:
            async with opening as file:
                if offset:
                    size = await file.seek(0, os.SEEK_END)
                    if offset > size:
                        raise InvalidOffset(path, size)
                    await file.seek(offset)
                left = length
                while left is None or left > 0:
                    piece = await _uncut(file.read(PIECE if left is None else min(left, PIECE)))
                    if not piece:
                        return
                    if left is not None:
                        left -= len(piece)
                    yield piece
        except IsADirectoryError as error:
            raise PathNotFound(path, "it is a folder") from error
        except OSError as error:
            raise storage_error(error, path) from error

    async def put(self, path: str, content: bytes) -> None:
        groups = ((Put(path, content),),)
        await self._slow.submit(publish, self._root, self._steps.folders, groups)

    async def writer(self, path: str, *, append: bool) -> Writer:
        return await self._slow.submit(self._open_writer, path, append)

    async def list(self, path: str, after: str = "", limit: int | None = None) -> list[str]:
        names = await self._slow.submit(self._names, path)
        start = bisect_right(names, after) if after else 0
        return names[start:] if limit is None else names[start : start + limit]

    async def walk(self, path: str) -> AsyncIterator[FileInfo]:
        walker = Walker((self._root + path).rstrip("/"), path.rstrip("/"))
        while batch := await self._slow.submit(walker.batch):
            for info in batch:
                yield info

    async def move(self, source: str, target: str) -> None:
        """Raises Busy, too, where a writer has `source` open."""
        await self._slow.submit(move_file, self._root, self._steps.folders, source, target)

    async def delete(self, path: str) -> None:
        """A folder is gone for every reader in one step, and that is durable."""
        if not await self._slow.submit(self._delete, path):
            raise PathNotFound(path)

    async def redirect_url(self, path: str, method: str) -> str | None:
        return None

    async def close(self) -> None:
        """Takes no more jobs. The threads end by themselves, as they may hang in a call."""
        self._quick.close()
        self._slow.close()

    def _file_info(self, path: str) -> FileInfo | None:
        return file_info(self._root + path, path)

    def _names(self, path: str) -> _Names:
        return self._steps.names.names(self._root + path, path, keep=False)

    def _content_of(self, wanted: tuple[str, int]) -> bytes:
        path, limit = wanted
        content = content_of(self._root + path, path, limit)
        if content is None:
            raise PathNotFound(path)
        return content

    def _open_writer(self, path: str, append: bool) -> LocalWriter:
        opener = open_to_append if append else open_anew
        try:
            return opener(self._root + path, path, self._steps.folders, self._slow)
        except OSError as error:
            raise storage_error(error, path) from error

    def _delete(self, path: str) -> bool:
        return self._steps.delete(path, at_once=True)


async def _uncut(reading: Awaitable[bytes]) -> bytes:
    """The bytes read. When cancelled, it still waits for the thread: only then may the file be
    closed, as the descriptor's number could belong to another file before the read has begun."""
    task = asyncio.ensure_future(reading)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        raise
