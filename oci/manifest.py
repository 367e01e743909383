"""Reads image manifests and indexes, of OCI and of Docker's schema 2. The bytes are never written
anew."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from oci.descriptor import (
    DOCKER_SCHEMA1,
    IMAGES,
    INDEXES,
    MANIFESTS,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
)
from oci.errors import ManifestInvalid, ManifestTooLarge

MANIFEST_LIMIT: Final = 4 * 1024 * 1024
"""bytes; what OCI distribution-spec asks registries to take at least, and what one request may cost
in memory"""


_MAYBE_HALF: Final = re.compile(rb"\\u[dD][89a-fA-F]")
"""an escaped half of a surrogate pair: alone it is no character, and no answer could hold it"""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A parsed manifest: `config` and `layers` of an image, or `manifests` of an index."""

    media_type: str
    size: int
    config: Descriptor | None
    layers: tuple[Descriptor, ...]
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None
    artifact_type: str | None
    annotations: Mapping[str, str]

    @property
    def is_index(self) -> bool:
        return self.media_type in INDEXES

    @property
    def referrer_type(self) -> str | None:
        """The `artifactType` of this manifest's descriptor in a referrers list (OCI
        distribution-spec)."""
        if self.artifact_type:
            return self.artifact_type
        return self.config.media_type if self.config is not None else None

    def blobs(self) -> Iterator[Descriptor]:
        """Config and layers."""
        if self.config is not None:
            yield self.config
        yield from self.layers

    def child_for(self, os: str, architecture: str) -> Descriptor | None:
        """The first child of an index for that platform."""
        for child in self.manifests:
            platform = child.platform or {}
            if platform.get("os") == os and platform.get("architecture") == architecture:
                return child
        return None


class _Repeated(dict[str, Any]):
    """A JSON object in which a key stood twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    return made if len(made) == len(pairs) else _Repeated(made)


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body.decode("utf-8"), object_pairs_hook=_object)
        if _MAYBE_HALF.search(body) is not None:
            json.dumps(document, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise ManifestInvalid("the manifest is not JSON", str(error)[:200]) from error
    if not isinstance(document, dict):
        raise ManifestInvalid("the manifest is not a JSON object")
    if isinstance(document, _Repeated):
        raise ManifestInvalid("the manifest has the same key twice")
    return document


def media_type_of(header: str | None) -> str | None:
    """The media type in a Content-Type header: lower case, without parameters; None where there is
    none."""
    if header is None:
        return None
    return header.partition(";")[0].strip().lower() or None


def _shape(document: dict[str, Any]) -> str:
    """The type of a document that does not state one."""
    return OCI_INDEX if "manifests" in document else OCI_MANIFEST


def _settle_media_type(document: dict[str, Any], content_type: str | None) -> str:
    """The manifest's type from the header, the body, or (stored bytes only) its shape."""
    stated = document.get("mediaType")
    if stated is not None and not isinstance(stated, str):
        raise ManifestInvalid("mediaType is not a text")
    if content_type in MANIFESTS:
        if stated and stated != content_type:
            raise ManifestInvalid(
                f"Content-Type is {content_type}, mediaType in the manifest is {stated}"
            )
        if not stated and content_type != _shape(document):
            # Only the bytes are kept: the next process would take it for something else.
            raise ManifestInvalid(f"a manifest of type {content_type} must say so in mediaType")
        return str(content_type)
    if content_type in DOCKER_SCHEMA1:
        raise ManifestInvalid(
            "schema 1 manifests are not taken: push with a client made since 2017"
        )
    if stated in MANIFESTS:
        return str(stated)
    if content_type is None and not stated:
        return _shape(document)
    raise ManifestInvalid(f"{stated or content_type} is not a manifest's media type")


def _descriptors(document: dict[str, Any], key: str) -> tuple[Descriptor, ...]:
    values = document.get(key)
    if values is None:
        return ()
    if not isinstance(values, list):
        raise ManifestInvalid(f"{key} is not a list")
    return tuple(Descriptor.parse(value, f"{key}[{index}]") for index, value in enumerate(values))


def _annotations(document: dict[str, Any]) -> dict[str, str]:
    values = document.get("annotations")
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise ManifestInvalid("annotations are not texts by name")
    return dict(values)


def parse_manifest(body: bytes, content_type: str | None = None) -> Manifest:
    """The manifest in `body` (at most 4 MiB), whose media type is `content_type` (as
    `media_type_of` gives it).

    Without a content type it is taken from the body, or from its shape: so it is with stored
    manifests. Raises ManifestInvalid, ManifestTooLarge.
    """
    if len(body) > MANIFEST_LIMIT:
        raise ManifestTooLarge(f"the manifest is over {MANIFEST_LIMIT} bytes", {"size": len(body)})
    document = _document(body)
    version = document.get("schemaVersion")
    if version == 1:
        raise ManifestInvalid(
            "schema 1 manifests are not taken: push with a client made since 2017"
        )
    if version != 2 or isinstance(version, bool):
        raise ManifestInvalid("schemaVersion must be 2")
    media_type = _settle_media_type(document, content_type)
    if "manifests" in document and ("config" in document or "layers" in document):
        raise ManifestInvalid("the manifest has both manifests and config or layers")
    if media_type in IMAGES and "manifests" in document:
        raise ManifestInvalid(f"a manifest of type {media_type} has no manifests")
    if media_type in INDEXES and ("config" in document or "layers" in document):
        raise ManifestInvalid(f"an index of type {media_type} has no config or layers")
    config = document.get("config")
    if media_type in IMAGES and config is None:
        raise ManifestInvalid("config is missing")
    subject = document.get("subject")
    artifact_type = document.get("artifactType")
    if artifact_type is not None and not isinstance(artifact_type, str):
        raise ManifestInvalid("artifactType is not a text")
    return Manifest(
        media_type=media_type,
        size=len(body),
        config=None if config is None else Descriptor.parse(config, "config"),
        layers=_descriptors(document, "layers"),
        manifests=_descriptors(document, "manifests"),
        subject=None if subject is None else Descriptor.parse(subject, "subject"),
        artifact_type=artifact_type or None,
        annotations=_annotations(document),
    )
