"""The seam between the registry and where its bytes are: few verbs, and one contract suite for all
drivers.

A path begins with `/` and is made of segments of `[A-Za-z0-9._-]`; folders come and go with the
files in them. What only some drivers can do is a Protocol of its own (`LocalPlans`,
`BlockingWriter`), with the plain way as fallback.

StorageError
  PathNotFound, InvalidPath, InvalidOffset, Busy, ReadOnly, OutOfSpace, FileTooLarge, Throttled,
  Unavailable
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar, Final, Protocol, Self, runtime_checkable

from oci.digest import Chunk

GET_LIMIT: Final = 4 * 1024 * 1024
"""bytes that `get` reads at the most unless told otherwise; larger files are for `read`"""


class StorageError(Exception):
    """Something the storage could not do. `code` is the label of the metric
    `storage_errors_total`."""

    code: ClassVar[str] = "UNKNOWN"

    def __init__(self, path: str, message: str = "") -> None:
        super().__init__(f"{path}: {message}" if message else path)
        self.path = path
        self.message = message


class PathNotFound(StorageError):
    code = "PATH_NOT_FOUND"


class InvalidPath(StorageError):
    code = "INVALID_PATH"


class InvalidOffset(StorageError):
    """The file is not as long as the caller thinks. `size` is its length in bytes."""

    code = "INVALID_OFFSET"

    def __init__(self, path: str, size: int) -> None:
        super().__init__(path, f"the file has {size} bytes")
        self.size = size


class Busy(StorageError):
    """Another writer, in this or another process, has the file open."""

    code = "BUSY"


class ReadOnly(StorageError):
    code = "READ_ONLY_FILESYSTEM"


class OutOfSpace(StorageError):
    code = "DEVICE_OUT_OF_SPACE"


class FileTooLarge(StorageError):
    code = "FILE_TOO_LARGE"


class Throttled(StorageError):
    code = "THROTTLED"


class Unavailable(StorageError):
    code = "UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class FileInfo:
    """`size` in bytes (0 for a folder), `modified` in seconds since the epoch."""

    path: str
    size: int
    modified: float
    is_folder: bool = False


class Writer(Protocol):
    """An open upload file. No second writer gets in while it is open (drivers that can: `Busy`).

    Leaving the context without `commit` keeps what was written, for a later writer with `append`.
    """

    size: int
    """bytes in the file, those of earlier writers included"""

    async def write(self, chunk: Chunk) -> None:
        """Appends `chunk`. Raises OutOfSpace, ReadOnly, Unavailable."""
        ...

    async def commit(self) -> None:
        """Makes all that was written durable and closes."""
        ...

    async def cancel(self) -> None:
        """Closes and removes the file."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


@runtime_checkable
class BlockingWriter(Protocol):
    """A Writer that can also be written to from a worker thread."""

    def write_now(self, chunk: Chunk) -> None:
        """As `write`, blocking; from one thread at a time."""
        ...


class StorageDriver(Protocol):
    """Ten verbs. Every method raises Unavailable when the storage does not answer."""

    name: str

    async def stat(self, path: str) -> FileInfo | None:
        """The file or folder at `path`, or None."""
        ...

    async def get(self, path: str, limit: int = GET_LIMIT) -> bytes:
        """The whole file. Raises PathNotFound, FileTooLarge (over `limit` bytes)."""
        ...

    def read(self, path: str, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """The file's bytes from `offset`, `length` of them or all. Raises PathNotFound,
        InvalidOffset."""
        ...

    async def put(self, path: str, content: bytes) -> None:
        """Writes the whole file: a reader sees the old or the new one, and the new one is durable
        on return."""
        ...

    async def writer(self, path: str, *, append: bool) -> Writer:
        """A writer at the end of the file (made where it is not there), or with `append=False` of a
        new one.

        Raises Busy, and PathNotFound where the folder of an `append` was removed meanwhile.
        """
        ...

    async def list(self, path: str, after: str = "", limit: int | None = None) -> list[str]:
        """Names of the files and folders right below `path`, in byte order, those after `after`, at
        most `limit`.

        An absent folder is empty.
        """
        ...

    def walk(self, path: str) -> AsyncIterator[FileInfo]:
        """All files below `path`, in no certain order. What is removed meanwhile may be left
        out."""
        ...

    async def move(self, source: str, target: str) -> None:
        """Renames a file, over an existing one too: `target` is durable on return. Raises
        PathNotFound."""
        ...

    async def delete(self, path: str) -> None:
        """Removes a file, or a folder with all in it. Raises PathNotFound."""
        ...

    async def redirect_url(self, path: str, method: str) -> str | None:
        """An address where a client may fetch the file itself, signed for `method`, or None."""
        ...

    async def close(self) -> None:
        """Ends threads and connections."""
        ...
