"""Looks whether a registry holds what it promised: over HTTP, and at the files themselves."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from oci.digest import Digest
from oci.errors import DigestInvalid
from tests.load.ledger import Image, Ledger
from tests.load.wire import Violation, Wire

T = TypeVar("T")

THREADS: Final = 3


class Inspector:
    """Checks the server at `port` and the folder `storage` against the ledger, while nobody
    pushes."""

    def __init__(self, ledger: Ledger, storage: Path, port: int) -> None:
        self._ledger = ledger
        self._root = storage / "docker/registry/v2"
        self._port = port
        self.blobs_read = 0

    def check_images(self, images: Iterable[tuple[str, Image]]) -> None:
        """Every image by digest, with all its blobs and its edge to its subject."""
        blobs: dict[tuple[str, Digest], None] = {}
        manifests: dict[tuple[str, Digest], Image] = {}
        for name, image in images:
            for member in image.family():
                manifests[name, member.digest] = member
                blobs.update(((name, blob.digest), None) for blob in member.blobs)
        self._in_parallel(_check_manifest, list(manifests.items()))
        self._in_parallel(_check_blob, list(blobs))
        self.blobs_read += len(blobs)

    def check_tags(self, names: Iterable[str]) -> None:
        """What is listed resolves to a whole image; what was acknowledged is listed."""
        for name in names:
            repository = self._ledger.repositories[name]
            with Wire(self._port) as wire:
                answer = wire.expect((200, 404), "GET", f"/v2/{name}/tags/list?n=10000")
                listed = json.loads(answer.body)["tags"] if answer.status == 200 else []
                for tag in sorted({*listed, *repository.tags}):
                    found = self._check_tag(wire, name, tag, is_listed=tag in listed)
                    self._ledger.observe_tag(name, tag, found)

    def _check_tag(self, wire: Wire, name: str, tag: str, *, is_listed: bool) -> Digest | None:
        answer = wire.expect((200, 404), "GET", f"/v2/{name}/manifests/{tag}")
        if is_listed != (answer.status == 200):
            raise Violation(f"{name}:{tag} is listed: {is_listed}, and answers {answer.status}")
        if not is_listed:
            return None
        digest = Digest.of(answer.body)
        if answer.headers["docker-content-digest"] != digest:
            raise Violation(f"{name}:{tag} is not what its header says")
        if digest not in self._ledger.repositories[name].images:
            _check_whole(wire, name, answer.body)
        return digest

    def check_catalog(self) -> None:
        """All repositories with an acknowledged image are listed, and nothing that is no name."""
        with Wire(self._port) as wire:
            answer = wire.expect(200, "GET", "/v2/_catalog?n=1000")
        listed = set(json.loads(answer.body)["repositories"])
        known = self._ledger.repositories
        wanted = {name for name, repository in known.items() if repository.images}
        if not wanted <= listed <= set(known):
            raise Violation(f"the catalog has {sorted(listed)}, and should have {sorted(wanted)}")

    def sample(self, count: int, dice: random.Random) -> list[tuple[str, Image]]:
        """Some of the images that were acknowledged."""
        everything = self.everything()
        return dice.sample(everything, min(count, len(everything)))

    def everything(self) -> list[tuple[str, Image]]:
        return [
            (name, image)
            for name, repository in self._ledger.repositories.items()
            for image in repository.images.values()
        ]

    def check_blob_files(self, seen: set[str]) -> None:
        """A blob's file has the content that its name says. Those in `seen` are passed over, and
        added to."""
        for algorithm in _names(self._root / "blobs"):
            for prefix in _names(self._root / "blobs" / algorithm):
                folder = self._root / "blobs" / algorithm / prefix
                for name in _names(folder):
                    if name not in seen and (folder / name / "data").exists():
                        with (folder / name / "data").open("rb") as file:
                            found = hashlib.file_digest(file, algorithm).hexdigest()
                        if found != name:
                            raise Violation(f"{folder / name}/data has the digest {found}")
                        seen.add(name)

    def check_links(self) -> int:
        """Every link names a blob that is there; how many there are."""
        count = 0
        for folder, folders, files in os.walk(self._root / "repositories"):
            # What is on its way in or out has no meaning.
            folders[:] = [name for name in folders if not name.startswith((".new-", ".del-"))]
            if "link" in files:
                count += 1
                link = Path(folder, "link")
                try:
                    digest = Digest.parse(link.read_text())
                except DigestInvalid as error:
                    raise Violation(f"{link} is no link") from error
                blob = self._root / "blobs" / digest.algorithm / digest.hex[:2] / digest.hex
                if not (blob / "data").exists():
                    raise Violation(f"{link} leads to nothing")
        return count

    def check_no_leftovers(self) -> None:
        """No temporary file is left on storage, under whatever name."""
        for folder, _, files in os.walk(self._root):
            for name in files:
                path = f"{folder}/{name}"
                if name.endswith(".tmp") or "/.new-" in path or "/.del-" in path:
                    raise Violation(f"{path} was left behind")

    def _in_parallel(self, check: Callable[[Wire, T], None], things: Sequence[T]) -> None:
        def work(share: Sequence[T]) -> None:
            with Wire(self._port) as wire:
                for thing in share:
                    check(wire, thing)

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(work, [things[at::THREADS] for at in range(THREADS)]))


def _check_manifest(wire: Wire, member: tuple[tuple[str, Digest], Image]) -> None:
    (name, digest), image = member
    answer = wire.expect(200, "GET", f"/v2/{name}/manifests/{digest}")
    if answer.body != image.content:
        raise Violation(f"{name}@{digest} has another content")
    if image.subject is not None:
        answer = wire.expect(200, "GET", f"/v2/{name}/referrers/{image.subject}")
        listed = [entry["digest"] for entry in json.loads(answer.body)["manifests"]]
        if digest not in listed:
            raise Violation(f"{name}@{digest} is no referrer of {image.subject}")


def _check_blob(wire: Wire, member: tuple[str, Digest]) -> None:
    name, digest = member
    answer = wire.expect(200, "GET", f"/v2/{name}/blobs/{digest}")
    if Digest.of(answer.body, digest.algorithm) != digest:
        raise Violation(f"{name}: blob {digest} has another content")


def _check_whole(wire: Wire, name: str, manifest: bytes) -> None:
    """The image of a push that got no answer: it is seen, so it has to be whole."""
    document = json.loads(manifest)
    for child in document.get("manifests", ()):
        answer = wire.expect(200, "GET", f"/v2/{name}/manifests/{child['digest']}")
        _check_whole(wire, name, answer.body)
    if "config" in document:
        for blob in (document["config"], *document["layers"]):
            _check_blob(wire, (name, Digest.parse(blob["digest"])))


def _names(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []
