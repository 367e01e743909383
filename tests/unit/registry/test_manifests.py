import pytest

from oci.descriptor import OCI_CONFIG, OCI_MANIFEST
from oci.digest import Digest
from oci.errors import (
    BlobUnknown,
    ManifestBlobUnknown,
    ManifestUnknown,
    NameUnknown,
    PreconditionFailed,
    SizeInvalid,
)
from oci.reference import Reference
from registry.manifests import ManifestCache
from registry.metadata import StorageMetadata
from registry.repository import ALWAYS, Condition, StoredManifest
from registry.stored import StoredRegistry
from storage import paths
from storage.driver import StorageDriver
from tests.fakes.images import descriptor, image, index, push, push_blob, push_image

TAG = Reference("v1", None)


async def tags(registry: StoredRegistry, name: str) -> list[str]:
    return list((await registry.tags(name, "", 100)).names)


async def test_a_pushed_image_is_readable_by_tag_and_digest(registry: StoredRegistry) -> None:
    digest = await push_image(registry, "a", "v1", "v2")
    for reference in (TAG, Reference("v2", None), Reference(None, digest)):
        assert (await registry.get_manifest("a", reference)).digest == digest
    assert await tags(registry, "a") == ["v1", "v2"]


async def test_another_process_serves_what_this_one_stored(
    driver: StorageDriver, registry: StoredRegistry
) -> None:
    digest = await push_image(registry, "a", "v1")
    other = StoredRegistry(driver, StorageMetadata(driver))
    assert (await other.get_manifest("a", TAG)).content == (
        await registry.get_manifest("a", TAG)
    ).content
    moved = await push_image(other, "a", "v1", layer=b"new")
    assert (await registry.get_manifest("a", TAG)).digest == moved != digest
    await other.delete_tag("a", "v1", ALWAYS)
    with pytest.raises(ManifestUnknown):
        await registry.get_manifest("a", TAG)


async def test_absent_repositories_and_manifests_are_told_apart(registry: StoredRegistry) -> None:
    for reference in (TAG, Reference(None, Digest.of(b"x"))):
        with pytest.raises(NameUnknown):
            await registry.get_manifest("a", reference)
    await push_blob(registry, "a", b"x")
    for reference in (TAG, Reference(None, Digest.of(b"x"))):
        with pytest.raises(ManifestUnknown):
            await registry.get_manifest("a", reference)


async def test_a_layer_is_never_served_as_manifest(
    driver: StorageDriver, registry: StoredRegistry
) -> None:
    digest = await push_blob(registry, "a", b"x" * (4 * 1024 * 1024 + 1))
    await driver.put(paths.revision_link("a", digest), digest.encode())
    with pytest.raises(ManifestUnknown):
        await registry.get_manifest("a", Reference(None, digest))


async def test_a_manifest_whose_bytes_have_changed_is_not_served(driver: StorageDriver) -> None:
    registry = StoredRegistry(driver, StorageMetadata(driver))
    digest = await push_image(registry, "a", "v1")
    await driver.put(paths.blob(digest), image(b"forged"))
    with pytest.raises(ManifestUnknown):
        await StoredRegistry(driver, StorageMetadata(driver)).get_manifest("a", TAG)


async def test_every_missing_reference_is_named(registry: StoredRegistry) -> None:
    await push_blob(registry, "a", b"{}")
    with pytest.raises(ManifestBlobUnknown) as caught:
        await registry.put_manifest("a", push(image(b"1", b"2"), "v1"))
    named = {one.detail["digest"] for one in (caught.value, *caught.value.more)}
    assert named == {Digest.of(b"1"), Digest.of(b"2")}
    with pytest.raises((NameUnknown, ManifestUnknown)):
        await registry.get_manifest("a", TAG)


async def test_a_blob_of_another_repository_is_no_reference(registry: StoredRegistry) -> None:
    for blob in (b"{}", b"1"):
        await push_blob(registry, "other", blob)
    with pytest.raises(ManifestBlobUnknown):
        await registry.put_manifest("a", push(image(b"1"), "v1"))


async def test_a_stated_size_must_be_the_stored_one(registry: StoredRegistry) -> None:
    for blob in (b"{}", b"1"):
        await push_blob(registry, "a", blob)
    wrong = image(b"1", layers=[{**descriptor(b"1", "x"), "size": 2}])
    with pytest.raises(SizeInvalid) as caught:
        await registry.put_manifest("a", push(wrong, "v1"))
    assert caught.value.detail["stored"] == 1
    assert caught.value.detail["stated"] == 2


async def test_an_index_needs_its_children_in_the_repository(registry: StoredRegistry) -> None:
    child = image(b"layer")
    await push_image(registry, "other", "v1")
    with pytest.raises(ManifestBlobUnknown):
        await registry.put_manifest("a", push(index(child), "v1"))
    await push_image(registry, "a")
    assert await registry.put_manifest("a", push(index(child), "v1")) == []


async def test_a_sparse_index_is_taken_where_it_is_allowed_and_only_of_what_is_nowhere(
    driver: StorageDriver,
) -> None:
    registry = StoredRegistry(driver, StorageMetadata(driver), sparse_indexes=True)
    assert len(await registry.put_manifest("a", push(index(b"nowhere"), "v1"))) == 1
    await push_image(registry, "other", "v1")
    with pytest.raises(ManifestBlobUnknown):
        await registry.put_manifest("a", push(index(image(b"layer")), "v1"))


