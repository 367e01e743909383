"""The writer of one local upload file, locked against every other process while it is open."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from oci.digest import Chunk
from storage.driver import Busy, PathNotFound, Unavailable
from storage.folders import Folders
from storage.localfiles import (
    ATTEMPTS,
    FILE_MODE,
    OpenFile,
    lock,
    names_inode,
    start_writeback,
    storage_error,
    write_all,
)
from storage.localthreads import SlowLane

WRITEBACK: Final = 8 * 1024 * 1024
"""bytes after which the kernel is told to begin writing, so that the sync at the end finds
little"""

_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT


class LocalWriter:
    """The Writer and BlockingWriter of the filesystem driver.

    One call at a time, by a lock: a close that follows a cancelled write waits until the thread has
    left it, else the descriptor's number could belong to another file by then.
    """

    def __init__(
        self, file: OpenFile, size: int, *, host: str, path: str, folders: Folders, lane: SlowLane
    ) -> None:
        self.size = size
        self._file = file
        self._host = host
        self._path = path
        self._folders = folders
        self._lane = lane
        self._entry_is_new = size == 0
        self._writeback_from = size
        self._turn = threading.Lock()

    def write_now(self, chunk: Chunk) -> None:
        """As `write`, blocking. A chunk that does not fit is taken back whole."""
        with self._turn:
            descriptor = self._descriptor()
            try:
                write_all(descriptor, chunk)
            except OSError as error:
                with suppress(OSError):
                    os.ftruncate(descriptor, self.size)
                raise storage_error(error, self._path) from error
            self.size += len(chunk)
            if self.size - self._writeback_from >= WRITEBACK:
                start_writeback(descriptor, self._writeback_from)
                self._writeback_from = self.size

    async def write(self, chunk: Chunk) -> None:
        await self._lane.submit(self.write_now, chunk)

    async def commit(self) -> None:
        await self._lane.submit(self._commit)

    async def cancel(self) -> None:
        await self._lane.submit(self._cancel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file.fileno() >= 0:
            await self._lane.submit(self._close)

    def _commit(self) -> None:
        with self._turn:
            try:
                os.fsync(self._descriptor())
                if self._entry_is_new:
                    dirty: dict[str, None] = {}
                    self._folders.entered(os.path.dirname(self._host), dirty)
                    self._folders.sync(dirty)
            except OSError as error:
                raise storage_error(error, self._path) from error
            finally:
                self._file.close()

    def _cancel(self) -> None:
        with self._turn:
            try:
                # Only our own file: another may have been put in its place.
                if names_inode(self._host, os.fstat(self._descriptor())):
                    os.unlink(self._host)
            except FileNotFoundError:
                return
            except OSError as error:
                raise storage_error(error, self._path) from error
            finally:
                self._file.close()

    def _close(self) -> None:
        with self._turn:
            self._file.close()

    def _descriptor(self) -> int:
        descriptor = self._file.fileno()
        if descriptor < 0:
            raise Unavailable(self._path, "the writer is closed")
        return descriptor


def open_to_append(host: str, path: str, folders: Folders, lane: SlowLane) -> LocalWriter:
    """A writer at the end of the file, which is made where it is not there, but not its folder.

    Raises Busy, PathNotFound.
    """
    file = OpenFile(os.open(host, _FLAGS, FILE_MODE))
    size = lock(file.fileno(), host, path)
    return LocalWriter(file, size, host=host, path=path, folders=folders, lane=lane)


def open_anew(host: str, path: str, folders: Folders, lane: SlowLane) -> LocalWriter:
    """A writer of an empty file, made with its folder where it is not there. Raises Busy."""
    for _ in range(ATTEMPTS):
        file = OpenFile(folders.create(host, lambda: os.open(host, _FLAGS, FILE_MODE)))
        try:
            lock(file.fileno(), host, path)
        except PathNotFound:
            continue  # It was removed before the lock was ours: what is wanted is a new one anyway.
        # Not with the open call: that would cut a file that another writer has.
        os.ftruncate(file.fileno(), 0)
        return LocalWriter(file, 0, host=host, path=path, folders=folders, lane=lane)
    raise Busy(path, "the file is replaced again and again")
