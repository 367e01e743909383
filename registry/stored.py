"""The registry over a storage driver: the four roles, put together from the stores."""

from __future__ import annotations

from collections.abc import Callable

from oci.digest import Digest
from oci.reference import Reference
from registry.blobs import BlobStore
from registry.manifests import ManifestCache, ManifestStore
from registry.metadata import ImageMetadata
from registry.referrers import Referrers
from registry.repository import (
    BlobContent,
    Condition,
    ManifestPush,
    Page,
    Referrer,
    StoredManifest,
    Upload,
)
from registry.uploads import UploadSessions
from serving.body import RequestBody
from storage.driver import StorageDriver
from storage.plan import LocalPlans


class StoredRegistry:
    """Implements `repository.Registry`; what each method does and raises is said there and in the
    stores."""

    def __init__(
        self,
        driver: StorageDriver,
        metadata: ImageMetadata,
        *,
        redirect: bool = True,
        sparse_indexes: bool = False,
        cache: ManifestCache | None = None,
        on_corrupt: Callable[[Digest], None] = lambda digest: None,
    ) -> None:
        self._metadata = metadata
        # Local files have no address of their own: not even the link is looked up for one.
        self._redirect = redirect and not isinstance(driver, LocalPlans)
        self._blobs = BlobStore(driver)
        self._uploads = UploadSessions(driver, on_corrupt=on_corrupt)
        self._manifests = ManifestStore(
            driver, metadata, cache or ManifestCache(), sparse_indexes=sparse_indexes
        )
        self._referrers = Referrers(driver, self._manifests)

    async def stat_blob(self, name: str, digest: Digest) -> int:
        return await self._blobs.stat(name, digest)

    async def open_blob(self, name: str, digest: Digest) -> BlobContent:
        return await self._blobs.open(name, digest)

    async def get_manifest(self, name: str, reference: Reference) -> StoredManifest:
        return await self._manifests.get(name, reference)

    async def blob_redirect(self, name: str, digest: Digest, method: str) -> str | None:
        return await self._blobs.redirect(name, digest, method) if self._redirect else None

    async def referrers(self, name: str, subject: Digest) -> list[Referrer]:
        return await self._referrers.of(name, subject)

    async def mount_blob(self, name: str, digest: Digest, source: str | None) -> bool:
        return await self._blobs.mount(name, digest, source)

    async def start_upload(self, name: str, algorithm: str) -> Upload:
        return await self._uploads.start(name, algorithm)

    async def upload_status(self, name: str, upload: str) -> Upload:
        return await self._uploads.status(name, upload)

    async def append_upload(self, upload: Upload, body: RequestBody) -> Upload:
        return await self._uploads.append(upload, body)

    async def finish_upload(self, upload: Upload, body: RequestBody, digest: Digest) -> int:
        return await self._uploads.finish(upload, body, digest)

    async def cancel_upload(self, name: str, upload: str) -> None:
        await self._uploads.cancel(name, upload)

    async def put_manifest(self, name: str, push: ManifestPush) -> list[str]:
        return await self._manifests.put(name, push)

    async def delete_blob(self, name: str, digest: Digest) -> None:
        await self._blobs.unlink(name, digest)

    async def delete_tag(self, name: str, tag: str, condition: Condition) -> None:
        await self._metadata.delete_tag(name, tag, condition)

    async def delete_manifest(self, name: str, digest: Digest) -> None:
        await self._manifests.delete(name, digest)

    async def delete_content(self, digest: Digest) -> None:
        await self._blobs.remove(digest)

    async def tags(self, name: str, after: str, limit: int) -> Page:
        return await self._metadata.tags(name, after, limit)

    async def repositories(self, after: str, limit: int) -> Page:
        return await self._metadata.repositories(after, limit)
