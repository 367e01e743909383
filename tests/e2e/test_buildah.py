"""buildah: build from nothing, push the build, pull it into a fresh store."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.client import Client, Witness
from tests.e2e.conftest import FindClient
from tests.e2e.server import Certificate

DOCKERFILE = """\
FROM scratch
COPY greeting /greeting
LABEL made.by=buildah
ENTRYPOINT ["/greeting"]
"""


def store(client: FindClient, folder: Path, name: str) -> Client:
    """A buildah with an image store of its own."""
    options = (
        f"--root={folder / name / 'root'}",
        f"--runroot={folder / name / 'run'}",
        "--storage-driver=vfs",
    )
    return client("buildah", *options, home=name)


def test_build_push_and_pull_give_one_digest(
    client: FindClient,
    certificate: Certificate,
    reference: str,
    repository: str,
    witness: Witness,
    tmp_path: Path,
) -> None:
    trust = f"--cert-dir={certificate.authority.parent}"
    context = tmp_path / "context"
    context.mkdir()
    (context / "greeting").write_text(f"hello from {repository}\n")
    (context / "Dockerfile").write_text(DOCKERFILE)
    builder = store(client, tmp_path, "builder")
    builder.run("bud", "--isolation=chroot", f"--tag={reference}:built", str(context))
    report = tmp_path / "digest"
    builder.run("push", trust, f"--digestfile={report}", f"{reference}:built")
    digest = report.read_text().strip()
    assert witness.digest(repository, "built") == digest

    fresh = store(client, tmp_path, "fresh")
    pulled = fresh.run("pull", "--quiet", trust, f"{reference}@{digest}").strip()
    told = fresh.json("inspect", "--type=image", pulled)
    assert told["FromImageDigest"] == digest
    assert told["OCIv1"]["config"]["Labels"]["made.by"] == "buildah"
