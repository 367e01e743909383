"""A volume without space, without inodes, or that the kernel has made read-only: pushes are refused
with a reason, reads go on, nothing half-written shows, and all is well again with the first free
block.

Each volume is a small file system of its own, mounted as the storage folder, which takes root.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from oci.digest import Digest
from tests.e2e.server import PROJECT, Server, assert_no_traceback, clean_environment, running_server
from tests.fakes.images import image
from tests.integration.api import new_name, push_blob, push_image, push_manifest, refused, start

MIB = 1024 * 1024
ANSWER_SECONDS = 20.0
DICE = random.Random(11)


@dataclass(frozen=True, slots=True)
class Volume:
    """A mounted file system. `runs_out_of` is what there is little of."""

    folder: Path
    runs_out_of: str

    @contextmanager
    def full(self) -> Iterator[None]:
        """Somebody else has taken all that there was, to the last byte or inode."""
        hoard = self.folder / "hoard"
        hoard.mkdir()
        try:
            self._take_inodes(hoard) if self.runs_out_of == "inodes" else self._take_space(hoard)
            yield
        finally:
            for file in hoard.iterdir():
                file.unlink()
            hoard.rmdir()

    @staticmethod
    def _take_space(hoard: Path) -> None:
        with (hoard / "all").open("wb", buffering=0) as file:
            for size in (MIB, 4096, 1):
                try:
                    while file.write(bytes(size)) == size:
                        pass
                    os.fsync(file.fileno())
                except OSError as error:
                    assert error.errno == errno.ENOSPC

    @staticmethod
    def _take_inodes(hoard: Path) -> None:
        with suppress(OSError):
            for number in range(100_000):
                (hoard / str(number)).touch(exist_ok=False)

    @contextmanager
    def read_only(self) -> Iterator[None]:
        run("mount", "-o", "remount,ro", str(self.folder))
        try:
            yield
        finally:
            run("mount", "-o", "remount,rw", str(self.folder))

    def blob_files(self) -> list[Path]:
        return list((self.folder / "docker/registry/v2/blobs").glob("*/*/*/data"))


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, (command, done.stderr)


def is_missing(kind: str) -> bool:
    return kind == "ext4" and shutil.which("mkfs.ext4") is None


def make(kind: str, folder: Path) -> list[str]:
    """The options of `mount` for a new file system of the kind."""
    if kind == "ext4":
        image = folder.with_suffix(".img")
        with image.open("wb") as file:
            file.truncate(32 * MIB)
        run("mkfs.ext4", "-q", "-m", "0", str(image))
        return ["-o", "loop", str(image)]
    size = "nr_inodes=2000,size=64m" if kind == "inodes" else "size=24m"
    return ["-t", "tmpfs", "-o", size, "none"]


@pytest.fixture(scope="module", params=["tmpfs", "ext4", "inodes"])
def volume(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Volume:
    folder = tmp_path_factory.mktemp("volume") / "mounted"
    folder.mkdir()
    reason = "root is needed to mount a volume"
    if is_missing(request.param):
        reason = "mkfs.ext4 is not installed"
    elif os.geteuid() == 0:
        tried = subprocess.run(
            ["mount", *make(request.param, folder), str(folder)], capture_output=True, text=True
        )
        if tried.returncode == 0:
            request.addfinalizer(lambda: run("umount", str(folder)))
            return Volume(folder, "inodes" if request.param == "inodes" else "space")
        reason = f"no volume can be mounted here: {tried.stderr.strip()}"
    # Where CI has no loop device, the other volumes show what there is to show.
    if os.environ.get("CI") == "true" and request.param != "ext4":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def server(volume: Volume, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("log") / "log"
    with running_server(
        storage=volume.folder, log=log, secret="s", workers=2, host="127.0.0.1"
    ) as running:
        yield running
    assert_no_traceback(log)


def send(
    client: httpx.Client, method: str, path: str, body: bytes, *, chunked: bool
) -> httpx.Response:
    """The answer to a request that may be answered before its body is sent, as a full disk is."""
    where = httpx.URL(client.base_url)
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\n{length}\r\n\r\n".encode()
    pieces = [body[at : at + 65536] for at in range(0, len(body), 65536)]
    with socket.create_connection((where.host, where.port or 80), ANSWER_SECONDS) as connection:

        def write() -> None:
            with suppress(OSError):
                connection.sendall(head)
                for piece in pieces:
                    frame = b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece
                    connection.sendall(frame)
                if chunked:
                    connection.sendall(b"0\r\n\r\n")

        writer = threading.Thread(target=write)
        writer.start()
        try:
            response = http.client.HTTPResponse(connection, method=method)
            response.begin()
            content = response.read()
        finally:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            writer.join(ANSWER_SECONDS)
        assert not writer.is_alive()
        request = httpx.Request(method, where)
        headers = response.getheaders()
        return httpx.Response(response.status, headers=headers, content=content, request=request)


def refused_as_full(answer: httpx.Response) -> None:
    first = refused(answer, 503, "UNAVAILABLE")
    assert first["message"] == "storage full"
    assert int(answer.headers["retry-after"]) >= 1


def is_refused_as_full(answer: httpx.Response) -> bool:
    """Whether it was refused; nothing but success or the right refusal is allowed."""
    if answer.is_success:
        return False
    refused_as_full(answer)
    return True


def fresh(size: int) -> bytes:
    return DICE.randbytes(size)


def check_all_blobs(volume: Volume) -> None:
    for file in volume.blob_files():
        algorithm, _, name = file.parts[-4:-1]
        assert hashlib.new(algorithm, file.read_bytes()).hexdigest() == name


def check_reads(client: httpx.Client, name: str, tag: str, layer: bytes) -> None:
    """The image is there with its tag and blobs, the lists too, and probes are content."""
    manifest = client.get(f"/v2/{name}/manifests/{tag}")
    assert manifest.status_code == 200
    digest = manifest.headers["docker-content-digest"]
    assert client.head(f"/v2/{name}/manifests/{digest}").status_code == 200
    assert client.get(f"/v2/{name}/blobs/{Digest.of(layer)}").content == layer
    assert tag in client.get(f"/v2/{name}/tags/list").json()["tags"]
    assert name in client.get("/v2/_catalog?n=1000").json()["repositories"]
    assert client.get(f"/v2/{name}/referrers/{digest}").status_code == 200
    for probe in ("/livez", "/readyz", "/healthz", "/"):
        assert client.get(probe).status_code == 200


Step = Callable[[httpx.Client, str, bytes], httpx.Response]


def start_an_upload(client: httpx.Client, name: str, content: bytes) -> httpx.Response:
    return client.post(f"/v2/new/{name}/blobs/uploads/")


def post_small(client: httpx.Client, name: str, content: bytes) -> httpx.Response:
    small = content[:10_000]
    path = f"/v2/{name}/blobs/uploads/?digest={Digest.of(small)}"
    return send(client, "POST", path, small, chunked=False)


def post_large(client: httpx.Client, name: str, content: bytes) -> httpx.Response:
    path = f"/v2/{name}/blobs/uploads/?digest={Digest.of(content)}"
    return send(client, "POST", path, content, chunked=False)


def post_chunked(client: httpx.Client, name: str, content: bytes) -> httpx.Response:
    path = f"/v2/{name}/blobs/uploads/?digest={Digest.of(content)}"
    return send(client, "POST", path, content, chunked=True)


def mount(client: httpx.Client, name: str, content: bytes) -> httpx.Response:
    query = f"mount={Digest.of(b'{}')}&from={name}"
    return client.post(f"/v2/new/{name}/blobs/uploads/?{query}")


def put_manifest(client: httpx.Client, name: str, content: bytes) -> httpx.Response:
    manifest = image(config=b"{}", annotations={"salt": content[:8].hex()})
    return push_manifest(client, name, str(Digest.of(manifest)), manifest)


def put_a_new_tag(client: httpx.Client, name: str, content: bytes) -> httpx.Response:
    return push_manifest(client, name, "new", client.get(f"/v2/{name}/manifests/v1").content)


def move_a_tag(client: httpx.Client, name: str, content: bytes) -> httpx.Response:
    manifest = image(config=b"{}", annotations={"salt": content[:8].hex()})
    return push_manifest(client, name, "v1", manifest)


STEPS = [
    start_an_upload,
    post_small,
    post_large,
    post_chunked,
    mount,
    put_manifest,
    put_a_new_tag,
    move_a_tag,
]


@pytest.mark.parametrize("step", STEPS)
def test_a_full_disk_refuses_a_push_and_takes_it_once_there_is_room(
    volume: Volume, client: httpx.Client, step: Step
) -> None:
    name, layer, content = new_name(), fresh(100_000), fresh(3 * MIB)
    digest = push_image(client, name, "v1", layer)
    with volume.full():
        refused_as_full(step(client, name, content))
        check_reads(client, name, "v1", layer)
        assert client.head(f"/v2/{name}/manifests/v1").headers["docker-content-digest"] == digest
        assert client.get(f"/v2/{name}/tags/list").json()["tags"] == ["v1"]
        for wanted in (Digest.of(content), Digest.of(content[:10_000])):
            assert client.head(f"/v2/{name}/blobs/{wanted}").status_code == 404
    answer = step(client, name, content)
    assert answer.status_code in (201, 202), answer.text
    check_all_blobs(volume)
    check_reads(client, name, "v1", layer)


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_an_upload_goes_on_where_the_disk_was_full(
    volume: Volume, client: httpx.Client, chunked: bool
) -> None:
    name, content = new_name(), fresh(6 * MIB)
    location = start(client, name)
    half = client.patch(location, content=content[:MIB])
    assert half.status_code == 202
    with volume.full():
        answer = send(client, "PATCH", half.headers["location"], content[MIB:], chunked=chunked)
        refused_as_full(answer)
        status = client.get(location.partition("?")[0])
        assert status.status_code == 204
    size = int(status.headers["range"].partition("-")[2]) + 1
    # For lack of an inode only the hash's state was not saved: the bytes are there.
    assert MIB <= size < len(content) or (volume.runs_out_of == "inodes" and size == len(content))
    digest = Digest.of(content)
    location = f"{status.headers['location']}&digest={digest}"
    closed = client.put(location, content=content[size:])
    assert closed.status_code == 201, closed.text
    assert client.get(f"/v2/{name}/blobs/{digest}").content == content
    assert client.delete(f"/admin/blobs/{digest}").status_code == 204


def test_pushes_fill_the_disk_and_a_collection_makes_room(
    volume: Volume, client: httpx.Client
) -> None:
    if volume.runs_out_of == "inodes":
        sizes = [100] * 600
    else:
        sizes = [3 * MIB] * 12 + [MIB] * 4 + [50_000] * 40 + [1_000] * 300
    name, kept, layer = new_name(), [], fresh(50_000)
    push_image(client, name, "v1", layer)
    refusals = 0
    try:
        for size in sizes:
            content = fresh(size)
            digest = Digest.of(content)
            opened = client.post(f"/v2/{name}/blobs/uploads/")
            if is_refused_as_full(opened):
                refusals += 1
                continue
            location = f"{opened.headers['location']}&digest={digest}"
            if is_refused_as_full(send(client, "PUT", location, content, chunked=size % 3 == 0)):
                refusals += 1
                assert client.head(f"/v2/{name}/blobs/{digest}").status_code == 404
                # As clients do that give up: what it has taken is free again.
                gone = client.delete(opened.headers["location"])
                assert gone.status_code == 204, gone.text
            else:
                kept.append(digest)
            if refusals >= 25:
                break
        assert refusals and kept
        check_reads(client, name, "v1", layer)
        for digest in kept:
            answer = client.get(f"/v2/{name}/blobs/{digest}")
            assert Digest.of(answer.content) == digest
        check_all_blobs(volume)
    finally:
        collected = collect(volume)
    assert collected["deleted"]["blob"] >= len(kept)
    again = fresh(50_000 if volume.runs_out_of == "inodes" else 3 * MIB)
    assert push_blob(client, name, again)
    check_reads(client, name, "v1", layer)


def collect(volume: Volume) -> dict[str, dict[str, int]]:
    """The garbage collector beside the server that runs on, as an administrator calls it."""
    options = ["--confirm", "--force", "--grace-period", "0s", "-o", "json"]
    done = subprocess.run(
        [sys.executable, "-m", "registry", "gc", *options],
        cwd=PROJECT,
        env={
            **clean_environment(),
            "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": str(volume.folder),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    report: dict[str, dict[str, int]] = json.loads(done.stdout)
    return report


@pytest.mark.parametrize("step", STEPS)
def test_a_read_only_volume_refuses_pushes_and_serves_on(
    volume: Volume, client: httpx.Client, step: Step
) -> None:
    name, layer, content = new_name(), fresh(100_000), fresh(3 * MIB)
    push_image(client, name, "v1", layer)
    with volume.read_only():
        answer = step(client, name, content)
        first = refused(answer, 503, "UNAVAILABLE")
        assert "read-only" in first["message"]
        assert int(answer.headers["retry-after"]) >= 1
        check_reads(client, name, "v1", layer)
    answer = step(client, name, content)
    assert answer.status_code in (201, 202), answer.text
    check_reads(client, name, "v1", layer)


def test_a_read_only_volume_refuses_deletes(volume: Volume, client: httpx.Client) -> None:
    name, layer = new_name(), fresh(1000)
    digest = push_image(client, name, "v1", layer)
    with volume.read_only():
        for path in ("manifests/v1", f"manifests/{digest}", f"blobs/{Digest.of(layer)}"):
            refused(client.delete(f"/v2/{name}/{path}"), 503, "UNAVAILABLE")
        check_reads(client, name, "v1", layer)
    assert client.delete(f"/v2/{name}/manifests/v1").status_code == 202
