"""The collector's rules one by one; `test_gc_graphs.py` has the graphs."""

from __future__ import annotations

import json

import pytest

from oci.descriptor import OCI_INDEX, OCI_MANIFEST
from oci.digest import SHA512, Digest
from registry.gc import GarbageCollector
from registry.gc_report import Kind, Removal, Report
from storage import paths
from storage.driver import StorageDriver
from tests.fakes.backend import HOUR, NOW, YOUNG, AgedDriver, Backend, image, index

TEMPORARY = "0123456789abcdef" * 2


@pytest.fixture
def driver() -> AgedDriver:
    return AgedDriver()


@pytest.fixture
def backend(driver: AgedDriver) -> Backend:
    return Backend.on(driver)


async def collect(driver: StorageDriver, *, delete_untagged: bool = False) -> Report:
    return await GarbageCollector(
        driver, clock=lambda: NOW, grace=HOUR, dry_run=False, delete_untagged=delete_untagged
    ).run()


async def test_unreferenced_blobs_and_layer_links_go(driver: AgedDriver, backend: Backend) -> None:
    await backend.image("team/app", "v1")
    kept = await driver.files()
    await backend.layer("team/app", b"never used")
    await backend.blob(b"linked nowhere")
    report = await collect(driver)
    assert await driver.files() == kept
    assert report.deleted == {Kind.LAYER: 1, Kind.BLOB: 2}
    assert report.freed == 71 + len(b"never used") + len(b"linked nowhere")
    assert not report.failed


async def test_young_blobs_and_links_stay(driver: AgedDriver, backend: Backend) -> None:
    await backend.layer("team/app", b"just pushed", YOUNG)
    old = await backend.blob(b"old, but linked a moment ago")
    await backend.layer_link("team/app", old, YOUNG)
    touched = await backend.blob(b"old link, but used a moment ago", YOUNG)
    await backend.layer_link("team/app", touched)
    before = await driver.files()
    await collect(driver)
    assert await driver.files() == before


async def test_a_link_needed_in_one_repository_is_no_reason_for_one_in_another(
    driver: AgedDriver, backend: Backend
) -> None:
    config = await backend.layer("team/app", b"config")
    layer = await backend.layer("team/app", b"layer")
    await backend.manifest("team/app", image([layer], config=config), "v1")
    await backend.layer_link("team/other", layer)
    await collect(driver)
    files = await driver.files()
    assert paths.layer_link("team/app", layer) in files
    assert paths.layer_link("team/other", layer) not in files
    assert paths.blob(layer) in files


async def test_an_untagged_manifest_stays_unless_asked_for(
    driver: AgedDriver, backend: Backend
) -> None:
    await backend.image("team/app", "v1", seed="tagged")
    await backend.image("team/app", seed="untagged")
    before = await driver.files()
    await collect(driver)
    assert await driver.files() == before
    report = await collect(driver, delete_untagged=True)
    assert report.deleted == {Kind.REVISION: 1, Kind.LAYER: 2, Kind.BLOB: 3}


async def test_with_untagged_the_children_and_referrers_of_a_tagged_index_stay(
    driver: AgedDriver, backend: Backend
) -> None:
    child = await backend.image("team/app", seed="child")
    top = await backend.manifest("team/app", index([(child, OCI_MANIFEST)]), "v1")
    signature = await backend.image("team/app", seed="signature", subject=top)
    await backend.image("team/app", seed="signature of the signature", subject=signature)
    before = await driver.files()
    await collect(driver, delete_untagged=True)
    assert await driver.files() == before


async def test_a_referrer_without_an_edge_stays_too(driver: AgedDriver, backend: Backend) -> None:
    top = await backend.image("team/app", "v1")
    signature = await backend.image("team/app", seed="signature", subject=top)
    edge = paths.referrer_link("team/app", top, signature)
    await driver.delete(edge)
    before = await driver.files()
    await collect(driver, delete_untagged=True)
    assert await driver.files() == before


async def test_a_moved_tag_lets_go_of_what_it_pointed_to(
    driver: AgedDriver, backend: Backend
) -> None:
    before = await backend.image("team/app", "latest", seed="before")
    now = await backend.image("team/app", "latest", seed="now")
    report = await collect(driver, delete_untagged=True)
    files = await driver.files()
    assert paths.tag_index("team/app", "latest", before) not in files
    assert paths.tag_index("team/app", "latest", now) in files
    assert report.deleted[Kind.HISTORY] == 1


async def test_an_unlinked_child_keeps_what_it_names_to_any_depth(
    driver: AgedDriver, backend: Backend
) -> None:
    config = await backend.layer("team/app", b"config")
    deep = await backend.blob(image(config=config))
    middle = await backend.blob(index([(deep, OCI_MANIFEST)]))
    await backend.manifest("team/app", index([(middle, OCI_INDEX)]), "v1")
    before = await driver.files()
    await collect(driver)
    assert await driver.files() == before


