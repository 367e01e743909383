"""Folders of local files: made, made durable, listed, walked. Blocking; for worker threads only,
any number at once.

What is remembered here is never the truth about content: `Folders` remembers which entries need no
second sync, and `FolderNames` remembers names for only as long as the folder itself proves that
they still hold.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from storage.driver import FileInfo, Unavailable
from storage.localfiles import ATTEMPTS, is_own_name, storage_error, sync_folder

REMEMBERED_FOLDERS: Final = 4096
REMEMBERED_NAMES: Final = 100_000
SETTLED_AFTER: Final = 2_000_000_000
"""nanoseconds after its last change from which on a folder's times prove that it has not changed
again: before, a further change may fall into the same tick of the clock, which for files is a
coarse one"""

WALK_BATCH: Final = 1000


class Folders:
    """Makes folders below `root`, and knows what has to be synced for an entry to be durable."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._durable: OrderedDict[str, int] = OrderedDict()

    def make(self, folder: str) -> None:
        """Makes `folder` and those above it, but never the root: without it, the volume is not
        mounted."""
        if folder == self._root:
            if os.path.isdir(folder):
                return
            raise Unavailable("/", "the root folder of the storage is not there")
        for _ in range(ATTEMPTS):
            try:
                os.mkdir(folder)
            except FileExistsError:
                return
            except FileNotFoundError:
                self.make(os.path.dirname(folder))
            else:
                with self._lock:
                    self._durable.pop(folder, None)
                return
        raise Unavailable(folder[len(self._root) :], "the folder above is removed again and again")

    def create(self, host: str, opened: Callable[[], int]) -> int:
        """What `opened` gives, which makes the file `host`; its folder is made where it is not
        there."""
        for _ in range(ATTEMPTS):
            try:
                return opened()
            except FileNotFoundError:
                self.make(os.path.dirname(host))
        raise Unavailable(host[len(self._root) :], "its folder is removed again and again")

    def entered(self, folder: str, dirty: dict[str, None]) -> None:
        """Adds to `dirty` what must be synced to make durable an entry that was just made in
        `folder`.

        That is `folder`, and each folder above it whose own entry is not known to be durable: it
        may have been made a moment ago, by another process too.
        """
        dirty[folder] = None
        while folder != self._root and not self._is_durable(folder):
            folder = os.path.dirname(folder)
            dirty[folder] = None

    def sync(self, dirty: Iterable[str]) -> None:
        """Makes the entries of all these folders durable. One that was removed meanwhile holds
        nothing to be kept."""
        inodes: dict[str, int] = {}
        for folder in dirty:
            try:
                inode = sync_folder(folder)
            except OSError as error:
                raise storage_error(error, folder[len(self._root) :]) from error
            if inode is not None:
                inodes[folder] = inode
        with self._lock:
            for folder, inode in inodes.items():
                if os.path.dirname(folder) in inodes:
                    self._durable[folder] = inode
                    self._durable.move_to_end(folder)
            while len(self._durable) > REMEMBERED_FOLDERS:
                self._durable.popitem(last=False)

    def _is_durable(self, folder: str) -> bool:
        with self._lock:
            inode = self._durable.get(folder)
            if inode is None:
                return False
            self._durable.move_to_end(folder)
        try:
            return os.stat(folder).st_ino == inode
        except FileNotFoundError:
            return False


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a folder's names were read under: inode, modification and change time."""

    times: tuple[int, int, int]
    names: list[str]


class FolderNames:
    """The sorted names of folders; those asked for with `keep` are remembered for as long as one
    stat shows the folder as it was when they were read, if that was then settled."""

    def __init__(
        self, limit: int = REMEMBERED_NAMES, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self._limit = limit
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self._total = 0

    def names(self, host: str, path: str, *, keep: bool) -> list[str]:
        """The names right below a folder, in byte order, without the storage's own; empty where it
        is absent."""
        try:
            if not keep:
                return _scan(host)
            now = self._clock()
            found = os.stat(host)
            times = (found.st_ino, found.st_mtime_ns, found.st_ctime_ns)
            with self._lock:
                seen = self._seen.get(host)
                if seen is not None and seen.times == times:
                    self._seen.move_to_end(host)
                    return seen.names
            names = _scan(host)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise storage_error(error, path) from error
        if now - max(found.st_mtime_ns, found.st_ctime_ns) > SETTLED_AFTER:
            self._remember(host, _Seen(times, names))
        return names

    def _remember(self, host: str, seen: _Seen) -> None:
        with self._lock:
            before = self._seen.pop(host, None)
            if before is not None:
                self._total -= _weight(before)
            self._seen[host] = seen
            self._total += _weight(seen)
            while self._total > self._limit:
                self._total -= _weight(self._seen.popitem(last=False)[1])


def _weight(seen: _Seen) -> int:
    # An empty folder costs its path, too.
    return len(seen.names) + 1


def _scan(host: str) -> list[str]:
    # Paths are ASCII, so the order of code points is the order of bytes.
    names = [
        name
        for name in os.listdir(host)
        if (name[0] != "." and name[-4:] != ".tmp") or not is_own_name(name)
    ]
    names.sort()
    return names


class Walker:
    """All regular files below a folder, batch by batch, temporary ones too; links are not
    followed."""

    def __init__(self, host: str, path: str) -> None:
        self._pending = [(host, path)]

    def batch(self) -> list[FileInfo]:
        """The next files, about WALK_BATCH of them; empty at the end. Raises Unavailable."""
        found: list[FileInfo] = []
        pending = self._pending
        while pending and len(found) < WALK_BATCH:
            host, path = pending.pop()
            try:
                self._enter(host, path, found)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise storage_error(error, path) from error
        return found

    def _enter(self, host: str, path: str, found: list[FileInfo]) -> None:
        with os.scandir(host) as entries:
            for entry in entries:
                below = f"{path}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    self._pending.append((f"{host}/{entry.name}", below))
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(status.st_mode):
                    found.append(FileInfo(below, status.st_size, status.st_mtime))
