"""The container image: built from the Dockerfile, run as a stranger's user on a read-only root.

Not part of `make e2e`, for the time the base image takes; `make image-test` runs it. No registry
can be reached in tests, so the base is made of Debian packages. Needs root, podman, buildah, runc
and mmdebstrap.
"""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.client import Client, ClientError, client_environment, client_path
from tests.e2e.layout import Layout
from tests.e2e.server import PROJECT, free_port

pytestmark = pytest.mark.timeout(600)

SUITE = "bookworm"
BASE = "localhost/base:test"
IMAGE = "localhost/acp-image-registry:test"
NO_RIGHTS = ("--env=REGISTRY_ALAUDA_AUTH_MODE=none",)
READY_SECONDS = 20.0
BASE_DOCKERFILE = """\
FROM scratch
ADD base.tar /
COPY authorities.crt /etc/ssl/certs/ca-certificates.crt
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt
"""
ASK_READINESS = (
    "import urllib.request as r; print(r.urlopen('http://127.0.0.1:5000/readyz').status)"
)


@dataclass(frozen=True, slots=True)
class Tools:
    buildah: Client
    podman: Client


@pytest.fixture(scope="module")
def tools() -> Iterator[Tools]:
    """buildah and podman over one image store in a folder with a short name."""
    missing = [
        program
        for program in ("buildah", "podman", "runc", "mmdebstrap")
        if client_path(program) is None
    ]
    if missing or os.geteuid() != 0:
        pytest.fail(f"needs root, and from Debian: {' '.join(missing)}")
    with tempfile.TemporaryDirectory(prefix="image-") as name:
        folder = Path(name)
        authorities = Path(ssl.get_default_verify_paths().openssl_cafile)
        environment = client_environment(folder / "home", authorities)
        settings = folder / "containers.conf"
        settings.write_text('[engine]\nlock_type = "file"\n')
        environment["CONTAINERS_CONF"] = str(settings)
        # The package mirrors of the caller are reached through the caller's own settings.
        del environment["SSL_CERT_FILE"]
        store = (f"--root={folder / 'root'}", f"--runroot={folder / 'run'}")
        podman_options = (
            *store,
            f"--tmpdir={folder / 'tmp'}",
            "--storage-driver=vfs",
            "--cgroup-manager=cgroupfs",
            "--events-backend=none",
            "--runtime=runc",
        )
        yield Tools(
            Client("buildah", environment, (*store, "--storage-driver=vfs")),
            Client("podman", environment, podman_options),
        )


@pytest.fixture(scope="module")
def image(tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image's name in the store, built from the working tree."""
    context = tmp_path_factory.mktemp("base")
    sources = b"\n".join(
        path.read_bytes()
        for pattern in ("sources.list", "sources.list.d/*.list", "sources.list.d/*.sources")
        for path in sorted(Path("/etc/apt").glob(pattern))
    )
    subprocess.run(
        [
            "mmdebstrap",
            "--quiet",
            "--mode=root",
            "--variant=minbase",
            "--include=python3,python3-venv,ca-certificates",
            SUITE,
            str(context / "base.tar"),
            "-",
        ],
        input=sources,
        check=True,
    )
    shutil.copy(ssl.get_default_verify_paths().openssl_cafile, context / "authorities.crt")
    (context / "Dockerfile").write_text(BASE_DOCKERFILE)
    tools.buildah.run("bud", "--isolation=chroot", f"--tag={BASE}", str(context))
    shutil.rmtree(context)
    tools.buildah.run(
        "bud", "--isolation=chroot", f"--build-arg=BASE={BASE}", f"--tag={IMAGE}", str(PROJECT)
    )
    return IMAGE


def start(podman: Client, image: str, *options: str) -> str:
    """Starts a container the way a strict cluster does; gives its id."""
    return podman.run(
        "run",
        "--detach",
        "--read-only",
        "--read-only-tmpfs=false",
        "--cap-drop=all",
        "--security-opt=no-new-privileges",
        "--ulimit=nofile=4096:4096",
        "--ulimit=nproc=4096:4096",
        "--tmpfs=/tmp",
        *options,
        image,
    ).strip()


def wait_until_ready(podman: Client, container: str, ask: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            assert podman.run("exec", container, "python3", "-c", ask).strip() == "200"
            return
        except ClientError:
            if time.monotonic() > deadline:
                print(podman.run("logs", container))
                raise
        time.sleep(0.2)


@pytest.mark.parametrize("user", ["1001:0", "1000650000:0"])
def test_image_serves_on_port_5000_as_any_user_of_group_0(
    user: str, tools: Tools, image: str
) -> None:
    container = start(tools.podman, image, "--network=none", f"--user={user}", *NO_RIGHTS)
    try:
        wait_until_ready(tools.podman, container, ASK_READINESS)
        tools.podman.run("stop", "--time=30", container)
        (told,) = tools.podman.json("inspect", container)
        assert told["State"]["ExitCode"] == 0
    finally:
        tools.podman.run("rm", "--force", "--volumes", container)


def test_image_takes_a_push(tools: Tools, image: str, tmp_path: Path) -> None:
    port = free_port()
    address = f"127.0.0.1:{port}"
    container = start(
        tools.podman, image, "--network=host", f"--env=REGISTRY_HTTP_ADDR={address}", *NO_RIGHTS
    )
    try:
        wait_until_ready(tools.podman, container, ASK_READINESS.replace("127.0.0.1:5000", address))
        layout = Layout(tmp_path / "layout")
        pushed = layout.image()
        tools.podman.run("pull", f"oci:{layout.tag(pushed, 'v1')}")
        report = tmp_path / "digest"
        (loaded,) = tools.podman.run("images", "--quiet", "--filter=label=made.by=tests").split()
        target = f"docker://{address}/team/app:v1"
        push = ("push", "--tls-verify=false", f"--digestfile={report}")
        tools.podman.run(*push, loaded, target)
        tools.podman.run("pull", "--tls-verify=false", f"{address}/team/app@{report.read_text()}")
    finally:
        tools.podman.run("rm", "--force", "--volumes", container)


def test_image_starts_other_processes(tools: Tools, image: str) -> None:
    told = tools.podman.run(
        "run", "--rm", "--network=none", "--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096",
        image, "registry", "--help",
    )  # fmt: skip
    assert "serve" in told