async def test_an_index_goes_before_its_children(driver: AgedDriver, backend: Backend) -> None:
    child = await backend.image("team/app", seed="child")
    middle = await backend.manifest("team/app", index([(child, OCI_MANIFEST)]))
    top = await backend.manifest("team/app", index([(middle, OCI_INDEX)], note="top"))
    await collect(driver, delete_untagged=True)
    removed = [path for path in driver.deleted if "/revisions/" in path]
    assert removed == [paths.revision_folder("team/app", digest) for digest in (top, middle, child)]


async def test_a_tag_without_its_manifest_goes_when_old(
    driver: AgedDriver, backend: Backend
) -> None:
    gone = Digest.of(b"deleted by digest")
    await backend.image("team/app", "v1")
    kept = await driver.files()
    await backend.tag("team/app", "dangling", gone)
    await backend.file(paths.tag_index("team/app", "half", gone), gone.encode())
    young = await backend.file(paths.tag_current("team/app", "young"), gone.encode(), YOUNG)
    report = await collect(driver)
    assert await driver.files() == {*kept, young}
    assert report.deleted[Kind.TAG] == 2


@pytest.mark.parametrize("content", [b"", b"sha256:", b"x" * 71, b"sha256:" + b"0" * 64 + b"\n"])
async def test_a_malformed_link_counts_as_absent_and_goes_when_old(
    driver: AgedDriver, backend: Backend, content: bytes
) -> None:
    digest = await backend.image("team/app", "v1")
    kept = await driver.files()
    other, third = Digest.of(b"other"), Digest.of(b"third")
    for path in (
        paths.revision_link("team/app", other),
        paths.tag_current("team/app", "torn"),
        paths.referrer_link("team/app", digest, other),
    ):
        await backend.file(path, content)
    young = await backend.file(paths.revision_link("team/app", third), content, YOUNG)
    report = await collect(driver)
    assert await driver.files() == {*kept, young}
    assert report.malformed.count == 4
    assert not report.failed


async def test_a_malformed_layer_link_of_a_kept_image_is_deleted_and_its_blob_stays(
    driver: AgedDriver, backend: Backend
) -> None:
    config = await backend.layer("team/app", b"config")
    layer = await backend.blob(b"layer")
    torn = await backend.file(paths.layer_link("team/app", layer), b"")
    await backend.manifest("team/app", image([layer], config=config), "v1")
    report = await collect(driver)
    files = await driver.files()
    assert torn not in files
    assert paths.blob(layer) in files
    assert report.malformed.first == [torn]


async def test_a_link_keeps_the_blob_that_its_content_names(
    driver: AgedDriver, backend: Backend
) -> None:
    """The CNCF registry stores a blob pushed as sha512 under sha256, and links one to the other."""
    stored = await backend.blob(b"layer")
    named = Digest.of(b"layer", SHA512)
    await backend.file(paths.layer_link("team/app", named), stored.encode())
    config = await backend.layer("team/app", b"config")
    content = image([named], config=config)
    manifest = await backend.blob(content)
    revision = Digest.of(content, SHA512)
    await backend.file(paths.revision_link("team/app", revision), manifest.encode())
    await backend.tag("team/app", "v1", revision)
    unused = await backend.blob(b"unused")
    await backend.file(paths.layer_link("team/app", Digest.of(b"unused", SHA512)), unused.encode())
    for delete_untagged in (False, True):
        await collect(driver, delete_untagged=delete_untagged)
        files = await driver.files()
        assert {paths.blob(digest) for digest in (stored, config, manifest)} == {
            path for path in files if "/blobs/" in path
        }
        assert paths.layer_link("team/app", named) in files
        assert paths.revision_link("team/app", revision) in files


async def test_blobs_stored_under_sha512_are_collected_too(
    driver: AgedDriver, backend: Backend
) -> None:
    digest = Digest.of(b"content", SHA512)
    await backend.file(paths.blob(digest), b"content")
    await collect(driver)
    assert await driver.files() == set()


@pytest.mark.parametrize("damage", ["missing", "changed", "no JSON", "too big"])
async def test_a_broken_manifest_stops_the_blob_sweep_and_keeps_its_repositorys_layers(
    driver: AgedDriver, backend: Backend, damage: str
) -> None:
    broken = await backend.image("team/app", "v1")
    if damage == "missing":
        await driver.delete(paths.blob(broken))
    elif damage == "changed":
        await backend.file(paths.blob(broken), b"{}")
    elif damage == "no JSON":
        broken = await backend.blob(b"no JSON")
        await backend.revision("team/app", broken)
    else:
        await backend.file(paths.blob(broken), b" " * (4 * 1024 * 1024 + 1))
    kept = await driver.files()
    await backend.layer("team/other", b"unused elsewhere")
    report = await collect(driver)
    assert await driver.files() == {*kept, paths.blob(Digest.of(b"unused elsewhere"))}
    assert report.failed
    assert not report.swept_blobs
    assert [text.partition(":")[0] for text in report.broken.first] == ["team/app@sha256"]
    assert broken in report.broken.first[0]


