"""podman: push from a store and pull into a fresh one, by tag and by digest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.client import Client, Witness
from tests.e2e.conftest import FindClient
from tests.e2e.layout import Layout
from tests.e2e.server import Certificate


def store(client: FindClient, folder: Path, name: str) -> Client:
    """A podman with an image store of its own, and locks in files instead of the machine's shm."""
    options = (
        f"--root={folder / name / 'root'}",
        f"--runroot={folder / name / 'run'}",
        f"--tmpdir={folder / name / 'tmp'}",
        "--storage-driver=vfs",
        "--cgroup-manager=cgroupfs",
        "--events-backend=none",
    )
    settings = folder / f"{name}.conf"
    settings.write_text('[engine]\nlock_type = "file"\n')
    found = client("podman", *options, home=name)
    return replace(found, environment={**found.environment, "CONTAINERS_CONF": str(settings)})


@pytest.fixture
def podman(client: FindClient, short_path: Path) -> Client:
    return store(client, short_path, "first")


@pytest.fixture
def fresh_podman(client: FindClient, short_path: Path) -> Client:
    return store(client, short_path, "second")


@pytest.fixture
def trust(certificate: Certificate) -> str:
    return f"--cert-dir={certificate.authority.parent}"


def push_image(podman: Client, layout: Layout, trust: str, target: str, folder: Path) -> str:
    """Loads an image of the layout and pushes it; gives the digest that podman reports."""
    podman.run("pull", f"oci:{layout.tag(layout.image(), 'v1')}")
    (image,) = podman.run("images", "--quiet").split()
    report = folder / "digest"
    podman.run("push", trust, f"--digestfile={report}", image, f"docker://{target}")
    return report.read_text().strip()


@pytest.mark.parametrize("by", ["tag", "digest"])
def test_pull_gives_the_image_that_was_pushed(
    by: str,
    podman: Client,
    fresh_podman: Client,
    trust: str,
    layout: Layout,
    reference: str,
    repository: str,
    witness: Witness,
    tmp_path: Path,
) -> None:
    digest = push_image(podman, layout, trust, f"{reference}:v1", tmp_path)
    assert witness.digest(repository, "v1") == digest
    wanted = f"{reference}:v1" if by == "tag" else f"{reference}@{digest}"
    pulled = fresh_podman.run("pull", "--quiet", trust, wanted).strip()
    (told,) = fresh_podman.json("image", "inspect", pulled)
    assert told["Digest"] == digest
    assert f"sha256:{pulled}" == witness.manifest(repository, "v1")["config"]["digest"]


def test_push_in_docker_format_is_served_as_that(
    podman: Client,
    fresh_podman: Client,
    trust: str,
    layout: Layout,
    reference: str,
    repository: str,
    witness: Witness,
    tmp_path: Path,
) -> None:
    push_image(podman, layout, trust, f"{reference}:v1", tmp_path)
    (image,) = podman.run("images", "--quiet").split()
    podman.run("push", trust, "--format=v2s2", image, f"docker://{reference}:v2")
    assert "docker" in witness.manifest(repository, "v2")["mediaType"]
    pulled = fresh_podman.run("pull", "--quiet", trust, f"{reference}:v2").strip()
    (told,) = fresh_podman.json("image", "inspect", pulled)
    assert told["Digest"] == witness.digest(repository, "v2")


def test_second_push_of_the_same_layers_to_another_repository_succeeds(
    podman: Client,
    trust: str,
    layout: Layout,
    reference: str,
    repository: str,
    witness: Witness,
    tmp_path: Path,
) -> None:
    digest = push_image(podman, layout, trust, f"{reference}:v1", tmp_path)
    (image,) = podman.run("images", "--quiet").split()
    podman.run("push", trust, image, f"docker://{reference}-copy:v1")
    assert witness.digest(f"{repository}-copy", "v1") == digest
