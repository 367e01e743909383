"""Descriptors and the media types that this registry knows (OCI image-spec, descriptor.md and
media-types.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from oci.digest import Digest
from oci.errors import DigestInvalid, ManifestInvalid

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_SCHEMA1: Final = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
DOCKER_FOREIGN_LAYER: Final = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
OCTET_STREAM: Final = "application/octet-stream"

IMAGES: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEXES: Final = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFESTS: Final = IMAGES | INDEXES

SIZE_LIMIT: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One entry of a manifest. `urls` and `platform` are kept as they were sent."""

    media_type: str
    digest: Digest
    size: int
    urls: tuple[str, ...] = ()
    platform: Mapping[str, Any] | None = None

    @property
    def is_foreign(self) -> bool:
        """True for a layer that a registry need not hold: non-distributable, and with an address to
        get it from."""
        return bool(self.urls) and (
            self.media_type == DOCKER_FOREIGN_LAYER
            or self.media_type.startswith("application/vnd.oci.image.layer.nondistributable.")
        )

    @classmethod
    def parse(cls, value: object, where: str) -> Descriptor:
        """The descriptor that the JSON `value` holds; `where` names it in errors. Raises
        ManifestInvalid."""
        if not isinstance(value, dict):
            raise ManifestInvalid(f"{where} is not a descriptor object")
        media_type, digest, size = value.get("mediaType"), value.get("digest"), value.get("size")
        if not isinstance(media_type, str) or not media_type:
            raise ManifestInvalid(f"{where}.mediaType is missing")
        if not isinstance(digest, str):
            raise ManifestInvalid(f"{where}.digest is missing")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= SIZE_LIMIT:
            raise ManifestInvalid(f"{where}.size is not a size in bytes")
        try:
            parsed = Digest.parse(digest)
        except DigestInvalid as error:
            raise ManifestInvalid(f"{where}.digest: {error.message}", digest[:200]) from error
        urls = value.get("urls") or ()
        if not isinstance(urls, list | tuple) or not all(isinstance(url, str) for url in urls):
            raise ManifestInvalid(f"{where}.urls is not a list of texts")
        platform = value.get("platform")
        return cls(
            media_type, parsed, size, tuple(urls), platform if isinstance(platform, dict) else None
        )