async def test_empty_layers_and_manifests_are_valid(registry: StoredRegistry) -> None:
    await push_blob(registry, "a", b"{}")
    await registry.put_manifest("a", push(image(), "v1"))
    await registry.put_manifest("a", push(index(), "v2"))
    assert await tags(registry, "a") == ["v1", "v2"]


async def test_deleting_a_manifest_removes_the_tags_that_point_to_it_and_no_others(
    registry: StoredRegistry,
) -> None:
    digest = await push_image(registry, "a", "v1", "v2", "moved")
    other = await push_image(registry, "a", "moved", layer=b"other")
    await registry.delete_manifest("a", digest)
    assert await tags(registry, "a") == ["moved"]
    for reference in (TAG, Reference(None, digest)):
        with pytest.raises(ManifestUnknown):
            await registry.get_manifest("a", reference)
    with pytest.raises(ManifestUnknown):
        await registry.delete_manifest("a", digest)
    assert (await registry.get_manifest("a", Reference("moved", None))).digest == other


async def test_deleting_a_tag_leaves_the_manifest(registry: StoredRegistry) -> None:
    digest = await push_image(registry, "a", "v1")
    await registry.delete_tag("a", "v1", ALWAYS)
    assert await tags(registry, "a") == []
    assert (await registry.get_manifest("a", Reference(None, digest))).digest == digest
    with pytest.raises(ManifestUnknown):
        await registry.delete_tag("a", "v1", ALWAYS)
    with pytest.raises(NameUnknown):
        await registry.delete_tag("b", "v1", ALWAYS)


async def test_a_tag_counts_only_while_its_manifest_is_in_the_repository(
    driver: StorageDriver, registry: StoredRegistry
) -> None:
    digest = await push_image(registry, "a", "v1")
    await driver.delete(paths.revision_folder("a", digest))
    with pytest.raises(ManifestUnknown):
        await registry.get_manifest("a", TAG)


async def test_conditions_on_tags_are_kept(registry: StoredRegistry) -> None:
    first = await push_image(registry, "a", "v1")
    await push_blob(registry, "a", b"new")
    new = image(b"new")
    with pytest.raises(PreconditionFailed):
        await registry.put_manifest("a", push(new, "v1", condition=Condition(absent=True)))
    with pytest.raises(PreconditionFailed):
        await registry.put_manifest(
            "a", push(new, "v1", condition=Condition(matches=(Digest.of(b"x"),)))
        )
    with pytest.raises(PreconditionFailed):
        await registry.delete_tag("a", "v1", Condition(matches=(Digest.of(new),)))
    assert (await registry.get_manifest("a", TAG)).digest == first
    await registry.put_manifest("a", push(new, "v1", condition=Condition(matches=(first,))))
    await registry.put_manifest("a", push(new, "v2", condition=Condition(absent=True)))
    await registry.delete_tag("a", "v1", Condition(matches=(Digest.of(new),)))


async def test_a_manifest_can_be_fetched_as_blob(registry: StoredRegistry) -> None:
    digest = await push_image(registry, "a", "v1")
    assert await registry.stat_blob("a", digest) == len(image(b"layer"))
    with pytest.raises(BlobUnknown):
        await registry.stat_blob("b", digest)


async def test_referrers_are_those_of_the_subject_in_this_repository(
    registry: StoredRegistry,
) -> None:
    subject = await push_image(registry, "a", "v1")
    about = descriptor(image(b"layer"), OCI_MANIFEST)
    typed = await push_image(
        registry, "a", artifactType="sbom", subject=about, annotations={"k": "v"}
    )
    plain = await push_image(registry, "a", "tagged", subject=about)
    await push_image(registry, "b", subject=about)
    found = {one.digest: one for one in await registry.referrers("a", subject)}
    assert set(found) == {typed, plain}
    assert found[typed].artifact_type == "sbom"
    assert found[typed].annotations == {"k": "v"}
    assert found[plain].artifact_type == OCI_CONFIG
    await registry.delete_manifest("a", typed)
    assert [one.digest for one in await registry.referrers("a", subject)] == [plain]


async def test_referrers_survive_their_subject_and_absent_repositories_have_none(
    registry: StoredRegistry,
) -> None:
    subject = await push_image(registry, "a", "v1")
    referrer = await push_image(registry, "a", subject=descriptor(image(b"layer"), OCI_MANIFEST))
    await registry.delete_manifest("a", subject)
    assert [one.digest for one in await registry.referrers("a", subject)] == [referrer]
    assert await registry.referrers("nowhere", subject) == []


async def test_fallback_tags_are_merged_without_doubles(registry: StoredRegistry) -> None:
    subject = await push_image(registry, "a", "v1")
    referrer_content = image(b"layer", subject=descriptor(image(b"layer"), OCI_MANIFEST))
    await registry.put_manifest("a", push(referrer_content))
    old = await push_image(registry, "a", layer=b"old")
    fallback = index(referrer_content, image(b"old"))
    await registry.put_manifest("a", push(fallback, f"sha256-{subject.hex}"))
    found = [one.digest for one in await registry.referrers("a", subject)]
    assert sorted(found) == found == sorted([Digest.of(referrer_content), old])


def test_the_cache_keeps_to_its_limit_and_drops_the_oldest() -> None:
    cache = ManifestCache(limit=4 * len(image()))
    made = [
        StoredManifest(Digest.of(bytes([at])), image(), push(image()).manifest) for at in range(6)
    ]
    for one in made:
        cache.add(one)
    assert [cache.get(one.digest) is not None for one in made] == [
        False,
        False,
        True,
        True,
        True,
        True,
    ]
