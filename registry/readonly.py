"""A registry that refuses what it was told to refuse: pushes and deletes, or deletes alone."""

from __future__ import annotations

from typing import NoReturn

from oci.digest import Digest
from oci.errors import Unsupported
from oci.reference import Reference
from registry.repository import (
    BlobContent,
    Condition,
    ManifestPush,
    Page,
    Referrer,
    Registry,
    StoredManifest,
    Upload,
)
from serving.body import RequestBody


class NoDeletes:
    """The registry `inner`, all deletes refused (Unsupported) with the message `why`."""

    def __init__(
        self, inner: Registry, why: str = "deletes are switched off in this registry"
    ) -> None:
        self._inner = inner
        self._why = why

    def _refuse(self) -> NoReturn:
        raise Unsupported(self._why)

    async def stat_blob(self, name: str, digest: Digest) -> int:
        return await self._inner.stat_blob(name, digest)

    async def open_blob(self, name: str, digest: Digest) -> BlobContent:
        return await self._inner.open_blob(name, digest)

    async def blob_redirect(self, name: str, digest: Digest, method: str) -> str | None:
        return await self._inner.blob_redirect(name, digest, method)

    async def get_manifest(self, name: str, reference: Reference) -> StoredManifest:
        return await self._inner.get_manifest(name, reference)

    async def referrers(self, name: str, subject: Digest) -> list[Referrer]:
        return await self._inner.referrers(name, subject)

    async def mount_blob(self, name: str, digest: Digest, source: str | None) -> bool:
        return await self._inner.mount_blob(name, digest, source)

    async def start_upload(self, name: str, algorithm: str) -> Upload:
        return await self._inner.start_upload(name, algorithm)

    async def upload_status(self, name: str, upload: str) -> Upload:
        return await self._inner.upload_status(name, upload)

    async def append_upload(self, upload: Upload, body: RequestBody) -> Upload:
        return await self._inner.append_upload(upload, body)

    async def finish_upload(self, upload: Upload, body: RequestBody, digest: Digest) -> int:
        return await self._inner.finish_upload(upload, body, digest)

    async def cancel_upload(self, name: str, upload: str) -> None:
        await self._inner.cancel_upload(name, upload)

    async def put_manifest(self, name: str, push: ManifestPush) -> list[str]:
        return await self._inner.put_manifest(name, push)

    async def delete_blob(self, name: str, digest: Digest) -> None:
        self._refuse()

    async def delete_tag(self, name: str, tag: str, condition: Condition) -> None:
        self._refuse()

    async def delete_manifest(self, name: str, digest: Digest) -> None:
        self._refuse()

    async def delete_content(self, digest: Digest) -> None:
        self._refuse()

    async def tags(self, name: str, after: str, limit: int) -> Page:
        return await self._inner.tags(name, after, limit)

    async def repositories(self, after: str, limit: int) -> Page:
        return await self._inner.repositories(after, limit)


class ReadOnly(NoDeletes):
    """The registry `inner`, everything that writes refused (Unsupported)."""

    def __init__(self, inner: Registry) -> None:
        super().__init__(inner, "registry is read-only")

    async def mount_blob(self, name: str, digest: Digest, source: str | None) -> bool:
        self._refuse()

    async def start_upload(self, name: str, algorithm: str) -> Upload:
        self._refuse()

    async def append_upload(self, upload: Upload, body: RequestBody) -> Upload:
        self._refuse()

    async def finish_upload(self, upload: Upload, body: RequestBody, digest: Digest) -> int:
        self._refuse()

    async def cancel_upload(self, name: str, upload: str) -> None:
        self._refuse()

    async def put_manifest(self, name: str, push: ManifestPush) -> list[str]:
        self._refuse()
