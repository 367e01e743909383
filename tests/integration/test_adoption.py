"""One backend, two registries: what the CNCF distribution registry (2.8 and 3) wrote is served here
as it is, and the other way round, uploads in flight included.

Both run at once on one folder: storage is the only truth, so what one has answered the other has.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from oci.descriptor import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from oci.digest import Digest, new_hasher
from storage import paths
from tests.e2e.server import (
    PROJECT,
    Server,
    assert_no_traceback,
    clean_environment,
    free_port,
    running_server,
)
from tests.fakes.images import descriptor, image, index
from tests.integration.api import OCTETS, new_name, refused
from tests.load.ledger import Blob

SECRET = "shared by both"
CONTENT = Blob.make(5, 1_300_000).content()
CONFIG = b'{"architecture":"amd64","os":"linux"}'

CONFIGURATION = """\
version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {root}}}
  delete: {{enabled: true}}
  maintenance: {{uploadpurging: {{enabled: false}}}}
http: {{addr: "127.0.0.1:{port}", secret: "{secret}"}}
"""


@dataclass(frozen=True, slots=True)
class Distribution:
    """The other registry, running on the same folder; its client, program and configuration."""

    client: httpx.Client
    program: str
    configuration: Path
    root: Path

    def collect(self, *options: str) -> str:
        """The output of its garbage collector."""
        done = subprocess.run(
            [self.program, "garbage-collect", *options, str(self.configuration)],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=50,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def path(self, of_the_layout: str) -> Path:
        return Path(f"{self.root}{of_the_layout}")


def environment() -> dict[str, str]:
    # Version 3 would look for a trace collector.
    return {**clean_environment(), "OTEL_TRACES_EXPORTER": "none"}


def find(program: str) -> str:
    """The program's path: on PATH, or where `tests/tools.sh` keeps what it built."""
    kept = subprocess.run(
        [PROJECT / "tests/tools.sh"], capture_output=True, text=True, check=True
    ).stdout.strip()
    found = shutil.which(program) or shutil.which(program, path=kept)
    if found is None:
        reason = f"{program} is not installed (Debian: docker-registry; tests/tools.sh registry-v3)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.fixture(scope="module", params=["docker-registry", "registry-v3"])
def theirs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Distribution]:
    program = find(request.param)
    folder, port = tmp_path_factory.mktemp("backend"), free_port()
    root, configuration = folder / "data", folder / "config.yml"
    root.mkdir()
    configuration.write_text(CONFIGURATION.format(root=root, port=port, secret=SECRET))
    with (folder / "theirs.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "serve", str(configuration)], env=environment(), stdout=log, stderr=log
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            wait_until_ready(client)
            yield Distribution(client, program, configuration, root)
    finally:
        process.terminate()
        process.wait(20)


def wait_until_ready(client: httpx.Client) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if client.get("/v2/").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.02)
    raise AssertionError("the other registry is not ready")


