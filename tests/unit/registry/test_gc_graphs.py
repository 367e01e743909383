"""Random repositories against a plain statement of what must stay, also when the collector is
killed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from oci.descriptor import OCI_INDEX, OCI_MANIFEST
from oci.digest import Digest
from registry.gc import GarbageCollector
from storage import paths
from tests.fakes.backend import (
    HOUR,
    LAYER,
    NOW,
    OLD,
    YOUNG,
    AgedDriver,
    Backend,
    Killed,
    image,
    index,
)

REPOSITORIES = ("team/a", "team/a/nested", "other")


@dataclass(frozen=True)
class Made:
    """A manifest of the model: what it names, what its subject is, and how old its blob is."""

    content: bytes
    digest: Digest
    media_type: str
    names: tuple[Digest, ...]
    subject: Digest | None
    age: float


@dataclass(frozen=True)
class World:
    """All blobs by age, and the files of each repository: (repository, digest) -> age."""

    blobs: dict[bytes, float]
    manifests: tuple[Made, ...]
    layers: dict[tuple[str, Digest], float]
    revisions: dict[tuple[str, Digest], float]
    tags: dict[tuple[str, str], tuple[Digest, float]]
    edges: dict[tuple[str, Digest, Digest], float]


ages = st.sampled_from((OLD, OLD, YOUNG))


@st.composite
def worlds(draw: st.DrawFn) -> World:
    contents = [f"blob {number}".encode() for number in range(draw(st.integers(1, 5)))]
    blobs = {content: draw(ages) for content in contents}
    digests = [Digest.of(content) for content in contents]
    manifests: list[Made] = []
    for number in range(draw(st.integers(0, 7))):
        earlier = [made.digest for made in manifests]
        subject = draw(st.sampled_from([None, None, *earlier]))
        note = str(number)
        if draw(st.booleans()):
            config = draw(st.sampled_from(digests))
            layers = draw(st.lists(st.sampled_from(digests), max_size=2))
            names, media_type = (config, *layers), OCI_MANIFEST
            content = image(layers, config=config, subject=subject, note=note)
        else:
            chosen = draw(st.lists(st.sampled_from(manifests), max_size=3)) if manifests else []
            children = [(made.digest, made.media_type) for made in chosen]
            # Build caches list their layers as children of an index.
            children += [
                (digest, LAYER) for digest in draw(st.lists(st.sampled_from(digests), max_size=1))
            ]
            names, media_type = tuple(child for child, _ in children), OCI_INDEX
            content = index(children, subject=subject, note=note)
        manifests.append(Made(content, Digest.of(content), media_type, names, subject, draw(ages)))
    known = [made.digest for made in manifests]
    repository = st.sampled_from(REPOSITORIES)
    layers_ = draw(
        st.dictionaries(st.tuples(repository, st.sampled_from(digests)), ages, max_size=8)
    )
    if not manifests:
        return World(blobs, (), layers_, {}, {}, {})
    digest = st.sampled_from(known)
    return World(
        blobs,
        tuple(manifests),
        layers_,
        draw(st.dictionaries(st.tuples(repository, digest), ages, max_size=12)),
        draw(
            st.dictionaries(
                st.tuples(repository, st.sampled_from(("v1", "v2", "latest"))),
                st.tuples(digest, ages),
                max_size=5,
            )
        ),
        draw(st.dictionaries(st.tuples(repository, digest, digest), ages, max_size=3)),
    )


def kept_digests(world: World, name: str, *, delete_untagged: bool) -> set[Digest]:
    """Everything that a repository's manifests need, said as a fixed point."""
    by_digest = {made.digest: made for made in world.manifests}
    members = {digest for (where, digest) in world.revisions if where == name}
    kept = set(members)
    if delete_untagged:
        kept = {digest for (where, _), (digest, _) in world.tags.items() if where == name} & members
        kept |= {
            digest
            for digest in members
            if world.revisions[name, digest] == YOUNG or by_digest[digest].age == YOUNG
        }
    while True:
        more = {
            named for digest in kept if digest in by_digest for named in by_digest[digest].names
        }
        more |= {digest for digest in members if by_digest[digest].subject in kept}
        more |= {
            referrer
            for where, subject, referrer in world.edges
            if where == name and subject in kept and referrer in members
        }
        if more <= kept:
            return kept
        kept |= more


