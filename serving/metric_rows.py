"""Rows of doubles, each under a text, that several processes can add up.

With a folder, a process keeps its rows in a mapped file there and holds the file's lock while it
lives. What was counted thus outlives a kill (the kernel keeps mapped pages), the next process takes
the file over and counts on in it, and a reader can tell the living from the dead. Without a folder,
rows are in private memory.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
import struct
import tempfile
from collections.abc import Iterator, Sequence
from typing import Final

_FILE_SIZE: Final = 1 << 20
"""bytes; sparse: pages are taken as rows are added, and all rows there can be need a tenth of it"""
_HEAD: Final = struct.Struct("=Q")
"""at offset 0: bytes in use, this head included"""
_ROW: Final = struct.Struct("=II")
"""before each row: bytes of its key (padded with spaces to a multiple of 8), doubles after it"""


def make_folder() -> str:
    """A new folder for the rows of several workers, made by their parent and removed after them.

    It is in memory where /dev/shm can be written to: a container's root may be read-only.
    """
    shared = "/dev/shm"
    return tempfile.mkdtemp(prefix="metrics-", dir=shared if os.access(shared, os.W_OK) else None)


class Rows:
    """The rows of this process. Not for two threads at once, but for the numbers in a row."""

    def __init__(self, folder: str | None) -> None:
        self._folder = folder
        self._path = ""
        self._file = -1
        self._rows: dict[str, memoryview[float]] = {}
        if folder is None:
            self._map = mmap.mmap(-1, _FILE_SIZE)
        else:
            self._path, self._file = _take_file(folder)
            self._map = mmap.mmap(self._file, _FILE_SIZE)
        self._view = memoryview(self._map)
        self._used: int = max(_HEAD.unpack_from(self._map)[0], _HEAD.size)
        for key, offset, width in _parse(self._map, self._used):
            self._rows[key] = self._view[offset : offset + 8 * width].cast("d")

    def row(self, key: str, width: int) -> memoryview[float]:
        """The `width` numbers under `key`: zeros where it is new."""
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = self._add(key.encode(), width)
        return row

    def mine(self) -> dict[str, list[float]]:
        """A copy of the rows of this process."""
        return {key: list(row) for key, row in self._rows.items()}

    def others(self) -> Iterator[tuple[dict[str, Sequence[float]], bool]]:
        """For each other process of the folder its rows, and whether it is alive."""
        if self._folder is None:
            return
        for name in os.listdir(self._folder):
            path = f"{self._folder}/{name}"
            if path != self._path:
                yield _read_file(path)

    def close(self) -> None:
        """Lets go of memory and file, which the next process may take over. Rows end with it."""
        for row in self._rows.values():
            row.release()
        self._rows.clear()
        self._view.release()
        self._map.close()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _add(self, key: bytes, width: int) -> memoryview[float]:
        key = key.ljust(-(-len(key) // 8) * 8)
        start = self._used + _ROW.size + len(key)
        end = start + 8 * width
        if end > _FILE_SIZE:
            # Full: better counted for the scrapes of this process alone than not at all.
            return memoryview(bytearray(8 * width)).cast("d")
        self._map[start:end] = bytes(8 * width)
        self._map[self._used : start] = _ROW.pack(len(key), width) + key
        self._used = end
        # Last, so that who reads the file, or takes it over after a kill, sees whole rows only.
        _HEAD.pack_into(self._map, 0, end)
        return self._view[start:end].cast("d")


def _take_file(folder: str) -> tuple[str, int]:
    """A file that no living process has, now locked: that of a dead one, else a new one."""
    names = sorted(os.listdir(folder))
    while True:
        name = names.pop(0) if names else f"{os.getpid()}-{secrets.token_hex(4)}"
        path = f"{folder}/{name}"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            continue
        os.ftruncate(file, _FILE_SIZE)
        return path, file


def _parse(content: bytes | mmap.mmap, used: int) -> Iterator[tuple[str, int, int]]:
    """Key, offset of the first double, and number of doubles of each row."""
    position = _HEAD.size
    while position < used:
        key_size, width = _ROW.unpack_from(content, position)
        position += _ROW.size
        key = content[position : position + key_size].rstrip().decode()
        position += key_size
        yield key, position, width
        position += 8 * width


def _read_file(path: str) -> tuple[dict[str, Sequence[float]], bool]:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        head = os.pread(file, _HEAD.size, 0)
        used = _HEAD.unpack(head)[0] if len(head) == _HEAD.size else 0
        content = os.pread(file, used, 0)
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            alive = True
        else:
            alive = False
    finally:
        os.close(file)
    rows: dict[str, Sequence[float]] = {
        key: struct.unpack_from(f"={width}d", content, offset)
        for key, offset, width in _parse(content, len(content))
    }
    return rows, alive