@pytest.fixture(scope="module")
def server(theirs: Distribution, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("ours") / "log"
    with running_server(
        storage=theirs.root, log=log, secret=SECRET, workers=2, host="127.0.0.1"
    ) as running:
        yield running
    assert_no_traceback(log)


@dataclass(frozen=True, slots=True)
class Pair:
    """The registry that writes, and the one that is to serve what was written."""

    writer: httpx.Client
    reader: httpx.Client


@pytest.fixture(params=["adopted", "given back"])
def pair(request: pytest.FixtureRequest, theirs: Distribution, client: httpx.Client) -> Pair:
    if request.param == "adopted":
        return Pair(theirs.client, client)
    return Pair(client, theirs.client)


def where(answer: httpx.Response) -> str:
    """The Location as path and query: the other registry has another port."""
    parts = urlsplit(answer.headers["location"])
    return f"{parts.path}?{parts.query}"


def begin(client: httpx.Client, name: str) -> str:
    answer = client.post(f"/v2/{name}/blobs/uploads/")
    assert answer.status_code == 202, answer.text
    return where(answer)


def patch(client: httpx.Client, location: str, content: bytes) -> str:
    answer = client.patch(location, content=content, headers=OCTETS)
    assert answer.status_code == 202, answer.text
    return where(answer)


def close(
    client: httpx.Client, location: str, digest: Digest, content: bytes = b""
) -> httpx.Response:
    return client.put(f"{location}&digest={digest}", content=content, headers=OCTETS)


def push_blob(client: httpx.Client, name: str, content: bytes) -> None:
    location = patch(client, begin(client, name), content)
    answer = close(client, location, Digest.of(content))
    assert answer.status_code == 201, answer.text


def put(client: httpx.Client, name: str, reference: str, content: bytes, kind: str) -> Digest:
    answer = client.put(
        f"/v2/{name}/manifests/{reference}", content=content, headers={"Content-Type": kind}
    )
    assert answer.status_code == 201, answer.text
    return Digest.of(content)


def push(client: httpx.Client, name: str, tag: str, layer: bytes, **more: object) -> bytes:
    """The manifest of an OCI image."""
    for blob in (CONFIG, layer):
        push_blob(client, name, blob)
    content = image(layer, config=CONFIG, **more)
    put(client, name, tag, content, OCI_MANIFEST)
    return content


def docker_image(layer: bytes) -> bytes:
    document = json.loads(image(layer, config=CONFIG))
    document["mediaType"] = DOCKER_MANIFEST
    document["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json"
    document["layers"][0]["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    return json.dumps(document).encode()


def get(client: httpx.Client, name: str, reference: str, kind: str = OCI_MANIFEST) -> bytes:
    answer = client.get(f"/v2/{name}/manifests/{reference}", headers={"Accept": kind})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == kind
    assert answer.headers["docker-content-digest"] == Digest.of(answer.content)
    return answer.content


def get_blob(client: httpx.Client, name: str, digest: Digest) -> bytes:
    answer = client.get(f"/v2/{name}/blobs/{digest}")
    assert answer.status_code == 200, answer.text
    return answer.content


def test_an_image_is_served_by_the_other(pair: Pair) -> None:
    name, layer = new_name(), CONTENT[:200_000]
    first = push(pair.writer, name, "v1", layer)
    second = push(pair.writer, name, "v1", layer, annotations={"a": "b"})
    docker = docker_image(layer)
    put(pair.writer, name, "docker", docker, DOCKER_MANIFEST)
    assert get(pair.reader, name, "v1") == second
    assert get(pair.reader, name, str(Digest.of(second))) == second
    assert get(pair.reader, name, str(Digest.of(first))) == first
    assert get(pair.reader, name, "docker", DOCKER_MANIFEST) == docker
    assert get_blob(pair.reader, name, Digest.of(layer)) == layer
    assert get_blob(pair.reader, name, Digest.of(CONFIG)) == CONFIG
    part = pair.reader.get(f"/v2/{name}/blobs/{Digest.of(layer)}", headers={"Range": "bytes=10-99"})
    assert (part.status_code, part.content) == (206, layer[10:100])
    head = pair.reader.head(f"/v2/{name}/blobs/{Digest.of(layer)}")
    assert head.headers["content-length"] == str(len(layer))
    tags = pair.reader.get(f"/v2/{name}/tags/list").json()
    assert (tags["name"], sorted(tags["tags"])) == (name, ["docker", "v1"])
    assert name in pair.reader.get("/v2/_catalog?n=1000").json()["repositories"]


@pytest.mark.parametrize("kind", [OCI_INDEX, DOCKER_LIST])
def test_a_multi_arch_image_is_served_by_the_other(pair: Pair, kind: str) -> None:
    name = new_name()
    children = []
    for number in range(2):
        layer = CONTENT[number : 1000 + number]
        if kind == OCI_INDEX:
            children.append(push(pair.writer, name, f"arch{number}", layer))
        else:
            for blob in (CONFIG, layer):
                push_blob(pair.writer, name, blob)
            children.append(docker_image(layer))
            put(pair.writer, name, str(Digest.of(children[-1])), children[-1], DOCKER_MANIFEST)
    document = json.loads(index(*children))
    document["mediaType"] = kind
    for number, entry in enumerate(document["manifests"]):
        entry["platform"] = {"architecture": ("amd64", "arm64")[number], "os": "linux"}
        entry["mediaType"] = OCI_MANIFEST if kind == OCI_INDEX else DOCKER_MANIFEST
    content = json.dumps(document).encode()
    put(pair.writer, name, "all", content, kind)
    assert get(pair.reader, name, "all", kind) == content
    assert get(pair.reader, name, str(Digest.of(content)), kind) == content
    for child in children:
        expected = OCI_MANIFEST if kind == OCI_INDEX else DOCKER_MANIFEST
        assert get(pair.reader, name, str(Digest.of(child)), expected) == child


def test_the_other_goes_on_writing_to_a_repository(pair: Pair) -> None:
    name, layer = new_name(), CONTENT[:5000]
    push(pair.writer, name, "v1", layer)
    moved = push(pair.reader, name, "v1", layer, annotations={"by": "the other"})
    added = push(pair.reader, name, "v2", CONTENT[:6000])
    for client in (pair.writer, pair.reader):
        assert get(client, name, "v1") == moved
        assert get(client, name, "v2") == added
        assert sorted(client.get(f"/v2/{name}/tags/list").json()["tags"]) == ["v1", "v2"]


def test_a_digest_deleted_by_the_other_is_gone(pair: Pair) -> None:
    name = new_name()
    gone = push(pair.writer, name, "v1", CONTENT[:5000])
    kept = push(pair.writer, name, "v2", CONTENT[:6000])
    answer = pair.reader.delete(f"/v2/{name}/manifests/{Digest.of(gone)}")
    assert answer.status_code == 202, answer.text
    for client in (pair.writer, pair.reader):
        for reference in ("v1", str(Digest.of(gone))):
            assert client.get(f"/v2/{name}/manifests/{reference}").status_code == 404
        assert get(client, name, "v2") == kept


def hash_state(theirs: Distribution, name: str, location: str, offset: int) -> Path:
    upload = urlsplit(location).path.rpartition("/")[2]
    return theirs.path(paths.hash_state(name, upload, "sha256", offset))


CUTS = pytest.mark.parametrize("cut", [1, 64, 40_000, 700_001])


@CUTS
def test_an_upload_is_continued_by_the_other_with_its_state(pair: Pair, cut: int) -> None:
    name, digest = new_name(), Digest.of(CONTENT)
    location = patch(pair.writer, begin(pair.writer, name), CONTENT[:cut])
    location = patch(pair.reader, location, CONTENT[cut : cut + 300_000])
    location = patch(pair.writer, location, CONTENT[cut + 300_000 : cut + 310_000])
    answer = close(pair.reader, location, digest, CONTENT[cut + 310_000 :])
    assert answer.status_code == 201, answer.text
    for client in (pair.writer, pair.reader):
        assert get_blob(client, name, digest) == CONTENT


@CUTS
def test_an_upload_is_continued_by_the_other_from_its_status(pair: Pair, cut: int) -> None:
    name, digest = new_name(), Digest.of(CONTENT)
    location = patch(pair.writer, begin(pair.writer, name), CONTENT[:cut])
    status = pair.reader.get(location)
    assert status.status_code == 204
    assert status.headers["range"] == f"0-{cut - 1}"
    assert status.headers["docker-upload-uuid"] == location.partition("?")[0].rpartition("/")[2]
    answer = close(pair.reader, where(status), digest, CONTENT[cut:])
    assert answer.status_code == 201, answer.text
    assert get_blob(pair.writer, name, digest) == CONTENT


def test_an_upload_without_bytes_is_continued_by_the_other(pair: Pair) -> None:
    name, digest = new_name(), Digest.of(CONTENT)
    location = begin(pair.writer, name)
    assert pair.reader.get(location).headers["range"] == "0-0"
    answer = close(pair.reader, location, digest, CONTENT)
    assert answer.status_code == 201, answer.text
    assert get_blob(pair.writer, name, digest) == CONTENT


def test_an_upload_is_closed_by_the_other_without_reading_it_again(
    pair: Pair, theirs: Distribution
) -> None:
    """The saved state of the hash decides: one of other bytes leads to a digest of those."""
    name, cut = new_name(), 700_001
    location = patch(pair.writer, begin(pair.writer, name), CONTENT[:cut])
    state = hash_state(theirs, name, location, cut)
    of_other_bytes = new_hasher()
    of_other_bytes.update(bytes(cut))
    assert len(of_other_bytes.state() or b"") == len(state.read_bytes())
    state.write_bytes(of_other_bytes.state() or b"")
    answer = close(pair.reader, location, Digest.of(CONTENT), CONTENT[cut:])
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["code"] == "DIGEST_INVALID"


def test_both_save_the_same_state_of_the_hash(theirs: Distribution, client: httpx.Client) -> None:
    name, cut = new_name(), 700_001
    states = []
    for writer in (theirs.client, client):
        location = patch(writer, begin(writer, name), CONTENT[:cut])
        states.append(hash_state(theirs, name, location, cut).read_bytes())
    assert states[0] == states[1]


def test_an_upload_is_cancelled_by_the_other(pair: Pair) -> None:
    name = new_name()
    location = patch(pair.writer, begin(pair.writer, name), CONTENT[:1000])
    assert pair.reader.delete(location).status_code == 204
    for client in (pair.writer, pair.reader):
        assert client.get(location).status_code == 404


# What a crash of the other registry leaves, which writes small files in place.


def empty(path: Path) -> None:
    assert path.stat().st_size > 0
    path.write_bytes(b"")


def empty_the_revision_link(theirs: Distribution, name: str, digest: Digest) -> None:
    empty(theirs.path(paths.revision_link(name, digest)))


def lose_the_revision(theirs: Distribution, name: str, digest: Digest) -> None:
    shutil.rmtree(theirs.path(paths.revision_folder(name, digest)))


def empty_the_manifest(theirs: Distribution, name: str, digest: Digest) -> None:
    empty(theirs.path(paths.blob(digest)))


@pytest.mark.parametrize("damage", [empty_the_revision_link, lose_the_revision, empty_the_manifest])
def test_a_damaged_manifest_is_unknown_and_is_healed(
    theirs: Distribution,
    client: httpx.Client,
    damage: Callable[[Distribution, str, Digest], None],
) -> None:
    name = new_name()
    content = push(theirs.client, name, "v1", CONTENT[:1000], annotations={"for": name})
    damage(theirs, name, Digest.of(content))
    for reference in ("v1", str(Digest.of(content))):
        refused(client.get(f"/v2/{name}/manifests/{reference}"), 404, "MANIFEST_UNKNOWN")
    put(client, name, "v1", content, OCI_MANIFEST)
    for healed in (client, theirs.client):
        assert get(healed, name, "v1") == content


def test_an_empty_layer_link_counts_as_absent_and_is_healed(
    theirs: Distribution, client: httpx.Client
) -> None:
    name, layer = new_name(), CONTENT[:1000]
    content = push(theirs.client, name, "v1", layer)
    empty(theirs.path(paths.layer_link(name, Digest.of(layer))))
    refused(client.get(f"/v2/{name}/blobs/{Digest.of(layer)}"), 404, "BLOB_UNKNOWN")
    answer = client.put(
        f"/v2/{name}/manifests/v2", content=content, headers={"Content-Type": OCI_MANIFEST}
    )
    refused(answer, 400, "MANIFEST_BLOB_UNKNOWN")
    push(client, name, "v2", layer)
    for healed in (client, theirs.client):
        assert get_blob(healed, name, Digest.of(layer)) == layer


def test_an_empty_tag_counts_as_absent_and_is_healed(
    theirs: Distribution, client: httpx.Client
) -> None:
    name = new_name()
    content = push(theirs.client, name, "v1", CONTENT[:1000])
    empty(theirs.path(paths.tag_current(name, "v1")))
    refused(client.get(f"/v2/{name}/manifests/v1"), 404, "MANIFEST_UNKNOWN")
    assert get(client, name, str(Digest.of(content))) == content
    put(client, name, "v1", content, OCI_MANIFEST)
    for healed in (client, theirs.client):
        assert get(healed, name, "v1") == content


def test_a_cut_layer_is_replaced_when_it_is_pushed_again(
    theirs: Distribution, client: httpx.Client
) -> None:
    name, layer = new_name(), Blob.make(77, 5000).content()
    push(theirs.client, name, "v1", layer)
    empty(theirs.path(paths.blob(Digest.of(layer))))
    push(client, name, "v1", layer)
    for healed in (client, theirs.client):
        assert get_blob(healed, name, Digest.of(layer)) == layer


def test_their_garbage_collector_leaves_our_images_whole(
    theirs: Distribution, client: httpx.Client
) -> None:
    name, layer = new_name(), Blob.make(78, 90_000).content()
    orphan = Blob.make(79, 90_000)
    tagged = push(client, name, "v1", layer)
    untagged = push(client, name, str(Digest.of(image(layer[:10], config=CONFIG))), layer[:10])
    both = index(tagged, untagged)
    put(client, name, "all", both, OCI_INDEX)
    about = image(config=CONFIG, subject=descriptor(tagged, OCI_MANIFEST))
    put(client, name, str(Digest.of(about)), about, OCI_MANIFEST)
    push_blob(client, name, orphan.content())
    open_upload = patch(client, begin(client, name), CONTENT[:1000])
    assert theirs.path(paths.blob(orphan.digest)).exists()

    assert f"{orphan.digest}" in theirs.collect("--dry-run")
    assert theirs.path(paths.blob(orphan.digest)).exists()
    theirs.collect()

    assert not theirs.path(paths.blob(orphan.digest)).exists()
    for reader in (client, theirs.client):
        assert get(reader, name, "v1") == tagged
        assert get(reader, name, "all", OCI_INDEX) == both
        for content in (tagged, untagged, about):
            assert get(reader, name, str(Digest.of(content))) == content
        assert get_blob(reader, name, Digest.of(layer)) == layer
    referrers = client.get(f"/v2/{name}/referrers/{Digest.of(tagged)}").json()["manifests"]
    assert [entry["digest"] for entry in referrers] == [Digest.of(about)]
    answer = close(client, open_upload, Digest.of(CONTENT), CONTENT[1000:])
    assert answer.status_code == 201, answer.text
    # Its link stayed, its bytes are gone: that is no blob any more, and may be pushed again.
    refused(client.get(f"/v2/{name}/blobs/{orphan.digest}"), 404, "BLOB_UNKNOWN")
    push_blob(client, name, orphan.content())
    assert get_blob(client, name, orphan.digest) == orphan.content()


def test_what_their_collector_takes_as_untagged_is_no_referrer_any_more(
    theirs: Distribution, client: httpx.Client
) -> None:
    name = new_name()
    tagged = push(client, name, "v1", CONTENT[:1234])
    about = image(config=CONFIG, subject=descriptor(tagged, OCI_MANIFEST))
    put(client, name, str(Digest.of(about)), about, OCI_MANIFEST)
    theirs.collect("--delete-untagged")
    refused(client.get(f"/v2/{name}/manifests/{Digest.of(about)}"), 404, "MANIFEST_UNKNOWN")
    assert client.get(f"/v2/{name}/referrers/{Digest.of(tagged)}").json()["manifests"] == []
    for reader in (client, theirs.client):
        assert get(reader, name, "v1") == tagged
    put(client, name, str(Digest.of(about)), about, OCI_MANIFEST)
    referrers = client.get(f"/v2/{name}/referrers/{Digest.of(tagged)}").json()["manifests"]
    assert [entry["digest"] for entry in referrers] == [Digest.of(about)]
