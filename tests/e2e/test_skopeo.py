"""skopeo: the transport that podman, buildah and CRI-O share, without a store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.client import Client, Witness
from tests.e2e.conftest import FindClient
from tests.e2e.layout import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_MANIFEST,
    Layout,
    blob_digests,
    digest_of,
)
from tests.e2e.server import Certificate


@pytest.fixture
def skopeo(client: FindClient) -> Client:
    return client("skopeo", "--insecure-policy")


@pytest.fixture
def source(certificate: Certificate) -> str:
    return f"--src-cert-dir={certificate.authority.parent}"


@pytest.fixture
def destination(certificate: Certificate) -> str:
    return f"--dest-cert-dir={certificate.authority.parent}"


def test_copy_there_and_back_keeps_every_blob(
    skopeo: Client,
    source: str,
    destination: str,
    layout: Layout,
    reference: str,
    repository: str,
    witness: Witness,
    tmp_path: Path,
) -> None:
    image = layout.image()
    skopeo.run("copy", destination, f"oci:{layout.tag(image, 'v1')}", f"docker://{reference}:v1")
    assert witness.digest(repository, "v1") == image["digest"]
    skopeo.run("copy", source, f"docker://{reference}:v1", f"oci:{tmp_path / 'back'}:v1")
    assert blob_digests(tmp_path / "back") == blob_digests(layout.folder)


def test_copy_between_repositories_keeps_the_digest(
    skopeo: Client,
    source: str,
    destination: str,
    layout: Layout,
    reference: str,
    repository: str,
    witness: Witness,
) -> None:
    image = layout.image()
    skopeo.run("copy", destination, f"oci:{layout.tag(image, 'v1')}", f"docker://{reference}:v1")
    target = f"docker://{reference}-copy:v1"
    skopeo.run("copy", source, destination, f"docker://{reference}@{image['digest']}", target)
    assert witness.digest(f"{repository}-copy", "v1") == image["digest"]


@pytest.mark.parametrize(("name", "media_type"), [("v2s2", DOCKER_MANIFEST), ("oci", OCI_MANIFEST)])
def test_copy_to_a_folder_in_either_format_gives_the_stored_bytes(
    name: str,
    media_type: str,
    skopeo: Client,
    source: str,
    destination: str,
    layout: Layout,
    reference: str,
    repository: str,
    witness: Witness,
    tmp_path: Path,
) -> None:
    image = f"oci:{layout.tag(layout.image(), 'v1')}"
    skopeo.run("copy", "--format", name, destination, image, f"docker://{reference}:v1")
    assert witness.manifest(repository, "v1")["mediaType"] == media_type
    skopeo.run("copy", source, f"docker://{reference}:v1", f"dir:{tmp_path / 'back'}")
    manifest = (tmp_path / "back" / "manifest.json").read_bytes()
    assert digest_of(manifest) == witness.digest(repository, "v1")
    for layer in json.loads(manifest)["layers"]:
        content = (tmp_path / "back" / layer["digest"].removeprefix("sha256:")).read_bytes()
        assert digest_of(content) == layer["digest"]


def test_copy_all_keeps_a_multi_arch_index_whole(
    skopeo: Client,
    source: str,
    destination: str,
    layout: Layout,
    reference: str,
    repository: str,
    witness: Witness,
    tmp_path: Path,
) -> None:
    index = layout.index([layout.image(architecture=name) for name in ("amd64", "arm64", "s390x")])
    image = f"oci:{layout.tag(index, 'multi')}"
    skopeo.run("copy", "--all", destination, image, f"docker://{reference}:multi")
    assert witness.digest(repository, "multi") == index["digest"]
    back = f"oci:{tmp_path / 'back'}:multi"
    skopeo.run("copy", "--all", source, f"docker://{reference}:multi", back)
    assert blob_digests(tmp_path / "back") == blob_digests(layout.folder)


def test_copy_all_as_docker_list_is_stored_as_one(
    skopeo: Client,
    destination: str,
    layout: Layout,
    reference: str,
    repository: str,
    witness: Witness,
) -> None:
    index = layout.index([layout.image(architecture=name) for name in ("amd64", "arm64")])
    image = f"oci:{layout.tag(index, 'multi')}"
    target = f"docker://{reference}:multi"
    skopeo.run("copy", "--all", "--format", "v2s2", destination, image, target)
    stored = witness.manifest(repository, "multi")
    assert stored["mediaType"] == DOCKER_LIST
    for child in stored["manifests"]:
        assert witness.digest(repository, child["digest"]) == child["digest"]


def test_sync_to_a_folder_and_back_moves_every_tag(
    skopeo: Client,
    source: str,
    destination: str,
    layout: Layout,
    reference: str,
    repository: str,
    witness: Witness,
    tmp_path: Path,
) -> None:
    for tag in ("v1", "v2"):
        image = f"oci:{layout.tag(layout.image(), tag)}"
        skopeo.run("copy", destination, image, f"docker://{reference}:{tag}")
    folder = tmp_path / "synced"
    folder.mkdir()
    skopeo.run("sync", source, "--src=docker", "--dest=dir", reference, str(folder))
    target = f"{reference}-synced"
    skopeo.run("sync", destination, "--src=dir", "--dest=docker", str(folder), target)
    landed = f"{repository}-synced/app"
    assert witness.tags(landed) == ["v1", "v2"]
    for tag in ("v1", "v2"):
        assert witness.digest(landed, tag) == witness.digest(repository, tag)


def test_list_tags_and_inspect_tell_what_was_pushed(
    skopeo: Client,
    certificate: Certificate,
    destination: str,
    layout: Layout,
    reference: str,
) -> None:
    trust = f"--cert-dir={certificate.authority.parent}"
    image = layout.image()
    for tag in ("v2", "v1"):
        target = f"docker://{reference}:{tag}"
        skopeo.run("copy", destination, f"oci:{layout.tag(image, tag)}", target)
    assert skopeo.json("list-tags", trust, f"docker://{reference}")["Tags"] == ["v1", "v2"]
    told = skopeo.json("inspect", trust, f"docker://{reference}:v1")
    assert told["Digest"] == image["digest"]
    assert told["RepoTags"] == ["v1", "v2"]
    assert told["Labels"] == {"made.by": "tests"}


def test_delete_removes_the_manifest_that_the_tag_named(
    skopeo: Client,
    certificate: Certificate,
    destination: str,
    layout: Layout,
    reference: str,
    repository: str,
    witness: Witness,
) -> None:
    image = layout.image()
    skopeo.run("copy", destination, f"oci:{layout.tag(image, 'v1')}", f"docker://{reference}:v1")
    trust = f"--cert-dir={certificate.authority.parent}"
    skopeo.run("delete", trust, f"docker://{reference}:v1")
    assert not witness.has(repository, "v1")
    assert not witness.has(repository, image["digest"])
