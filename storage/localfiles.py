"""Blocking calls on single local files: errors in the storage's own words, locks, temporary names,
write-back.

Nothing in here may run on the event loop. Messages never show where on the host the storage is.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import stat
from collections.abc import Callable, Sequence
from typing import Final
from uuid import uuid4

from oci.digest import Chunk
from storage.driver import (
    Busy,
    FileInfo,
    FileTooLarge,
    InvalidPath,
    OutOfSpace,
    PathNotFound,
    ReadOnly,
    StorageError,
    Unavailable,
)

ATTEMPTS: Final = 10
"""tries to make a file in a folder that another process keeps removing"""

FILE_MODE: Final = 0o666
"""less the umask: who may read a volume is the business of its owner"""

NEW: Final = ".new-"
"""begins the name of a folder that is being built, beside the name it will get"""

DELETED: Final = ".del-"
"""begins the name of a folder that is gone for readers and being removed"""

_READ_AHEAD: Final = 64 * 1024
"""bytes asked for in the first read: manifests and links end within it, and the buffer stays on the
heap"""

# NFS clients call a removed file that is still open `.nfs...`. The form with hyphens is that of the
# CNCF registry.
_OWN_NAME: Final = re.compile(
    r"\.(?:new|del)-.+|\.nfs[0-9a-f]+|.+\.[0-9a-f]{8}(?:-?[0-9a-f]{4}){3}-?[0-9a-f]{12}\.tmp"
)

_KINDS: Final[dict[int, Callable[[str, str], StorageError]]] = {
    errno.ENOENT: PathNotFound,
    errno.ENOTDIR: PathNotFound,
    errno.ENOSPC: OutOfSpace,
    errno.EDQUOT: OutOfSpace,
    errno.EROFS: ReadOnly,
    errno.EFBIG: FileTooLarge,
    errno.ENAMETOOLONG: InvalidPath,
    errno.EINVAL: InvalidPath,
    errno.EISDIR: InvalidPath,
}


def storage_error(error: OSError, path: str) -> StorageError:
    """What `error` means for the driver's `path`. The file name inside `error` is not repeated."""
    number = error.errno or 0
    reason = f"{os.strerror(number)} ({errno.errorcode.get(number, number)})"
    return _KINDS.get(number, Unavailable)(path, reason)


def temporary_name(target: str) -> str:
    """A new name beside `target` for the file that will replace it."""
    return f"{target}.{uuid4().hex}.tmp"


def sibling(target: str, prefix: str) -> str:
    """A new name of the storage's own in the folder of `target`."""
    return f"{os.path.dirname(target)}/{prefix}{uuid4().hex}"


def is_own_name(name: str) -> bool:
    """Whether `name` is of the storage's own making, and no content."""
    return _OWN_NAME.fullmatch(name) is not None


class OpenFile:
    """A descriptor that is closed with `close`, or when nobody refers to it any more.

    The second way is needed: what a thread opened for a task that was cancelled meanwhile reaches
    no `finally`. And a call that still runs in a thread refers to the file, so that its number is
    not given to another file under it.
    """

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


def file_info(host: str, path: str) -> FileInfo | None:
    """Of the file or folder that is `host` on the host and `path` in the driver."""
    try:
        found = os.stat(host)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise storage_error(error, path) from error
    if stat.S_ISDIR(found.st_mode):
        return FileInfo(path, 0, found.st_mtime, is_folder=True)
    return FileInfo(path, found.st_size, found.st_mtime)


def content_of(host: str, path: str, limit: int) -> bytes | None:
    """The whole file, or None where there is none. Raises FileTooLarge over `limit` bytes."""
    try:
        descriptor = os.open(host, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise storage_error(error, path) from error
    try:
        first = min(limit + 1, _READ_AHEAD)
        content = os.read(descriptor, first)
        if len(content) == first <= limit:
            size = min(limit + 1, os.fstat(descriptor).st_size)
            content += read_bytes(descriptor, size - first)
    except IsADirectoryError:
        return None
    except OSError as error:
        raise storage_error(error, path) from error
    finally:
        os.close(descriptor)
    if len(content) > limit:
        raise FileTooLarge(path, f"the file has more than {limit} bytes")
    return content


def read_bytes(descriptor: int, count: int) -> bytes:
    """The next `count` bytes, fewer at the end of the file."""
    pieces = []
    while count > 0 and (piece := os.read(descriptor, count)):
        pieces.append(piece)
        count -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def write_all(descriptor: int, content: Chunk) -> None:
    """Writes all of `content`, however the system cuts it."""
    written = os.write(descriptor, content)
    if written == len(content):
        return
    view = memoryview(content)
    while written < len(view):
        written += os.write(descriptor, view[written:])


def lock(descriptor: int, host: str, path: str) -> int:
    """Locks an open upload file against every other process, and gives its size in bytes.

    The kernel frees the lock with the descriptor, also after kill -9. Raises Busy where another has
    it, and PathNotFound where the file got another name, or none, between its opening and its
    locking.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise Busy(path, "another writer has the file open") from error
    held = os.fstat(descriptor)
    if not names_inode(host, held):
        raise PathNotFound(path, "the file was moved or removed meanwhile")
    return held.st_size


def names_inode(host: str, held: os.stat_result) -> bool:
    """Whether `host` is still the name of the file that `held` tells of."""
    try:
        named = os.stat(host)
    except FileNotFoundError:
        return False
    return (named.st_ino, named.st_dev) == (held.st_ino, held.st_dev)


def sync_folder(host: str) -> int | None:
    """Makes the entries of a folder durable -> its inode number, or None where it is not there any
    more."""
    try:
        descriptor = os.open(host, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        try:
            os.fsync(descriptor)
        except OSError as error:
            # Some network file systems have no such call for folders; their server keeps the
            # entries.
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        return os.fstat(descriptor).st_ino
    finally:
        os.close(descriptor)


def remove_tree(host: str) -> None:
    """Removes a folder with all in it, also while others remove or add."""
    for attempt in range(ATTEMPTS):
        try:
            with os.scandir(host) as entries:
                for entry in list(entries):
                    if entry.is_dir(follow_symlinks=False):
                        remove_tree(entry.path)
                    else:
                        remove_file(entry.path)
            os.rmdir(host)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.ENOTEMPTY or attempt == ATTEMPTS - 1:
                raise
        else:
            return


def remove_known(host: str, files: Sequence[str]) -> bool:
    """Removes a folder that is thought to have just these files, without looking into it -> False
    where it has others, or is not there: then it may have lost the files, but no other one."""
    folders = {host: None}
    try:
        for name in files:
            remove_file(f"{host}/{name}")
            while "/" in name:
                name = name.rpartition("/")[0]
                folders[f"{host}/{name}"] = None
        for folder in sorted(folders, key=len, reverse=True):
            os.rmdir(folder)
    except OSError:
        return False
    return True


def remove_file(host: str) -> bool:
    """Removes a file -> whether it was there."""
    try:
        os.unlink(host)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    call = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if call is None:
        return None
    call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return call  # type: ignore[no-any-return]  # a foreign function is untyped


_RANGE: Final = _sync_file_range()
_WRITE: Final = 2  # SYNC_FILE_RANGE_WRITE of <fcntl.h>


def start_writeback(descriptor: int, offset: int = 0) -> None:
    """Lets the kernel begin to write what the file has from `offset` on, where it can: a later
    fsync waits less.

    It makes nothing durable, and its failure means nothing.
    """
    if _RANGE is not None:
        _RANGE(descriptor, offset, 0, _WRITE)
