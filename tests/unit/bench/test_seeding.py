"""Content that is laid straight on the disk, and removed again."""

from __future__ import annotations

import os
from pathlib import Path

from bench.content import digest_of, small_image
from bench.seeding import lay_images, lay_orphans, remove_fresh, stored_blobs


def test_image_lies_as_distribution_keeps_it(tmp_path: Path) -> None:
    image = small_image("seed", layers=1, layer_size=100)
    lay_images(str(tmp_path), [("ns/a", "v1"), ("ns/a", "v2"), ("ns/b", "v1")], image)
    assert stored_blobs(str(tmp_path)) == 3
    manifest = digest_of(image.manifest)
    repository = tmp_path / "docker/registry/v2/repositories/ns/a"
    for tag in ("v1", "v2"):
        link = repository / f"_manifests/tags/{tag}/current/link"
        assert link.read_text() == manifest
    revision = repository / "_manifests/revisions/sha256" / manifest[7:] / "link"
    assert revision.read_text() == manifest
    assert len(list((repository / "_layers/sha256").iterdir())) == 2


def test_orphans_are_linked_blobs(tmp_path: Path) -> None:
    lay_orphans(str(tmp_path), "ns/a", [b"one", b"two"])
    assert stored_blobs(str(tmp_path)) == 2
    links = tmp_path / "docker/registry/v2/repositories/ns/a/_layers/sha256"
    assert len(list(links.iterdir())) == 2


def test_only_big_and_fresh_files_are_removed(tmp_path: Path) -> None:
    for name, size, age in (("old", 100, 10.0), ("fresh", 100, 0.0), ("small", 10, 0.0)):
        path = tmp_path / "folder" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(size))
        os.utime(path, (1000.0 - age, 1000.0 - age))
    remove_fresh(str(tmp_path), since=999.0, least=50)
    assert {path.name for path in (tmp_path / "folder").iterdir()} == {"old", "small"}
