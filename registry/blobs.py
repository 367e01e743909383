"""Blobs: one content-addressed store for all repositories, and per repository the links that make a
blob readable there.

Every answer "this blob exists" in the context of a push (HEAD, mount, commit of a known digest, the
references of a manifest) goes through `present`: the one place where a garbage collector that runs
meanwhile can be waited for. Nothing about links or existence is remembered: other processes change
both.
"""

from __future__ import annotations

from typing import Final

from oci.digest import ALGORITHMS, Digest
from oci.errors import BlobUnknown
from registry.links import read_link
from registry.repository import INLINE, BlobContent
from storage import paths
from storage.driver import FileInfo, StorageDriver
from storage.plan import Delete, Entry, Keep, Names, Open, Opened, Plan, Publish, Put, Stat, perform

_EMPTY: Final = frozenset(Digest.of(b"", algorithm) for algorithm in ALGORITHMS)


def _is_torn(digest: Digest, info: FileInfo) -> bool:
    """A file without a byte, as other registries leave it after a crash: it counts as absent, so
    that whoever asks first pushes the blob anew, and heals it."""
    return info.size == 0 and digest not in _EMPTY


def present(digest: Digest) -> Plan[FileInfo | None]:
    """The blob's file on storage, or None."""
    info: FileInfo | None = yield Stat(paths.blob(digest))
    return None if info is None or _is_torn(digest, info) else info


def linked(name: str, digest: Digest) -> Plan[Digest | None]:
    """The digest under which the bytes of `digest` are stored, if repository `name` has a link to
    it, else None.

    A manifest is a blob as well: its revision link counts.
    """
    stored = yield from read_link(paths.layer_link(name, digest))
    if stored is None:
        stored = yield from read_link(paths.revision_link(name, digest))
    return stored


def layer_entry(name: str, digest: Digest) -> Entry:
    """The layer link of `digest` in repository `name`, to be published after the blob."""
    return Put(paths.layer_link(name, digest), digest.encode())


class BlobStore:
    """Blobs by (repository, digest)."""

    def __init__(self, driver: StorageDriver) -> None:
        self._driver = driver

    async def stat(self, name: str, digest: Digest) -> int:
        """The size in bytes of a blob of the repository. Raises BlobUnknown."""

        def plan() -> Plan[int | None]:
            stored = yield from linked(name, digest)
            if stored is None:
                return None
            info = yield from present(stored)
            return None if info is None else info.size

        size = await perform(self._driver, plan())
        if size is None:
            raise unknown(name, digest)
        return size

    async def open(self, name: str, digest: Digest) -> BlobContent:
        """A blob of the repository, to be read and closed. Raises BlobUnknown."""

        def plan() -> Plan[tuple[str, Opened] | None]:
            stored = yield from linked(name, digest)
            if stored is None:
                return None
            path = paths.blob(stored)
            opened: Opened | None = yield Open(path, INLINE)
            if opened is None or _is_torn(stored, opened.info):
                return None
            return path, opened

        found = await perform(self._driver, plan())
        if found is None:
            raise unknown(name, digest)
        path, opened = found
        return BlobContent(
            digest, opened.info.size, path, self._driver, opened.content, opened.file
        )

    async def redirect(self, name: str, digest: Digest, method: str) -> str | None:
        """An address where the storage itself serves the blob, or None. Raises BlobUnknown."""
        stored = await perform(self._driver, linked(name, digest))
        if stored is None:
            raise unknown(name, digest)
        return await self._driver.redirect_url(paths.blob(stored), method)

    async def mount(self, name: str, digest: Digest, source: str | None) -> bool:
        """Links a blob that repository `source` has into `name`; without a source, one that any
        repository has.

        False where there is no such blob.
        """

        def plan() -> Plan[bool]:
            if source is not None:
                stored = yield from linked(source, digest)
            else:
                stored = yield from self._linked_anywhere(digest)
            if stored is None or (yield from present(stored)) is None:
                return False
            link = Put(paths.layer_link(name, digest), stored.encode())
            yield Publish([[Keep(paths.blob(stored))], [link]])
            return True

        return await perform(self._driver, plan(), writes=True)

    def _linked_anywhere(self, digest: Digest) -> Plan[Digest | None]:
        """The stored digest if the blob is there and some repository links it: a walk over all
        repositories."""
        if (yield from present(digest)) is None:
            return None
        folders = [paths.REPOSITORIES]
        while folders:
            folder = folders.pop()
            names: list[str] = yield Names(folder, keep=True)
            if "_layers" in names:
                name = folder[len(paths.REPOSITORIES) + 1 :]
                stored = yield from read_link(paths.layer_link(name, digest))
                if stored is not None:
                    return stored
            folders.extend(f"{folder}/{name}" for name in names if not name.startswith("_"))
        return None

    async def unlink(self, name: str, digest: Digest) -> None:
        """Removes the repository's layer link; the bytes stay. Raises BlobUnknown where there is
        none."""

        def plan() -> Plan[bool]:
            stored = yield from read_link(paths.layer_link(name, digest))
            removed: bool = yield Delete(paths.layer_folder(name, digest), at_once=True)
            return removed and stored is not None

        if not await perform(self._driver, plan(), writes=True):
            raise unknown(name, digest)

    async def remove(self, digest: Digest) -> None:
        """Removes a blob's bytes, whoever links them; nothing where they are absent."""

        def plan() -> Plan[None]:
            yield Delete(paths.blob_folder(digest), at_once=True)

        await perform(self._driver, plan(), writes=True)


def unknown(name: str, digest: Digest) -> BlobUnknown:
    return BlobUnknown(f"repository {name} has no blob {digest}", {"digest": digest})
