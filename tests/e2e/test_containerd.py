"""containerd: `ctr` pushes and pulls, and `crictl` pulls as a kubelet does, over the CRI."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.client import Client, ClientError, Witness
from tests.e2e.conftest import FindClient
from tests.e2e.layout import Layout, blob_digests
from tests.e2e.server import Certificate, Server, clean_environment

START_SECONDS = 20.0
STOP_SECONDS = 10.0
# The native snapshotter copies files: slower, and it needs nothing of the kernel but bind mounts.
SETTINGS = """\
version = 2
root = "{folder}/root"
state = "{folder}/state"
oom_score = 0
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  disable_tcp_service = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{folder}/hosts"
"""


@dataclass(frozen=True, slots=True)
class Containerd:
    """A running containerd: its socket, and the folder that says how registries are reached."""

    socket: Path
    hosts: Path


@pytest.fixture
def containerd(
    client: FindClient, short_path: Path, server: Server, certificate: Certificate
) -> Iterator[Containerd]:
    program = client("containerd").program
    if os.geteuid() != 0:
        pytest.skip("containerd runs as root only")
    hosts = short_path / "hosts" / server.address
    hosts.mkdir(parents=True)
    (hosts / "hosts.toml").write_text(
        f'server = "{server.url}"\nca = "{certificate.authority}"\n'
        f'[host."{server.url}"]\n  ca = "{certificate.authority}"\n'
    )
    settings = short_path / "config.toml"
    settings.write_text(SETTINGS.format(folder=short_path))
    log = short_path / "containerd.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, "--config", str(settings)],
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    running = Containerd(short_path / "containerd.sock", hosts.parent)
    try:
        wait_until_ready(client("ctr", f"--address={running.socket}"), process, log)
        yield running
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_ready(ctr: Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            ctr.run("version")
            return
        except ClientError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                end = log.read_text(errors="replace")[-3000:]
                raise ClientError(f"containerd did not start\n{end}") from error
        time.sleep(0.1)


@pytest.fixture
def ctr(client: FindClient, containerd: Containerd) -> Client:
    return client("ctr", f"--address={containerd.socket}", "--namespace=tests")


def listed(ctr: Client) -> dict[str, str]:
    """The images that containerd holds: name to digest."""
    rows = [line.split() for line in ctr.run("images", "list").splitlines()[1:]]
    return {row[0]: next(word for word in row if word.startswith("sha256:")) for row in rows}


def import_image(ctr: Client, layout: Layout, reference: str, folder: Path) -> None:
    """Puts the layout's images into containerd as `reference:TAG`, as a build would."""
    archive = folder / "image.tar"
    subprocess.run(["tar", "-C", str(layout.folder), "-cf", str(archive), "."], check=True)
    ctr.run(
        "images",
        "import",
        "--no-unpack",
        "--all-platforms",
        f"--base-name={reference}",
        str(archive),
    )


@pytest.mark.parametrize("kind", ["image", "index"])
def test_ctr_pulls_what_it_pushed(
    kind: str,
    ctr: Client,
    containerd: Containerd,
    layout: Layout,
    reference: str,
    repository: str,
    witness: Witness,
    tmp_path: Path,
) -> None:
    top = layout.image()
    if kind == "index":
        top = layout.index([top, layout.image(architecture="arm64")])
    layout.tag(top, "v1")
    hosts = f"--hosts-dir={containerd.hosts}"
    import_image(ctr, layout, reference, tmp_path)
    ctr.run("images", "push", hosts, f"{reference}:v1")
    assert witness.digest(repository, "v1") == top["digest"]

    # With --sync the content is collected too, so that all of it has to come over the wire again.
    ctr.run("images", "remove", "--sync", f"{reference}:v1")
    assert ctr.run("content", "list", "--quiet") == ""
    pull = ("images", "pull", hosts, "--snapshotter=native", "--all-platforms")
    ctr.run(*pull, f"{reference}:v1")
    ctr.run(*pull, f"{reference}@{top['digest']}")
    assert set(listed(ctr).values()) == {top["digest"]}
    assert set(ctr.run("content", "list", "--quiet").split()) == blob_digests(layout.folder)


def test_crictl_pulls_by_tag_and_by_digest(
    client: FindClient,
    containerd: Containerd,
    layout: Layout,
    reference: str,
    witness: Witness,
    repository: str,
    certificate: Certificate,
) -> None:
    image = layout.image()
    trust = f"--dest-cert-dir={certificate.authority.parent}"
    skopeo = client("skopeo", "--insecure-policy")
    skopeo.run("copy", trust, f"oci:{layout.tag(image, 'v1')}", f"docker://{reference}:v1")
    endpoint = f"unix://{containerd.socket}"
    crictl = client("crictl", f"--runtime-endpoint={endpoint}", f"--image-endpoint={endpoint}")
    crictl.run("pull", f"{reference}:v1")
    crictl.run("pull", f"{reference}@{image['digest']}")
    told = crictl.json("inspecti", f"{reference}:v1")["status"]
    assert told["repoDigests"] == [f"{reference}@{image['digest']}"]
    assert told["id"] == witness.manifest(repository, "v1")["config"]["digest"]