def expected_files(world: World, *, delete_untagged: bool) -> set[str]:
    """The paths of all files that must be there after the collector."""
    blob_ages = {Digest.of(content): age for content, age in world.blobs.items()}
    blob_ages |= {made.digest: made.age for made in world.manifests}
    staying: set[str] = set()
    blobs = {digest for digest, age in blob_ages.items() if age == YOUNG}
    for name in REPOSITORIES:
        kept = kept_digests(world, name, delete_untagged=delete_untagged)
        blobs |= kept
        staying_members = set()
        for (where, digest), age in world.revisions.items():
            if where == name and (age == YOUNG or digest in kept):
                staying.add(paths.revision_link(name, digest))
                staying_members.add(digest)
        for (where, digest), age in world.layers.items():
            if where == name and (age == YOUNG or digest in kept or blob_ages[digest] == YOUNG):
                staying.add(paths.layer_link(name, digest))
                if age == YOUNG:
                    blobs.add(digest)
        for (where, tag), (digest, age) in world.tags.items():
            if where == name and ((name, digest) in world.revisions or age == YOUNG):
                staying.add(paths.tag_current(name, tag))
                if age == YOUNG or digest in staying_members:
                    staying.add(paths.tag_index(name, tag, digest))
        for (where, subject, referrer), age in world.edges.items():
            if where == name and (age == YOUNG or referrer in staying_members):
                staying.add(paths.referrer_link(name, subject, referrer))
    return staying | {paths.blob(digest) for digest in blobs & blob_ages.keys()}


async def lay(world: World) -> AgedDriver:
    driver = AgedDriver()
    backend = Backend.on(driver)
    for content, age in world.blobs.items():
        await backend.blob(content, age)
    for made in world.manifests:
        await backend.blob(made.content, made.age)
    for (name, digest), age in world.layers.items():
        await backend.layer_link(name, digest, age)
    for (name, digest), age in world.revisions.items():
        await backend.revision(name, digest, age)
    for (name, tag), (digest, age) in world.tags.items():
        await backend.tag(name, tag, digest, age)
    for (name, subject, referrer), age in world.edges.items():
        await backend.referrer(name, subject, referrer, age)
    return driver


def collector(driver: AgedDriver, *, delete_untagged: bool) -> GarbageCollector:
    return GarbageCollector(
        driver, clock=lambda: NOW, grace=HOUR, dry_run=False, delete_untagged=delete_untagged
    )


@settings(max_examples=150, deadline=None)
@given(world=worlds(), delete_untagged=st.booleans())
def test_all_that_is_needed_stays_and_all_else_goes(world: World, delete_untagged: bool) -> None:
    async def scenario() -> None:
        driver = await lay(world)
        before = await driver.files()
        report = await collector(driver, delete_untagged=delete_untagged).run()
        after = await driver.files()
        assert not report.failed, report
        assert after == expected_files(world, delete_untagged=delete_untagged)
        assert report.blobs == sum("/blobs/" in path for path in before)

        driver.deleted.clear()
        again = await collector(driver, delete_untagged=delete_untagged).run()
        assert driver.deleted == []
        assert not again.deleted
        assert await driver.files() == after

    asyncio.run(scenario())


@settings(max_examples=100, deadline=None)
@given(world=worlds(), delete_untagged=st.booleans(), deletions=st.integers(0, 12))
def test_a_killed_run_leaves_every_manifest_complete_and_the_next_one_ends_the_work(
    world: World, delete_untagged: bool, deletions: int
) -> None:
    async def scenario() -> None:
        driver = await lay(world)
        before = await driver.files()
        driver.kill_after = deletions
        try:
            await collector(driver, delete_untagged=delete_untagged).run()
        except (BaseExceptionGroup, Killed):
            check_complete(world, before, await driver.files())
        driver.kill_after = None
        await collector(driver, delete_untagged=delete_untagged).run()
        assert await driver.files() == expected_files(world, delete_untagged=delete_untagged)

    asyncio.run(scenario())


def check_complete(world: World, before: set[str], after: set[str]) -> None:
    """Every manifest that can still be pulled has all that it had: its bytes, blobs, links,
    children."""
    for made in world.manifests:
        for name in REPOSITORIES:
            if paths.revision_link(name, made.digest) not in after:
                continue
            for digest in (made.digest, *made.names):
                needed = {
                    paths.blob(digest),
                    paths.layer_link(name, digest),
                    paths.revision_link(name, digest),
                }
                assert needed & before <= after
