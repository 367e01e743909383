"""The short form of the crash campaign (`python -m tests.load.crash` is the long one), and its own
sense for what is broken."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from oci.descriptor import OCI_MANIFEST
from oci.digest import Digest
from tests.e2e.server import PROJECT
from tests.fakes.images import image
from tests.load.crash import Campaign
from tests.load.inspector import Inspector
from tests.load.ledger import Blob, Image, Ledger, TagWrite
from tests.load.victim import Victim
from tests.load.wire import Violation, Wire

KILLS = 4


@pytest.mark.parametrize("workers", [1, 2], ids=["one process", "two workers"])
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path, workers: int) -> None:
    campaign = Campaign(tmp_path, workers=[workers], seed=workers, say=print)
    campaign.run(KILLS)
    assert campaign.outcome.kills == KILLS
    assert campaign.outcome.images > KILLS


def test_a_kill_before_any_call_on_storage_breaks_no_promise() -> None:
    """Before every sixth one here; `python -m tests.load.every_call` takes them all."""
    command = [sys.executable, "-m", "tests.load.every_call", "--stride", "6"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=55)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.partition(" ")[0]) > 50


class Held:
    """A registry with one image that was acknowledged, tagged `v1`, and an older one that the tag
    had before."""

    name = "it/held"

    def __init__(self, folder: Path) -> None:
        self.storage = folder / "storage"
        self.storage.mkdir()
        self.victim = Victim(self.storage, folder / "log")
        self.ledger = Ledger()
        self.blobs = [Blob.make(seed, 1000) for seed in range(2)]
        self.images: list[Image] = []

    def fill(self) -> None:
        with Wire(self.victim.port) as wire:
            uploads = f"/v2/{self.name}/blobs/uploads/"
            for blob in self.blobs:
                wire.expect(201, "POST", f"{uploads}?digest={blob.digest}", blob.content())
            for salt in "01":
                config, layer = (blob.content() for blob in self.blobs)
                content = image(layer, config=config, annotations={"salt": salt})
                made = Image(content, OCI_MANIFEST, Digest.of(content), tuple(self.blobs))
                write = self.ledger.begin_tag(self.name, "v1", made.digest)
                where = f"/v2/{self.name}/manifests/v1"
                wire.expect(201, "PUT", where, content, {"Content-Type": OCI_MANIFEST})
                self.ledger.acknowledge(self.name, made, "v1", write)
                self.images.append(made)

    def path(self, below: str, digest: Digest | None = None) -> Path:
        root = self.storage / "docker/registry/v2"
        if digest is not None:
            below = below.format(algorithm=digest.algorithm, hex=digest.hex, start=digest.hex[:2])
        return root / below.replace("NAME", f"repositories/{self.name}")

    def inspect(self) -> None:
        inspector = Inspector(self.ledger, self.storage, self.victim.port)
        inspector.check_images(inspector.everything())
        inspector.check_tags([self.name])
        inspector.check_catalog()
        inspector.check_blob_files(set())
        inspector.check_links()
        inspector.check_no_leftovers()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    held = Held(tmp_path_factory.mktemp("held"))
    try:
        held.victim.start(1)
        held.fill()
        held.inspect()
        yield held
    finally:
        held.victim.destroy()


@pytest.fixture
def held(filled: Held, tmp_path: Path) -> Iterator[Held]:
    """Whole again after each test: the server keeps no truth of its own."""
    root = filled.storage / "docker"
    shutil.copytree(root, tmp_path / "copy")
    yield filled
    shutil.rmtree(root)
    shutil.copytree(tmp_path / "copy", root)


def lose_a_blob(held: Held) -> None:
    held.path("blobs/{algorithm}/{start}/{hex}/data", held.blobs[0].digest).unlink()


def corrupt_a_blob(held: Held) -> None:
    path = held.path("blobs/{algorithm}/{start}/{hex}/data", held.blobs[1].digest)
    path.write_bytes(bytes(1000))


def cut_a_blob_that_nobody_links(held: Held) -> None:
    path = held.path("blobs/{algorithm}/{start}/{hex}/data", Digest.of(b"never pushed"))
    path.parent.mkdir(parents=True)
    path.write_bytes(b"never")


def lose_a_layer_link(held: Held) -> None:
    held.path("NAME/_layers/{algorithm}/{hex}/link", held.blobs[1].digest).unlink()


def empty_a_history_link(held: Held) -> None:
    digest = held.images[0].digest
    held.path("NAME/_manifests/tags/v1/index/{algorithm}/{hex}/link", digest).write_bytes(b"")


def lose_a_tag(held: Held) -> None:
    shutil.rmtree(held.path("NAME/_manifests/tags/v1"))


def move_a_tag_back(held: Held) -> None:
    held.path("NAME/_manifests/tags/v1/current/link").write_text(held.images[0].digest)


def list_half_a_tag(held: Held) -> None:
    held.path("NAME/_manifests/tags/half/index").mkdir(parents=True)


def leave_a_temporary_file(held: Held) -> None:
    folder = held.path("NAME/_manifests/tags/.new-1")
    folder.mkdir()
    (folder / "link").touch()


@pytest.mark.parametrize(
    "damage",
    [
        lose_a_blob,
        corrupt_a_blob,
        cut_a_blob_that_nobody_links,
        lose_a_layer_link,
        empty_a_history_link,
        lose_a_tag,
        move_a_tag_back,
        list_half_a_tag,
        leave_a_temporary_file,
    ],
)
def test_the_inspector_sees_damage(held: Held, damage: Callable[[Held], None]) -> None:
    damage(held)
    with pytest.raises(Violation):
        held.inspect()


def test_a_tag_is_what_the_last_acknowledged_or_a_later_push_made_it() -> None:
    ledger, name, tag = Ledger(), "it/tags", "v1"
    first, second, third = (Digest.of(bytes([number])) for number in range(3))

    def acknowledge(digest: Digest, write: TagWrite) -> None:
        ledger.acknowledge(name, Image(b"", OCI_MANIFEST, digest), tag, write)

    ledger.begin_tag(name, tag, first)
    ledger.observe_tag(name, tag, None)
    ledger.server_killed()
    acknowledge(second, ledger.begin_tag(name, tag, second))
    for impossible in (None, first, third):
        with pytest.raises(Violation):
            ledger.observe_tag(name, tag, impossible)
    ledger.begin_tag(name, tag, third)
    ledger.observe_tag(name, tag, third)
    with pytest.raises(Violation):
        ledger.observe_tag(name, tag, second)


def test_an_uncertain_push_at_the_same_time_may_have_won() -> None:
    ledger, name, tag = Ledger(), "it/tags", "v1"
    lost, kept = Digest.of(b"lost"), Digest.of(b"kept")
    ledger.begin_tag(name, tag, lost)
    write = ledger.begin_tag(name, tag, kept)
    ledger.acknowledge(name, Image(b"", OCI_MANIFEST, kept), tag, write)
    ledger.server_killed()
    ledger.observe_tag(name, tag, lost)