async def test_a_broken_manifest_that_nothing_keeps_is_unlinked_and_the_next_run_is_whole(
    driver: AgedDriver, backend: Backend
) -> None:
    await backend.image("team/app", "v1", seed="good")
    kept = await driver.files()
    broken = await backend.image("team/app", seed="broken")
    await driver.delete(paths.blob(broken))
    assert (await collect(driver, delete_untagged=True)).failed
    assert not (await collect(driver, delete_untagged=True)).failed
    assert await driver.files() == kept


@pytest.mark.parametrize("verb", ["walk", "get", "list"])
async def test_an_error_while_reading_deletes_nothing(
    driver: AgedDriver, backend: Backend, verb: str
) -> None:
    digest = await backend.image("team/app", "v1")
    await backend.layer("team/app", b"unused")
    await backend.layer("team/other", b"unused")
    path = {
        "walk": paths.REPOSITORIES,
        "get": paths.revision_link("team/app", digest),
        "list": paths.tags("team/app"),
    }[verb]
    driver.refused.add((verb, path))
    report = await collect(driver)
    assert report.failed
    assert not report.deleted
    assert driver.deleted == []
    assert report.errors.first == [f"nothing was deleted: {path}: refused"]


async def test_an_error_while_deleting_stops_what_depends_on_it_and_nothing_else(
    driver: AgedDriver, backend: Backend
) -> None:
    bad = await backend.image("team/app", seed="bad")
    await backend.image("team/app", "v1", seed="good")
    other = await backend.layer("team/other", b"unused")
    refused = paths.revision_folder("team/app", bad)
    driver.refused.add(("delete", refused))
    report = await collect(driver, delete_untagged=True)
    files = await driver.files()
    assert report.errors.count == 1
    assert report.failed
    assert paths.layer_link("team/other", other) not in files
    assert paths.blob(other) in files, "blobs wait until every link is gone"
    assert report.deleted == {Kind.LAYER: 1, Kind.REPOSITORY: 1}
    driver.refused.clear()
    assert (await collect(driver, delete_untagged=True)).deleted[Kind.BLOB] == 4


async def test_one_undeletable_blob_does_not_keep_the_others(
    driver: AgedDriver, backend: Backend
) -> None:
    bad, good = [await backend.blob(content) for content in (b"bad", b"good")]
    driver.refused.add(("delete", paths.blob_folder(bad)))
    report = await collect(driver)
    assert await driver.files() == {paths.blob(bad)}
    assert paths.blob(good) not in await driver.files()
    assert report.deleted == {Kind.BLOB: 1}
    assert report.failed


async def test_what_is_used_while_the_collector_runs_stays(
    driver: AgedDriver, backend: Backend
) -> None:
    used = await backend.layer("team/app", b"pushed again meanwhile")
    untagged = await backend.image("team/busy", seed="pushed again meanwhile")
    await backend.image("team/busy", "v1", seed="tagged")
    await backend.tag("team/app", "dangling", Digest.of(b"gone"))
    before = await driver.files()

    def push_again(path: str) -> None:
        for touched in (
            paths.layer_link("team/app", used),
            paths.revision_link("team/busy", untagged),
        ):
            driver.set_age(touched, 0)

    driver.before_delete = push_again
    report = await collect(driver, delete_untagged=True)
    dangling = {path for path in before if "/dangling/" in path}
    assert await driver.files() == before - dangling
    assert report.touched == 2
    assert not report.swept_blobs
    assert not report.failed
    assert "team/busy" in report.notes.first[0]


async def test_a_blob_touched_since_it_was_listed_stays(
    driver: AgedDriver, backend: Backend
) -> None:
    blob = await backend.blob(b"touched")
    await backend.layer("team/app", b"unused")
    driver.before_delete = lambda path: driver.set_age(paths.blob(blob), 0)
    report = await collect(driver)
    assert await driver.files() == {paths.blob(blob)}
    assert report.touched == 1


