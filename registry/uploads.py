"""Upload sessions: bytes come in any number of requests, to any process, and become a blob once
their digest is proven.

All state is on storage: the bytes in `data`, the running hash in `hashstates/<algorithm>/<offset>`.
An upload file has one writer at a time (a lock that the kernel frees with the process); a second
one is refused, and a commit is only done of exactly the bytes that were hashed. Nothing is kept in
the process between two requests.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, TypeVar
from uuid import uuid4

from oci.digest import SHA256, Digest, Hasher, new_hasher, resume_hasher
from oci.errors import BlobUploadUnknown, DigestInvalid, RangeInvalid
from registry import blobs
from registry.repository import Upload
from serving.body import ClientDisconnected, RequestBody
from storage import paths
from storage.driver import (
    BlockingWriter,
    Busy,
    FileInfo,
    InvalidOffset,
    PathNotFound,
    StorageDriver,
    Writer,
)
from storage.plan import (
    Append,
    Delete,
    Entry,
    Get,
    Keep,
    Move,
    Note,
    Plan,
    Publish,
    Put,
    Stat,
    perform,
)

SMALL_BODY: Final = 64 * 1024
"""bytes: a body up to this size is gathered and written in the thread job that does all the rest of
its request"""

PIECE: Final = 1024 * 1024
"""bytes handed at once to a thread that hashes, or to a writer without one of its own"""

T = TypeVar("T")

_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""ours are of version 4; distribution 3 makes version 7, and its uploads go on here"""


@dataclass(frozen=True, slots=True)
class _Progress:
    """Where an upload stands after bytes were appended; without a hasher nothing is known of its
    digest."""

    size: int
    hasher: Hasher | None


