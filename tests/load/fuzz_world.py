"""What the registry holds before a campaign begins, and what scenarios read, mount and refer to."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from random import Random
from typing import Final

import httpx

from oci.descriptor import DOCKER_CONFIG, DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from oci.digest import ALGORITHMS, Digest
from tests.fakes.images import descriptor, image, index
from tests.integration.api import push_blob, push_image, push_manifest, start

BASE: Final = "fuzz/base"
"""the repository that nobody deletes from"""

CONFIG: Final = b"{}"
PLATFORM: Final = {"os": "linux", "architecture": "amd64"}
_SIZES: Final = (0, 1, 1000, 65_536, 200_000, 2_500_000)


@dataclass(frozen=True, slots=True)
class World:
    """`master` is the content of all uploads: each holds its first bytes, whatever happens.

    `blobs` are in BASE by digest, `manifests` too, with their media type; `foreign` and `dead` are
    Locations of an upload that scenarios must not reach from their own repositories, and of one
    that is gone.
    """

    master: bytes
    blobs: dict[Digest, bytes]
    manifests: dict[Digest, tuple[str, bytes]]
    subject: Digest
    foreign: str
    dead: str

    @property
    def layer(self) -> bytes:
        return next(content for content in self.blobs.values() if len(content) == 1000)


def build(client: httpx.Client, seed: int) -> World:
    """Fills the registry behind `client`."""
    rng = Random(seed)
    master = rng.randbytes(3_200_000)
    blobs: dict[Digest, bytes] = {}
    for content in [CONFIG, b"layer", *(rng.randbytes(size) for size in _SIZES)]:
        for algorithm in ALGORITHMS:
            blobs[push_blob(client, BASE, content, algorithm)] = content
    oci = image(b"layer")
    docker = _docker(b"layer")
    both = index(oci)
    listed = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": DOCKER_LIST,
            "manifests": [descriptor(docker, DOCKER_MANIFEST, platform=PLATFORM)],
        }
    ).encode()
    manifests = {}
    for tag, media_type, content in (
        ("latest", OCI_MANIFEST, oci),
        ("docker", DOCKER_MANIFEST, docker),
        ("index", OCI_INDEX, both),
        ("list", DOCKER_LIST, listed),
    ):
        answer = push_manifest(client, BASE, tag, content, **{"Content-Type": media_type})
        assert answer.status_code == 201, answer.text
        manifests[Digest.of(content)] = (media_type, content)
    subject = Digest.of(oci)
    for number in range(5):
        push_image(
            client,
            BASE,
            f"referrer-{number}",
            subject=descriptor(oci, OCI_MANIFEST),
            artifactType=f"application/x.fuzz{number % 2}",
            annotations={"number": str(number)},
        )
    dead = start(client, BASE)
    assert client.delete(dead).status_code == 204
    return World(master, blobs, manifests, subject, start(client, "fuzz/foreign"), dead)


def _docker(layer: bytes) -> bytes:
    layer_type = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": descriptor(CONFIG, DOCKER_CONFIG),
            "layers": [descriptor(layer, layer_type)],
        }
    ).encode()


def offset_of(location: str) -> int:
    """Where an upload stands, as its Location says: `_state` is base64url of a signature of 32
    bytes and JSON."""
    token = location.partition("_state=")[2].partition("&")[0]
    payload = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))[32:])
    offset: int = payload["Offset"]
    return offset


def target_of(location: str) -> str:
    """The target of a request to a Location, absolute or not."""
    if location.startswith("/"):
        return location
    return "/" + location.split("/", 3)[3]
