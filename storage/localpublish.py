"""Publishing on local files: content is durable under a temporary name before a rename makes it
visible, and the rename is durable before the next group appears.

A sync waits for a commit of the file system's journal, and that is what a small push costs. So all
files of all groups are written first and their write-back begun; then the files of a group are
synced after the renames of the group before: one commit makes both last, and the sync of the
renames' folders finds nothing left to do.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

from storage.driver import InvalidOffset, PathNotFound, Unavailable
from storage.folders import Folders
from storage.localfiles import (
    ATTEMPTS,
    FILE_MODE,
    NEW,
    lock,
    remove_tree,
    sibling,
    start_writeback,
    storage_error,
    sync_folder,
    temporary_name,
    write_all,
)
from storage.plan import Entry, Keep, Move, Put, PutFolder

WRITEBACK_LEAST: Final = 64 * 1024
"""bytes of a file from which on it pays to begin its write-back before its sync"""


class _Piece(Protocol):
    """One thing to publish. Both methods raise OSError of the file at hand, and errors of the
    storage."""

    path: str

    def prepare(self) -> None:
        """Writes what can be written without being seen."""
        ...

    def appear(self, dirty: dict[str, None]) -> None:
        """Renames, and adds to `dirty` the folders that must be synced for the rename to last."""
        ...


def publish(root: str, folders: Folders, groups: Sequence[Sequence[Entry]]) -> None:
    """Makes `groups` visible, one durable before the next.

    Raises PathNotFound, InvalidOffset, Busy, OutOfSpace, ReadOnly, InvalidPath, Unavailable; what a
    group before the failing one made visible stays.
    """
    work = _Workshop(root, folders)
    pieces = [[_piece(work, entry) for entry in group] for group in groups]
    _run(work, pieces)


def move_file(root: str, folders: Folders, source: str, target: str) -> None:
    """Renames a file that no writer has open, durably. Raises PathNotFound, Busy, InvalidPath,
    Unavailable."""
    work = _Workshop(root, folders)
    _run(work, [[_MovedFile(work, source, target, None, durable=False)]])


def _piece(work: _Workshop, entry: Entry) -> _Piece:
    match entry:
        case Put(path, content):
            return _NewFile(work, path, content)
        case Move(source, target, size, durable):
            return _MovedFile(work, source, target, size, durable=durable)
        case Keep(path):
            return _KeptFile(work, path)
        case PutFolder(path, files):
            return _NewFolder(work, path, files)


def _run(work: _Workshop, groups: Sequence[Sequence[_Piece]]) -> None:
    at = ""
    try:
        written = []
        for group in groups:
            for piece in group:
                at = piece.path
                piece.prepare()
            written.append(work.take_unsynced())
        dirty: dict[str, None] = {}
        for group, unsynced in zip(groups, written, strict=True):
            unsynced.sync()
            work.folders.sync(dirty)
            dirty = {}
            for piece in group:
                at = piece.path
                piece.appear(dirty)
        work.folders.sync(dirty)
    except OSError as error:
        raise storage_error(error, at) from error
    finally:
        work.close()


@dataclass(slots=True)
class _Unsynced:
    """What was written and has to be made durable."""

    files: list[int] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)

    def sync(self) -> None:
        for descriptor in self.files:
            os.fsync(descriptor)
        for folder in self.folders:
            sync_folder(folder)


class _Workshop:
    """What one publication has in hand: open descriptors, and names that must not outlive it."""

    def __init__(self, root: str, folders: Folders) -> None:
        self.root = root
        self.folders = folders
        self._open: list[int] = []
        self._unsynced = _Unsynced()
        self._leftovers: dict[str, None] = {}

    def host(self, path: str) -> str:
        return self.root + path

    def hold(self, descriptor: int, *, durable: bool = False) -> None:
        """Takes over a file that is open to the end: with it goes its lock. It has to be synced,
        unless it is `durable`."""
        self._open.append(descriptor)
        if not durable:
            self._unsynced.files.append(descriptor)

    def write(self, host: str, content: bytes) -> None:
        """Writes a new file."""
        self._fill(self._create(host), content)

    def write_temporary(self, target: str, content: bytes) -> str:
        """Writes the file that will become `target` -> its name. The folder has to be there."""
        temporary = temporary_name(target)
        descriptor = self._create(temporary)
        self._leftovers[temporary] = None
        self._fill(descriptor, content)
        return temporary

    def make_sibling(self, target: str) -> str:
        """Makes the folder that will become `target` -> its name."""
        folder = sibling(target, NEW)
        os.mkdir(folder)
        self._leftovers[folder] = None
        self._unsynced.folders.append(folder)
        return folder

    def make_below(self, folder: str, base: str) -> None:
        """Makes `folder`, which is below `base`, but not `base`: without it, FileNotFoundError."""
        if folder == base:
            return
        try:
            try:
                os.mkdir(folder)
            except FileNotFoundError:
                self.make_below(os.path.dirname(folder), base)
                os.mkdir(folder)
        except FileExistsError:
            return  # Another process may have made it in this moment.
        if base in self._leftovers:
            self._unsynced.folders.append(folder)

    def rename(self, source: str, target: str) -> None:
        os.rename(source, target)
        self._leftovers.pop(source, None)

    def take_unsynced(self) -> _Unsynced:
        """What was written since the last time."""
        taken, self._unsynced = self._unsynced, _Unsynced()
        return taken

    def close(self) -> None:
        for descriptor in self._open:
            os.close(descriptor)
        for name in self._leftovers:
            # What cannot be removed now is left to garbage collection, which knows these names by
            # their form.
            with suppress(OSError):
                if os.path.isdir(name):
                    remove_tree(name)
                else:
                    os.unlink(name)

    def _create(self, host: str) -> int:
        descriptor = os.open(host, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
        self.hold(descriptor)
        return descriptor

    def _fill(self, descriptor: int, content: bytes) -> None:
        write_all(descriptor, content)
        if len(content) >= WRITEBACK_LEAST:
            start_writeback(descriptor)


class _NewFile:
    def __init__(self, work: _Workshop, path: str, content: bytes) -> None:
        self.path = path
        self._work = work
        self._content = content
        self._target = work.host(path)
        self._temporary = ""

    def prepare(self) -> None:
        for _ in range(ATTEMPTS):
            # Links and blobs have folders of their own, so that it is mostly a new one.
            self._work.folders.make(os.path.dirname(self._target))
            with suppress(FileNotFoundError):
                self._temporary = self._work.write_temporary(self._target, self._content)
                return
        raise _restless(self.path)

    def appear(self, dirty: dict[str, None]) -> None:
        for _ in range(ATTEMPTS):
            try:
                self._work.rename(self._temporary, self._target)
            except FileNotFoundError:
                # The folder was removed, and the temporary file with it.
                self.prepare()
                self._work.take_unsynced().sync()
            else:
                self._work.folders.entered(os.path.dirname(self._target), dirty)
                return
        raise _restless(self.path)


class _MovedFile:
    def __init__(
        self, work: _Workshop, source: str, target: str, size: int | None, *, durable: bool
    ) -> None:
        self.path = target
        self._work = work
        self._source_path = source
        self._source = work.host(source)
        self._target = work.host(target)
        self._size = size
        self._durable = durable

    def prepare(self) -> None:
        source = self._source_path
        try:
            # For writing: over NFS, a lock against others is only given on such a descriptor.
            descriptor = os.open(self._source, os.O_WRONLY)
        except (IsADirectoryError, FileNotFoundError, NotADirectoryError) as error:
            raise PathNotFound(source) from error
        self._work.hold(descriptor, durable=self._durable)
        size = lock(descriptor, self._source, source)
        if self._size not in (None, size):
            raise InvalidOffset(source, size)
        self._work.folders.make(os.path.dirname(self._target))

    def appear(self, dirty: dict[str, None]) -> None:
        folder = os.path.dirname(self._target)
        for _ in range(ATTEMPTS):
            try:
                self._work.rename(self._source, self._target)
            except FileNotFoundError as error:
                if not os.path.exists(self._source):
                    raise PathNotFound(self._source_path) from error
                self._work.folders.make(folder)
            else:
                self._work.folders.entered(folder, dirty)
                return
        raise _restless(self.path)


class _KeptFile:
    def __init__(self, work: _Workshop, path: str) -> None:
        self.path = path
        self._work = work
        self._host = work.host(path)
        self._found = False

    def prepare(self) -> None:
        # Another process may have renamed it a moment ago, and not have come to the folder's sync.
        with suppress(FileNotFoundError, NotADirectoryError):
            descriptor = os.open(self._host, os.O_RDONLY)
            self._work.hold(descriptor)
            # Young again: a collection that runs meanwhile leaves it.
            os.utime(descriptor)
            self._found = True

    def appear(self, dirty: dict[str, None]) -> None:
        if self._found:
            self._work.folders.entered(os.path.dirname(self._host), dirty)


class _NewFolder:
    """A folder that appears whole by one rename, or whose files come one after the other where it
    is there."""

    def __init__(self, work: _Workshop, path: str, files: Sequence[tuple[str, bytes]]) -> None:
        self.path = path
        self._work = work
        self._target = work.host(path)
        self._files = files
        self._whole = ""
        """the folder that is to be renamed, if it is one"""
        self._renames: list[tuple[str, str]] = []

    def prepare(self) -> None:
        for _ in range(ATTEMPTS):
            try:
                if os.path.exists(self._target):
                    self._write_files()
                else:
                    self._write_folder()
            except FileNotFoundError:
                # The folder, or the one above it, was removed in this moment.
                self._work.folders.make(os.path.dirname(self._target))
            else:
                return
        raise _restless(self.path)

    def appear(self, dirty: dict[str, None]) -> None:
        for _ in range(ATTEMPTS):
            try:
                if self._whole and self._appear_whole():
                    self._work.folders.entered(os.path.dirname(self._target), dirty)
                else:
                    self._appear_in_order(dirty)
            except FileNotFoundError:
                self.prepare()
                self._work.take_unsynced().sync()
            else:
                return
        raise _restless(self.path)

    def _write_folder(self) -> None:
        self._whole = base = self._work.make_sibling(self._target)
        self._renames = []
        for name, content in self._files:
            host = f"{base}/{name}"
            self._work.make_below(os.path.dirname(host), base)
            self._work.write(host, content)
            self._renames.append((host, f"{self._target}/{name}"))

    def _write_files(self) -> None:
        self._whole = ""
        self._renames = []
        for name, content in self._files:
            target = f"{self._target}/{name}"
            self._work.make_below(os.path.dirname(target), self._target)
            self._renames.append((self._work.write_temporary(target, content), target))

    def _appear_whole(self) -> bool:
        try:
            self._work.rename(self._whole, self._target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return False
        return True

    def _appear_in_order(self, dirty: dict[str, None]) -> None:
        last: dict[str, None] = {}
        for source, target in self._renames:
            self._work.folders.sync(last)
            last.clear()
            self._work.make_below(os.path.dirname(target), self._target)
            self._work.rename(source, target)
            self._work.folders.entered(os.path.dirname(target), last)
        dirty.update(last)


def _restless(path: str) -> Unavailable:
    return Unavailable(path, "its folder is removed again and again")