class UploadSessions:
    """The upload sessions of all repositories. `clock` gives the time now; `on_corrupt` is called
    with the digest of a stored blob that had another size than the same content has now."""

    def __init__(
        self,
        driver: StorageDriver,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        on_corrupt: Callable[[Digest], None] = lambda digest: None,
    ) -> None:
        self._driver = driver
        self._clock = clock
        self._on_corrupt = on_corrupt

    async def start(self, name: str, algorithm: str = SHA256) -> Upload:
        """A new, empty upload into the repository."""
        upload = str(uuid4())
        started = self._clock().strftime("%Y-%m-%dT%H:%M:%SZ")

        def plan() -> Plan[None]:
            yield Note(paths.upload_started(name, upload), started.encode())

        await perform(self._driver, plan(), writes=True)
        return Upload(name, upload, started, 0, algorithm)

    async def status(self, name: str, upload: str) -> Upload:
        """Where the upload stands. Raises BlobUploadUnknown."""
        if _UUID.fullmatch(upload) is None:
            raise _unknown(upload)

        def plan() -> Plan[tuple[FileInfo | None, bytes | None]]:
            data: FileInfo | None = yield Stat(paths.upload_data(name, upload))
            started: bytes | None = yield Get(paths.upload_started(name, upload), 64)
            return data, started

        data, started = await perform(self._driver, plan())
        if data is None and started is None:
            raise _unknown(upload)
        return Upload(
            name, upload, (started or b"").decode("ascii", "replace"), data.size if data else 0
        )

    async def append(self, upload: Upload, body: RequestBody) -> Upload:
        """Appends `body` at `upload.size`. What came before a client went away stays, and can be
        continued.

        Raises BlobUploadUnknown, RangeInvalid, and what the body raises.
        """
        small = await body.gather(SMALL_BODY)
        if small is None:
            progress = await self._append_stream(upload, body, upload.algorithm, more_follows=True)
        elif small:
            progress = await self._write(
                upload, self._append_small(upload, small, upload.algorithm, more_follows=True)
            )
        else:
            progress = await self._write(upload, self._standing(upload, upload.algorithm))
        return replace(upload, size=progress.size)

    async def finish(self, upload: Upload, body: RequestBody, digest: Digest) -> int:
        """Appends `body`, proves the digest of the whole and commits it; the size in bytes.

        Raises BlobUploadUnknown, RangeInvalid, DigestInvalid (the upload is then removed), and what
        the body raises.
        """
        small = await body.gather(SMALL_BODY)
        if small is None:
            progress = await self._append_stream(upload, body, digest.algorithm, more_follows=False)
            return await self._commit(upload, progress, digest)

        def plan() -> Plan[int | _Progress]:
            if small:
                progress = yield from self._append_small(
                    upload, small, digest.algorithm, more_follows=False
                )
            else:
                progress = yield from self._proven(upload, digest.algorithm)
            if progress.hasher is None:
                return progress
            proven = progress.hasher.digest()
            return (yield from self._seal(upload, progress.size, digest, proven, durable=True))

        sealed = await self._write(upload, plan())
        return sealed if isinstance(sealed, int) else await self._commit(upload, sealed, digest)

    async def cancel(self, name: str, upload: str) -> None:
        """Removes the upload. Raises BlobUploadUnknown."""
        if _UUID.fullmatch(upload) is None:
            raise _unknown(upload)

        def plan() -> Plan[bool]:
            removed: bool = yield Delete(paths.upload_folder(name, upload))
            return removed

        if not await perform(self._driver, plan(), writes=True):
            raise _unknown(upload)

    def _hasher_at(self, upload: Upload, offset: int, algorithm: str) -> Plan[Hasher | None]:
        """The hash of the first `offset` bytes, or None where no request saved it."""
        if offset == 0:
            return new_hasher(algorithm)
        state: bytes | None = yield Get(
            paths.hash_state(upload.name, upload.id, algorithm, offset), 256
        )
        return None if state is None else resume_hasher(algorithm, state, offset)

    def _proven(self, upload: Upload, algorithm: str) -> Plan[_Progress]:
        """As `_standing`; but a hash saved of just that many bytes is answer enough, since the
        commit looks at the size again."""
        if upload.size:
            hasher = yield from self._hasher_at(upload, upload.size, algorithm)
            if hasher is not None:
                return _Progress(upload.size, hasher)
        return (yield from self._standing(upload, algorithm))

    def _standing(self, upload: Upload, algorithm: str) -> Plan[_Progress]:
        data: FileInfo | None = yield Stat(paths.upload_data(upload.name, upload.id))
        if data is None and (yield Stat(paths.upload_started(upload.name, upload.id))) is None:
            raise _unknown(upload.id)
        size = 0 if data is None else data.size
        if size != upload.size:
            raise InvalidOffset(upload.id, size)
        return _Progress(size, (yield from self._hasher_at(upload, size, algorithm)))

    def _append_small(
        self, upload: Upload, content: bytes, algorithm: str, *, more_follows: bool
    ) -> Plan[_Progress]:
        hasher = yield from self._hasher_at(upload, upload.size, algorithm)
        yield Append(paths.upload_data(upload.name, upload.id), upload.size, content)
        if hasher is not None:
            hasher.update(content)
            if more_follows:
                yield from self._save(upload, hasher)
        return _Progress(upload.size + len(content), hasher)

    def _save(self, upload: Upload, hasher: Hasher) -> Plan[None]:
        """Saves the hash for the next request; that of this request's start is of no use any
        more."""
        state = hasher.state()
        if state is not None:
            yield Note(
                paths.hash_state(upload.name, upload.id, hasher.algorithm, hasher.count), state
            )
            if upload.size and upload.size != hasher.count:
                yield Delete(
                    paths.hash_state(upload.name, upload.id, hasher.algorithm, upload.size)
                )

    async def _append_stream(
        self, upload: Upload, body: RequestBody, algorithm: str, *, more_follows: bool
    ) -> _Progress:
        hasher = await perform(self._driver, self._hasher_at(upload, upload.size, algorithm))
        try:
            writer = await self._driver.writer(
                paths.upload_data(upload.name, upload.id), append=True
            )
        except (PathNotFound, Busy) as error:
            raise await self._refusal(upload, error) from error
        async with writer:
            if writer.size != upload.size:
                raise out_of_order(writer.size)
            whole = False
            try:
                await _transfer(body, writer, hasher)
                whole = True
            finally:
                await writer.commit()
                # Only now: whoever finds a saved hash may rely on its bytes being durable.
                if (
                    (more_follows or not whole)
                    and hasher is not None
                    and hasher.count == writer.size
                ):
                    await perform(self._driver, self._save(upload, hasher), writes=True)
        return _Progress(writer.size, hasher)

    async def _commit(self, upload: Upload, progress: _Progress, digest: Digest) -> int:
        hasher = progress.hasher
        durable = hasher is not None
        if hasher is None or hasher.algorithm != digest.algorithm:
            hasher = await self._read_again(upload, digest.algorithm)
        if hasher.count != progress.size:
            raise out_of_order(hasher.count)
        sealing = self._seal(upload, progress.size, digest, hasher.digest(), durable=durable)
        return await self._write(upload, sealing)

    async def _read_again(self, upload: Upload, algorithm: str) -> Hasher:
        hasher = new_hasher(algorithm)
        try:
            async for piece in self._driver.read(paths.upload_data(upload.name, upload.id)):
                await asyncio.to_thread(hasher.update, piece)
        except PathNotFound as error:
            raise _unknown(upload.id) from error
        return hasher

    def _seal(
        self, upload: Upload, size: int, digest: Digest, proven: Digest, *, durable: bool
    ) -> Plan[int]:
        """The commit: blob, then link, then the upload's end. `proven` is the digest of the
        upload's `size` bytes, `durable` whether they were synced by the request that wrote them."""
        if proven != digest:
            yield Delete(paths.upload_folder(upload.name, upload.id))
            raise DigestInvalid(
                f"the content has the digest {proven}, not {digest}",
                {"digest": digest, "received": proven},
            )
        stored = yield from blobs.present(digest)
        blob: Entry
        if stored is not None and stored.size == size:
            blob = Keep(paths.blob(digest))
        elif size == 0:
            blob = Put(paths.blob(digest), b"")
        else:
            data = paths.upload_data(upload.name, upload.id)
            blob = Move(data, paths.blob(digest), size, durable)
        if stored is not None and stored.size != size:
            self._on_corrupt(digest)
        yield Publish([[blob], [blobs.layer_entry(upload.name, digest)]])
        known = [paths.STARTED_AT]
        if upload.size:
            known.append(f"hashstates/{upload.algorithm}/{upload.size}")
        yield Delete(paths.upload_folder(upload.name, upload.id), files=tuple(known))
        return size

    async def _write(self, upload: Upload, plan: Plan[T]) -> T:
        try:
            return await perform(self._driver, plan, writes=True)
        except (PathNotFound, Busy, InvalidOffset) as error:
            raise await self._refusal(upload, error) from error

    async def _refusal(self, upload: Upload, error: Exception) -> RangeInvalid | BlobUploadUnknown:
        """What the client is told when the upload is gone, stands elsewhere, or is being written
        to."""
        if isinstance(error, InvalidOffset):
            return out_of_order(error.size)
        if isinstance(error, Busy):
            standing = await self.status(upload.name, upload.id)
            return RangeInvalid(
                "another request is writing to this upload", {"size": standing.size}
            )
        return _unknown(upload.id)


