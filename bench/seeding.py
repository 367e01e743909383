"""Fills registries with what the workloads read: straight on the disk where the layout is known,
else over HTTP.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from typing import Final

from bench.clients import Client, Script, Target, check, drive
from bench.content import MANIFEST_TYPE, Content, Image, digest_of
from bench.wire import local_path, with_digest
from oci.digest import Digest
from storage import paths

BYTES: Final = "Content-Type: application/octet-stream\r\n"
MANIFEST: Final = f"Content-Type: {MANIFEST_TYPE}\r\n"
_WRITERS: Final = 8


# --- over HTTP


def push_blob(client: Client, repository: str, content: bytes | Content) -> str:
    """POST, PATCH, PUT. Returns the digest."""
    digest = digest_of(content) if isinstance(content, bytes) else content.digest
    size = len(content) if isinstance(content, bytes) else content.size
    begun = client.request("POST", f"/v2/{repository}/blobs/uploads/", expect=(202,))
    sent = client.request(
        "PATCH",
        local_path(begun.headers["location"]),
        BYTES,
        content,
        length=size,
        expect=(202, 204),
    )
    client.request("PUT", with_digest(sent.headers["location"], digest), expect=(201,))
    return digest


def push_image(client: Client, repository: str, tag: str, image: Image) -> None:
    for blob in image.blobs:
        push_blob(client, repository, blob)
    path = f"/v2/{repository}/manifests/{tag}"
    client.request("PUT", path, MANIFEST, image.manifest, expect=(201,))


def image_script(target: Target, repository: str, tag: str, image: Image) -> Script:
    """The push of a whole image as a client does it: HEAD, POST, PATCH, PUT for each blob, then the
    manifest.
    """
    for blob in image.blobs:
        digest = digest_of(blob)
        head = yield target.wire("HEAD", f"/v2/{repository}/blobs/{digest}")
        if head.status == 200:
            continue
        check(head, "HEAD blob", (404,))
        begun = yield target.wire("POST", f"/v2/{repository}/blobs/uploads/")
        check(begun, "POST upload", (202,))
        sent = yield target.wire("PATCH", local_path(begun.headers["location"]), BYTES, blob)
        check(sent, "PATCH upload", (202, 204))
        done = yield target.wire("PUT", with_digest(sent.headers["location"], digest))
        check(done, "PUT upload", (201,))
    tagged = yield target.wire("PUT", f"/v2/{repository}/manifests/{tag}", MANIFEST, image.manifest)
    check(tagged, "PUT manifest", (201,))


def push_images(target: Target, names: Iterable[tuple[str, str]], image: Image) -> None:
    """Pushes one image under many (repository, tag), a few at once after the first.

    Its blobs are then there: some registries fail a HEAD of a blob that another client commits.
    """
    queue = iter(names)
    with Client(target) as client:
        push_image(client, *next(queue), image)

    def script() -> Script:
        for repository, tag in queue:
            yield from image_script(target, repository, tag, image)

    drive(target, [script() for _ in range(_WRITERS)])


# --- on the disk


def lay_images(root: str, names: Iterable[tuple[str, str]], image: Image) -> None:
    """Writes one image under many (repository, tag), in distribution's layout."""
    manifest = Digest.of(image.manifest)
    for blob in (*image.blobs, image.manifest):
        _write(root + paths.blob(Digest.of(blob)), blob)
    layers = [Digest.of(blob) for blob in image.blobs]
    seen = set()
    for repository, tag in names:
        if repository not in seen:
            seen.add(repository)
            _write(root + paths.revision_link(repository, manifest), manifest.encode())
            for layer in layers:
                _write(root + paths.layer_link(repository, layer), layer.encode())
        _write(root + paths.tag_index(repository, tag, manifest), manifest.encode())
        _write(root + paths.tag_current(repository, tag), manifest.encode())


def lay_orphans(root: str, repository: str, contents: Iterable[bytes]) -> None:
    """Writes blobs that no manifest names, each with its layer link: the prey of a garbage
    collection.
    """
    for content in contents:
        digest = Digest.of(content)
        _write(root + paths.blob(digest), content)
        _write(root + paths.layer_link(repository, digest), digest.encode())


def stored_blobs(root: str) -> int:
    """How many blobs lie below `root`."""
    return sum(paths.DATA in files for _, _, files in os.walk(root + paths.BLOBS))


def remove_fresh(folder: str, *, since: float, least: int) -> None:
    """Removes the files below `folder` of at least `least` bytes that were written after `since`
    (seconds of the epoch).
    """
    for parent, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(f"{parent}/{name}")
                if status.st_size >= least and status.st_mtime >= since:
                    os.unlink(f"{parent}/{name}")


def _write(path: str, content: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
