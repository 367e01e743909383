"""crane (go-containerregistry): uploads by one chunked PATCH, deletes by tag and by digest."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.client import Client, ClientError, Witness
from tests.e2e.conftest import FindClient
from tests.e2e.layout import Layout, blob_digests
from tests.e2e.server import Server


@pytest.fixture
def crane(client: FindClient) -> Client:
    return client("crane")


def push_image(crane: Client, layout: Layout, target: str) -> str:
    """Pushes an image of the layout; gives its digest."""
    image = layout.image()
    layout.tag(image, "v1")
    pushed = crane.run("push", str(layout.folder), target).strip()
    assert pushed.endswith("@" + image["digest"])
    return image["digest"]


def test_push_then_pull_gives_the_same_bytes(
    crane: Client, layout: Layout, reference: str, repository: str, witness: Witness, tmp_path: Path
) -> None:
    digest = push_image(crane, layout, f"{reference}:v1")
    assert witness.digest(repository, "v1") == digest
    assert crane.run("digest", f"{reference}:v1").strip() == digest
    crane.run("pull", "--format=oci", f"{reference}@{digest}", str(tmp_path / "back"))
    assert blob_digests(tmp_path / "back") == blob_digests(layout.folder)


def test_validate_reads_every_layer_of_the_remote_image(
    crane: Client, layout: Layout, reference: str
) -> None:
    push_image(crane, layout, f"{reference}:v1")
    assert "PASS" in crane.run("validate", f"--remote={reference}:v1")


def test_push_of_an_index_brings_its_images(
    crane: Client, layout: Layout, reference: str, repository: str, witness: Witness
) -> None:
    images = [layout.image(architecture=name) for name in ("amd64", "arm64")]
    index = layout.index(images)
    layout.tag(index, "multi")
    crane.run("push", "--index", str(layout.folder), f"{reference}:multi")
    pushed = witness.manifest(repository, "multi")
    # crane wraps the index of the layout folder itself, which names ours.
    assert [child["digest"] for child in pushed["manifests"]] == [index["digest"]]
    crane.run("validate", f"--remote={reference}@{index['digest']}")
    arm = crane.run("digest", "--platform=linux/arm64", f"{reference}@{index['digest']}")
    assert arm.strip() == images[1]["digest"]


def test_copy_to_another_repository_keeps_the_digest(
    crane: Client, layout: Layout, reference: str, repository: str, witness: Witness
) -> None:
    digest = push_image(crane, layout, f"{reference}:v1")
    crane.run("copy", f"{reference}:v1", f"{reference}-copy:v1")
    assert witness.digest(f"{repository}-copy", "v1") == digest


def test_manifest_config_and_blob_are_readable(
    crane: Client, layout: Layout, reference: str, repository: str, witness: Witness
) -> None:
    push_image(crane, layout, f"{reference}:v1")
    manifest = crane.json("manifest", f"{reference}:v1")
    assert manifest == witness.manifest(repository, "v1")
    assert crane.json("config", f"{reference}:v1")["architecture"] == "amd64"


def test_tag_ls_and_catalog_list_what_was_pushed(
    crane: Client, layout: Layout, server: Server, reference: str, repository: str
) -> None:
    push_image(crane, layout, f"{reference}:v1")
    crane.run("tag", f"{reference}:v1", "v2")
    assert crane.run("ls", reference).split() == ["v1", "v2"]
    assert repository in crane.run("catalog", server.address).split()


def test_delete_by_digest_takes_the_tag_along(
    crane: Client, layout: Layout, reference: str, repository: str, witness: Witness
) -> None:
    digest = push_image(crane, layout, f"{reference}:v1")
    crane.run("delete", f"{reference}@{digest}")
    assert not witness.has(repository, "v1")
    with pytest.raises(ClientError, match=r"MANIFEST_UNKNOWN|404"):
        crane.run("manifest", f"{reference}@{digest}")


def test_delete_of_a_tag_leaves_the_image(
    crane: Client, layout: Layout, reference: str, repository: str, witness: Witness
) -> None:
    digest = push_image(crane, layout, f"{reference}:v1")
    crane.run("tag", f"{reference}:v1", "v2")
    crane.run("delete", f"{reference}:v1")
    assert witness.tags(repository) == ["v2"]
    assert witness.has(repository, digest)