async def _transfer(body: RequestBody, writer: Writer, hasher: Hasher | None) -> None:
    """Moves the body into the writer and through the hash: in the body's own worker thread where
    the writer can."""
    if isinstance(writer, BlockingWriter):
        write = writer.write_now

        def sink(chunk: memoryview) -> None:
            write(chunk)
            if hasher is not None:
                hasher.update(chunk)

        await body.pump(sink)
        return
    pieces: list[bytes] = []
    lost: ClientDisconnected | None = None
    more = True
    while more:
        try:
            parts = await body.parts()
        except ClientDisconnected as error:
            # What came before is written all the same: the client may go on from there.
            parts, lost = [], error
        pieces += parts
        more = bool(parts)
        if pieces and (not more or sum(map(len, pieces)) >= PIECE):
            chunk = b"".join(pieces)
            pieces.clear()
            await writer.write(chunk)
            if hasher is not None:
                await asyncio.to_thread(hasher.update, chunk)
    if lost is not None:
        raise lost


def out_of_order(size: int) -> RangeInvalid:
    """The refusal of bytes that do not begin where the upload stands, at `size`."""
    return RangeInvalid(f"the upload stands at byte {size}", {"size": size})


def _unknown(upload: str) -> BlobUploadUnknown:
    return BlobUploadUnknown(
        "no such upload: it was committed, cancelled or purged; start again", {"uuid": upload[:64]}
    )
