"""Small images and indexes as bytes, and how to push them into a registry's roles."""

from __future__ import annotations

import json
from typing import Any

from oci.descriptor import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from oci.digest import Digest
from oci.manifest import parse_manifest
from registry.repository import ALWAYS, Condition, ManifestPush, Registry
from tests.fakes.body import MemoryBody

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def descriptor(content: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": Digest.of(content), "size": len(content), **more}


def image(*blobs: bytes, config: bytes = b"{}", **more: Any) -> bytes:
    """An image manifest of `config` and the layers `blobs`."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(config, OCI_CONFIG),
        "layers": [descriptor(blob, LAYER) for blob in blobs],
        **more,
    }
    return json.dumps(document).encode()


def index(*children: bytes, **more: Any) -> bytes:
    """An index of image manifests."""
    manifests = [descriptor(child, OCI_MANIFEST) for child in children]
    return json.dumps(
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests, **more}
    ).encode()


def push(content: bytes, *tags: str, condition: Condition = ALWAYS) -> ManifestPush:
    return ManifestPush(Digest.of(content), content, parse_manifest(content), tags, condition)


async def push_blob(registry: Registry, name: str, content: bytes) -> Digest:
    digest = Digest.of(content)
    upload = await registry.start_upload(name, "sha256")
    await registry.finish_upload(upload, MemoryBody(content), digest)
    return digest


async def push_image(
    registry: Registry, name: str, *tags: str, layer: bytes = b"layer", **more: Any
) -> Digest:
    """An image with one layer; its digest."""
    for blob in (b"{}", layer):
        await push_blob(registry, name, blob)
    content = image(layer, **more)
    await registry.put_manifest(name, push(content, *tags))
    return Digest.of(content)