async def test_leftovers_of_killed_processes_go_when_old(
    driver: AgedDriver, backend: Backend
) -> None:
    digest = await backend.image("team/app", "v1")
    kept = await driver.files()
    tags = paths.tags("team/app")
    for path in (
        f"{paths.blob(digest)}.{TEMPORARY}.tmp",
        f"{paths.layer_link('team/app', digest)}.01234567-89ab-cdef-0123-456789abcdef.tmp",
        f"{tags}/.new-{TEMPORARY}/current/link",
        f"{tags}/.del-{TEMPORARY}/index/sha256/{digest.hex}/link",
        f"{paths.REPOSITORIES}/team/.del-{TEMPORARY}/_manifests/revisions/sha256/x/link",
    ):
        await backend.file(path, digest.encode())
    young = [
        await backend.file(path, b"", YOUNG)
        for path in (
            f"{tags}/.new-{TEMPORARY[::-1]}/current/link",
            f"{paths.blob(Digest.of(b'coming'))}.{TEMPORARY}.tmp",
        )
    ]
    report = await collect(driver)
    assert await driver.files() == {*kept, *young}
    assert report.deleted[Kind.LEFTOVER] == 5


async def test_a_young_temporary_file_beside_an_old_blob_survives_it(
    driver: AgedDriver, backend: Backend
) -> None:
    blob = await backend.blob(b"unused, and being pushed again")
    coming = await backend.file(f"{paths.blob(blob)}.{TEMPORARY}.tmp", b"", YOUNG)
    await collect(driver)
    assert await driver.files() == {coming}


async def test_unknown_files_are_never_deleted(driver: AgedDriver, backend: Backend) -> None:
    blob = await backend.layer("team/app", b"unused")
    await backend.tag("team/app", "dangling", Digest.of(b"gone"))
    unknown = {
        await backend.file(path, b"somebody else's")
        for path in (
            f"{paths.blob_folder(blob)}/notes.txt",
            f"{paths.layer_folder('team/app', blob)}/notes.txt",
            f"{paths.tag_folder('team/app', 'dangling')}/notes.txt",
            f"{paths.manifests('team/app')}/notes.txt",
            f"{paths.repository('team')}/_uid",
            f"{paths.BLOBS}/sha384/ab/abcd/data",
            f"{paths.BLOBS}/sha256/ab/{'c' * 64}/data",
            f"{paths.ROOT}/readme",
            f"{paths.REPOSITORIES}/readme",
        )
    }
    report = await collect(driver)
    assert await driver.files() == unknown
    assert report.deleted == {Kind.TAG: 1, Kind.HISTORY: 1, Kind.LAYER: 1, Kind.BLOB: 1}
    assert not (await collect(driver)).deleted


async def test_uploads_are_not_touched_and_hold_their_repository(
    driver: AgedDriver, backend: Backend
) -> None:
    await backend.upload("team/app", "some-upload", started=None)
    kept = await driver.files()
    await backend.layer("team/app", b"unused")
    report = await collect(driver)
    assert await driver.files() == kept
    assert report.deleted == {Kind.LAYER: 1, Kind.BLOB: 1}


async def test_manifests_of_other_kinds_keep_their_blobs(
    driver: AgedDriver, backend: Backend
) -> None:
    layers = [await backend.layer("team/app", content) for content in (b"one", b"two")]
    await backend.manifest(
        "team/app",
        json.dumps({"schemaVersion": 1, "fsLayers": [{"blobSum": layers[0]}]}).encode(),
    )
    await backend.manifest(
        "team/app",
        json.dumps({"blobs": [{"digest": layers[1]}, {"digest": "blake3:abc"}, 7]}).encode(),
    )
    before = await driver.files()
    assert not (await collect(driver)).failed
    assert await driver.files() == before


async def test_a_dry_run_says_what_a_real_run_does_and_does_nothing(
    driver: AgedDriver, backend: Backend
) -> None:
    await backend.image("team/app", seed="untagged")
    await backend.layer("team/other", b"unused")
    await backend.tag("team/app", "dangling", Digest.of(b"gone"))
    before = await driver.files()
    reports, lists = [], []
    for dry_run in (True, False):
        removals: list[Removal] = []
        collector = GarbageCollector(
            driver,
            clock=lambda: NOW,
            dry_run=dry_run,
            delete_untagged=True,
            listener=removals.extend,
        )
        reports.append(await collector.run())
        lists.append(sorted(removals))
        if dry_run:
            assert await driver.files() == before
    assert lists[0] == lists[1]
    assert reports[0].deleted == reports[1].deleted
    assert reports[0].freed == reports[1].freed


async def test_an_empty_backend_is_no_error(driver: AgedDriver) -> None:
    report = await collect(driver)
    assert not report.failed
    assert not report.deleted


def test_a_short_grace_needs_force(driver: AgedDriver) -> None:
    with pytest.raises(ValueError, match="15m"):
        GarbageCollector(driver, clock=lambda: NOW, grace=899)
    with pytest.raises(ValueError, match="15m"):
        GarbageCollector(driver, clock=lambda: NOW, grace=-1, force=True)
    GarbageCollector(driver, clock=lambda: NOW, grace=0, force=True)
