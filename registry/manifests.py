"""Manifests: kept and served as the very bytes that were received, readable in a repository through
its revision link.

What is remembered in the process is the content behind a digest, never that a repository has it.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

from oci.digest import Digest
from oci.errors import (
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    RegistryError,
    SizeInvalid,
)
from oci.manifest import MANIFEST_LIMIT, Manifest, parse_manifest
from oci.reference import Reference
from registry import blobs
from registry.links import read_link
from registry.metadata import ImageMetadata
from registry.repository import ManifestPush, StoredManifest
from storage import paths
from storage.driver import FileInfo, FileTooLarge, StorageDriver
from storage.plan import Delete, Entry, Get, Keep, Plan, Put, perform

CACHE_BYTES: Final = 4 * 1024 * 1024
"""bytes of manifests that a process remembers: about a thousand; parsed they take much more"""

log = logging.getLogger(__name__)


class ManifestCache:
    """The most recently used manifests by digest, up to `limit` bytes of content.

    `count` is told "Hit" or "Miss" of each look-up.
    """

    def __init__(
        self, limit: int = CACHE_BYTES, *, count: Callable[[str], None] = lambda kind: None
    ) -> None:
        self._limit = limit
        self._count = count
        self._size = 0
        self._kept: OrderedDict[Digest, StoredManifest] = OrderedDict()

    def get(self, digest: Digest) -> StoredManifest | None:
        found = self._kept.get(digest)
        if found is None:
            self._count("Miss")
            return None
        self._count("Hit")
        self._kept.move_to_end(digest)
        return found

    def add(self, stored: StoredManifest) -> None:
        if stored.digest in self._kept or len(stored.content) > self._limit // 4:
            return
        self._kept[stored.digest] = stored
        self._size += len(stored.content)
        while self._size > self._limit:
            _, dropped = self._kept.popitem(last=False)
            self._size -= len(dropped.content)


class ManifestStore:
    """Manifests by (repository, digest); tags are the business of ImageMetadata."""

    def __init__(
        self,
        driver: StorageDriver,
        metadata: ImageMetadata,
        cache: ManifestCache,
        *,
        sparse_indexes: bool = False,
    ) -> None:
        self._driver = driver
        self._metadata = metadata
        self._cache = cache
        self._sparse_indexes = sparse_indexes

    async def get(self, name: str, reference: Reference) -> StoredManifest:
        """Raises NameUnknown, ManifestUnknown."""
        if reference.tag is not None:
            digest = await self._metadata.resolve(name, reference.tag)
            kept = self._cache.get(digest)
            found = kept or await self._load(digest)
        else:
            assert reference.digest is not None
            digest = reference.digest
            found = await perform(self._driver, self._member(name, digest))
        if found is None:
            raise await self._metadata.missing(name, digest)
        return found

    async def exists(self, name: str, digest: Digest) -> bool:
        return await perform(self._driver, read_link(paths.revision_link(name, digest))) is not None

    async def _load(self, digest: Digest) -> StoredManifest | None:
        return await perform(self._driver, self._content(digest, digest))

    def _member(self, name: str, digest: Digest) -> Plan[StoredManifest | None]:
        stored = yield from read_link(paths.revision_link(name, digest))
        if stored is None:
            return None
        return self._cache.get(digest) or (yield from self._content(digest, stored))

    def _content(self, digest: Digest, stored: Digest) -> Plan[StoredManifest | None]:
        """The manifest `digest`, whose bytes are in blob `stored`; None where they are gone or no
        manifest."""
        try:
            content: bytes | None = yield Get(paths.blob(stored), MANIFEST_LIMIT)
        except FileTooLarge:
            return None
        if content is None:
            return None
        if Digest.of(content, digest.algorithm) != digest:
            log.error("the stored bytes of manifest %s have another digest", digest)
            return None
        try:
            found = StoredManifest(digest, content, parse_manifest(content))
        except ManifestInvalid:
            return None
        self._cache.add(found)
        return found

    async def put(self, name: str, push: ManifestPush) -> list[str]:
        """Checks every reference against storage, then publishes: blob, revision link, referrer
        edge, tags.

        Gives warnings for the client: the children that an index lacks, where that is allowed.
        Raises ManifestBlobUnknown (one for each missing reference), SizeInvalid,
        PreconditionFailed.
        """
        check = _check_references(name, push.manifest, sparse=self._sparse_indexes)
        absent = await perform(self._driver, check)
        there = await perform(self._driver, blobs.present(push.digest))
        blob = paths.blob(push.digest)
        content: Entry = (
            Keep(blob)
            if there is not None and there.size == len(push.content)
            else Put(blob, push.content)
        )
        link = push.digest.encode()
        links: list[Entry] = [Put(paths.revision_link(name, push.digest), link)]
        if push.manifest.subject is not None:
            links.append(
                Put(paths.referrer_link(name, push.manifest.subject.digest, push.digest), link)
            )
        await self._metadata.record_push(name, push, [[content], links])
        self._cache.add(StoredManifest(push.digest, push.content, push.manifest))
        return (
            [f"sparse index: {len(absent)} of its manifests are in no repository here"]
            if absent
            else []
        )

    async def delete(self, name: str, digest: Digest) -> None:
        """Removes the tags that point to the manifest, then its revision link, then its referrer
        edge.

        A crash in between is mended by repeating. Raises NameUnknown, ManifestUnknown.
        """
        stored = await perform(self._driver, self._member(name, digest))
        if stored is None and not await self.exists(name, digest):
            raise await self._metadata.missing(name, digest)
        await self._metadata.untag(name, digest)

        def plan() -> Plan[bool]:
            removed: bool = yield Delete(paths.revision_folder(name, digest), at_once=True)
            if stored is not None and stored.manifest.subject is not None:
                yield Delete(
                    paths.referrer_folder(name, stored.manifest.subject.digest, digest),
                    at_once=True,
                )
            return removed

        if not await perform(self._driver, plan(), writes=True):
            raise ManifestUnknown(f"repository {name} has no manifest {digest}", {"digest": digest})

    def members(self, name: str, digests: Iterable[Digest]) -> Plan[list[StoredManifest]]:
        """Those of `digests` that are manifests of the repository, with their content."""
        found = []
        for digest in digests:
            stored = yield from self._member(name, digest)
            if stored is not None:
                found.append(stored)
        return found


def _check_references(name: str, manifest: Manifest, *, sparse: bool) -> Plan[list[Digest]]:
    """Raises what `ManifestStore.put` says; all missing references in one error.

    With `sparse`, children of an index that are nowhere on storage are let pass, and given back.
    """
    missing: dict[Digest, RegistryError] = {}
    absent = []
    for child in manifest.manifests:
        if (
            child.digest in missing
            or (yield from read_link(paths.revision_link(name, child.digest))) is not None
        ):
            continue
        if sparse and (yield from blobs.present(child.digest)) is None:
            absent.append(child.digest)
        else:
            missing[child.digest] = _missing("manifest", name, child.digest)
    checked = set()
    for blob in manifest.blobs():
        if blob.is_foreign or (blob.digest, blob.size) in checked:
            continue
        checked.add((blob.digest, blob.size))
        stored = yield from blobs.linked(name, blob.digest)
        info: FileInfo | None = None if stored is None else (yield from blobs.present(stored))
        if info is None:
            missing[blob.digest] = _missing("blob", name, blob.digest)
        elif info.size != blob.size:
            raise SizeInvalid(
                f"{blob.digest} has {info.size} bytes, the manifest says {blob.size}",
                {"digest": blob.digest, "stored": info.size, "stated": blob.size},
            )
    if missing:
        first, *more = missing.values()
        first.more = more
        raise first
    return absent


def _missing(kind: str, name: str, digest: Digest) -> ManifestBlobUnknown:
    return ManifestBlobUnknown(
        f"the manifest names {kind} {digest}, which repository {name} has not got: push it first",
        {"digest": digest},
    )
