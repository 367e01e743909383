"""oras: artifacts that are no images, and referrers (OCI distribution-spec 1.1)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.e2e.client import Client, Witness
from tests.e2e.conftest import FindClient
from tests.e2e.layout import Layout

# oras speaks plain HTTP to localhost unless it is told not to.
TLS = "--plain-http=false"
ARTIFACT = "application/vnd.example.report"
SBOM = "application/vnd.example.sbom"


@pytest.fixture
def oras(client: FindClient) -> Client:
    return client("oras")


def push_file(oras: Client, folder: Path, target: str, *, size: int = 700_000) -> str:
    """Pushes a file `report.bin` of random bytes as an artifact; gives the manifest's digest."""
    (folder / "report.bin").write_bytes(os.urandom(size))
    return push(oras, "push", "--artifact-type", ARTIFACT, target, "report.bin", cwd=folder)


def push(oras: Client, verb: str, *arguments: str, cwd: Path) -> str:
    """`oras push` or `oras attach`; gives the digest it prints last."""
    output = oras.run(verb, TLS, *arguments, cwd=cwd)
    return next(
        line.split()[-1] for line in reversed(output.splitlines()) if line.startswith("Digest:")
    )


def test_pull_gives_the_file_that_was_pushed(
    oras: Client, reference: str, repository: str, witness: Witness, tmp_path: Path
) -> None:
    digest = push_file(oras, tmp_path, f"{reference}:v1")
    assert witness.digest(repository, "v1") == digest
    assert witness.manifest(repository, "v1")["artifactType"] == ARTIFACT
    oras.run("pull", TLS, "-o", str(tmp_path / "back"), f"{reference}@{digest}")
    pulled = (tmp_path / "back" / "report.bin").read_bytes()
    assert pulled == (tmp_path / "report.bin").read_bytes()


def test_attached_artifact_is_discovered_from_its_subject(
    oras: Client, reference: str, repository: str, witness: Witness, tmp_path: Path
) -> None:
    subject = push_file(oras, tmp_path, f"{reference}:v1")
    (tmp_path / "sbom.json").write_text('{"packages": []}')
    attach = ("attach", "--artifact-type", SBOM, f"{reference}:v1", "sbom.json")
    referrer = push(oras, *attach, cwd=tmp_path)
    assert witness.manifest(repository, referrer)["subject"]["digest"] == subject
    # The registry keeps the list itself, so no fallback tag `sha256-...` is left behind.
    assert witness.tags(repository) == ["v1"]

    found = oras.json("discover", TLS, "--format", "json", f"{reference}:v1")
    assert [entry["digest"] for entry in found["referrers"]] == [referrer]
    none = oras.json(
        "discover", TLS, "--format", "json", "--artifact-type", ARTIFACT, f"{reference}:v1"
    )
    assert not none["referrers"]


def test_recursive_copy_takes_the_referrers_along(
    oras: Client, reference: str, repository: str, witness: Witness, tmp_path: Path
) -> None:
    subject = push_file(oras, tmp_path, f"{reference}:v1")
    (tmp_path / "sbom.json").write_text('{"packages": []}')
    attach = ("attach", "--artifact-type", SBOM, f"{reference}:v1", "sbom.json")
    referrer = push(oras, *attach, cwd=tmp_path)
    oras.run(
        "copy",
        "--from-plain-http=false",
        "--to-plain-http=false",
        "--recursive",
        f"{reference}:v1",
        f"{reference}-copy:v1",
    )
    assert witness.digest(f"{repository}-copy", "v1") == subject
    found = oras.json("discover", TLS, "--format", "json", f"{reference}-copy:v1")
    assert [entry["digest"] for entry in found["referrers"]] == [referrer]


def test_copy_from_a_layout_keeps_an_index_whole(
    oras: Client, layout: Layout, reference: str, repository: str, witness: Witness
) -> None:
    index = layout.index([layout.image(architecture=name) for name in ("amd64", "arm64")])
    source = layout.tag(index, "multi")
    oras.run("copy", "--from-oci-layout", "--to-plain-http=false", source, f"{reference}:multi")
    assert witness.digest(repository, "multi") == index["digest"]


def test_several_tags_and_their_list(
    oras: Client, reference: str, repository: str, witness: Witness, tmp_path: Path
) -> None:
    digest = push_file(oras, tmp_path, f"{reference}:v1,latest,stable", size=10)
    assert oras.run("repo", "tags", TLS, reference).split() == ["latest", "stable", "v1"]
    assert {witness.digest(repository, tag) for tag in witness.tags(repository)} == {digest}


def test_manifest_delete_removes_the_artifact(
    oras: Client, reference: str, repository: str, witness: Witness, tmp_path: Path
) -> None:
    digest = push_file(oras, tmp_path, f"{reference}:v1", size=10)
    oras.run("manifest", "delete", TLS, "--force", f"{reference}@{digest}")
    assert not witness.has(repository, "v1")
