"""Makes images out of nothing: OCI image layouts with random layers, as `oci-layout` folders.

Nothing can be pulled from anywhere in these tests, and random content keeps one test's blobs apart
from another's. Format: OCI image-spec 1.1, image-layout.md, manifest.md, image-index.md.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"

KIB = 1024


class Platform(TypedDict):
    architecture: str
    os: str


class Descriptor(TypedDict):
    mediaType: str
    digest: str
    size: int
    platform: NotRequired[Platform]
    annotations: NotRequired[dict[str, str]]


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def random_tar(size: int) -> bytes:
    """A tar of one file with that many random bytes."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        member = tarfile.TarInfo(f"data-{os.urandom(4).hex()}.bin")
        member.size = size
        member.mode = 0o644
        tar.addfile(member, io.BytesIO(os.urandom(size)))
    return output.getvalue()


class Layout:
    """An OCI image layout that is being filled. Every name in it is a tag of `index.json`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._named: list[Descriptor] = []
        (folder / "blobs" / "sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def blob(self, content: bytes, media_type: str) -> Descriptor:
        digest = digest_of(content)
        (self.folder / "blobs" / "sha256" / digest.removeprefix("sha256:")).write_bytes(content)
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def image(
        self, *, architecture: str = "amd64", sizes: Sequence[int] = (300 * KIB, 2 * KIB)
    ) -> Descriptor:
        """An image with one layer of random content for each size."""
        tars = [random_tar(size) for size in sizes]
        platform: Platform = {"architecture": architecture, "os": "linux"}
        config = {
            **platform,
            "config": {"Cmd": ["/none"], "Labels": {"made.by": "tests"}},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar in tars]},
            "history": [{"created_by": "tests"} for _ in tars],
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self.blob(json.dumps(config).encode(), OCI_CONFIG),
            "layers": [self.blob(gzip.compress(tar, 6, mtime=0), OCI_LAYER) for tar in tars],
        }
        descriptor = self.blob(json.dumps(manifest).encode(), OCI_MANIFEST)
        descriptor["platform"] = platform
        return descriptor

    def index(self, manifests: Sequence[Descriptor]) -> Descriptor:
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(manifests)}
        return self.blob(json.dumps(document).encode(), OCI_INDEX)

    def tag(self, descriptor: Descriptor, tag: str) -> str:
        """Names a manifest or index of this layout; gives the reference `FOLDER:TAG`."""
        self._named.append(
            {**descriptor, "annotations": {"org.opencontainers.image.ref.name": tag}}
        )
        document = {"schemaVersion": 2, "manifests": self._named}
        (self.folder / "index.json").write_text(json.dumps(document))
        return f"{self.folder}:{tag}"


def blob_digests(folder: Path) -> set[str]:
    """The digests of what lies in a layout, computed from the bytes."""
    return {digest_of(path.read_bytes()) for path in (folder / "blobs" / "sha256").iterdir()}
