"""The reading half of garbage collection: which blobs there are, what each repository has, and so
what may go.

Blobs are listed before anything else, so that a blob pushed later is never a candidate. Any error
of storage ends the run while nothing has been deleted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from oci.digest import Digest
from oci.manifest import MANIFEST_LIMIT
from oci.reference import is_tag
from registry.gc_files import (
    LINK_SIZES,
    PARTS,
    Key,
    Place,
    References,
    What,
    digest_of,
    folders_above,
    is_name_part,
    key_of,
    locate,
    references,
)
from registry.gc_plan import Graph, Link, Tag, Verdict, settle
from registry.gc_report import Progress, Report
from registry.links import parse_link
from storage import paths
from storage.driver import FileInfo, FileTooLarge, StorageDriver, Unavailable
from storage.plan import PARALLEL, Get, Names, Plan, Stat, perform

T = TypeVar("T")

IN_FLIGHT: Final = 4
"""plans that run at once"""

BATCH: Final = 256
"""small files that one step of a plan asks for"""

_TICK: Final = 4096
"""files between two reports of progress"""

_READABLE: Final = frozenset(LINK_SIZES.values())


@dataclass(frozen=True, slots=True)
class Settings:
    """`cutoff`: what was modified later, in seconds since the epoch, is younger than the grace and
    stays."""

    cutoff: float
    dry_run: bool
    delete_untagged: bool


@dataclass(slots=True)
class Marks:
    """What may go. `blobs`: old and named by nobody; `leftovers`: files and folders of killed
    processes; `foreign`: folders with a file of somebody else below them, which are not to be
    deleted as a whole."""

    blobs: set[Key] = field(default_factory=set)
    leftovers: list[str] = field(default_factory=list)
    foreign: set[str] = field(default_factory=set)
    verdicts: list[Verdict] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)


async def in_flight(work: Callable[[T], Awaitable[None]], items: Iterable[T]) -> None:
    """Calls `work` for each of `items`, a few at once; items are taken only when there is room."""
    waiting = iter(items)

    async def drain() -> None:
        for item in waiting:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(drain())


class Marker:
    """One reading of a backend."""

    def __init__(
        self, driver: StorageDriver, settings: Settings, report: Report, progress: Progress
    ) -> None:
        self._driver = driver
        self._settings = settings
        self._report = report
        self._progress = progress
        self._marks = Marks()
        self._young_blobs: set[Key] = set()
        self._graphs: dict[str, Graph] = {}
        self._leftovers: dict[str, float] = {}

    async def mark(self) -> Marks:
        """Raises an ExceptionGroup of StorageError, or a StorageError."""
        await self._walk(paths.BLOBS, "blobs listed", self._take_blob)
        self._report.blobs = len(self._marks.blobs) + len(self._young_blobs)
        await self._walk(paths.REPOSITORIES, "files of repositories listed", self._take_file)
        self._settle_leftovers()
        await in_flight(self._read, list(self._graphs))
        await self._find_empty()
        return self._marks

    async def _walk(self, folder: str, stage: str, take: Callable[[Place, FileInfo], None]) -> None:
        count = 0
        async for info in self._driver.walk(folder):
            take(locate(info.path), info)
            count += 1
            if count % _TICK == 0:
                self._progress(stage, count)
        self._progress(stage, count)

    def _is_young(self, info: FileInfo) -> bool:
        return info.modified > self._settings.cutoff

    def _take_blob(self, place: Place, info: FileInfo) -> None:
        if place.what is What.BLOB:
            (self._young_blobs if self._is_young(info) else self._marks.blobs).add(place.key)
        else:
            self._take_other(place, info)

    def _take_other(self, place: Place, info: FileInfo) -> None:
        if place.what is What.LEFTOVER:
            self._leftovers[place.path] = max(
                info.modified, self._leftovers.get(place.path, info.modified)
            )
        else:
            self._protect(info.path)

    def _protect(self, path: str) -> None:
        for folder in folders_above(path):
            if folder in self._marks.foreign:
                return
            self._marks.foreign.add(folder)

    def _settle_leftovers(self) -> None:
        for path, newest in self._leftovers.items():
            if newest > self._settings.cutoff:
                self._protect(path)
            else:
                self._marks.leftovers.append(path)

    def _take_file(self, place: Place, info: FileInfo) -> None:
        if not place.repository:
            self._take_other(place, info)
            return
        graph = self._graphs.get(place.repository)
        if graph is None:
            graph = self._graphs[place.repository] = Graph(place.repository)
        young = self._is_young(info)
        link = Link(young, info.size in _READABLE)
        match place.what:
            case What.LAYER if info.size != LINK_SIZES[len(place.key)]:
                graph.odd_layers[place.key] = link
            case What.LAYER if young:
                graph.held = True
                self._marks.blobs.discard(place.key)
            case What.LAYER:
                graph.layers.append(place.key)
            case What.REVISION:
                graph.revisions[place.key] = link
            case What.CURRENT:
                graph.tags.setdefault(place.tag, Tag()).current = link
            case What.INDEX:
                link.blob = place.key if link.readable else None
                graph.tags.setdefault(place.tag, Tag()).history[place.key] = link
            case What.REFERRER:
                graph.referrers[place.key, place.referrer] = link
            case _:
                graph.held = True

    async def _read(self, name: str) -> None:
        graph = self._graphs.pop(name)
        found = await perform(
            self._driver,
            _complete(graph, self._settings.cutoff, self._marks.foreign),
            writes=True,
        )
        for message in found.malformed:
            self._report.malformed.add(message)
        for message in found.broken:
            self._report.broken.add(message)
            self._report.swept_blobs = False
        verdict, kept = settle(
            graph, young_blobs=self._young_blobs, delete_untagged=self._settings.delete_untagged
        )
        self._marks.blobs -= kept
        self._marks.verdicts.append(verdict)
        self._report.repositories += 1
        self._progress("repositories read", self._report.repositories)

    async def _find_empty(self) -> None:
        """Adds the repositories of which nothing is left, those that have only folders included."""
        verdicts = {verdict.name: verdict for verdict in self._marks.verdicts}
        for name in await perform(self._driver, _repository_folders(), writes=True):
            parts = {f"{paths.repository(name)}/{part}" for part in PARTS}
            if parts & self._marks.foreign or (name in verdicts and not verdicts[name].is_empty):
                continue
            cutoff = self._settings.cutoff
            is_empty = await perform(self._driver, _is_idle(name, cutoff), writes=True)
            if is_empty and name not in verdicts:
                is_empty = await perform(self._driver, _is_hollow(name, cutoff), writes=True)
            if is_empty:
                self._marks.empty.append(name)


@dataclass(slots=True)
class _Found:
    """What is wrong in one repository, as sentences."""

    malformed: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


def _complete(graph: Graph, cutoff: float, foreign: set[str]) -> Plan[_Found]:
    """Reads what the walk could not know: the links, then the manifests they lead to."""
    found = _Found()
    yield from _read_links(graph, found)
    yield from _look_at_tags(graph, cutoff, foreign)
    members = graph.members()
    unreadable = yield from _read_manifests(members, graph.references)
    graph.broken.update(unreadable)
    for key, reason in unreadable.items():
        found.broken.append(f"{graph.name}@{digest_of(key)}: {reason}")
    # Children that the repository has no link to (any more) are followed as far as there are any.
    known = set(members)
    waiting = _children(graph.references.values()) - known
    while waiting:
        known |= waiting
        below: dict[Key, References] = {}
        yield from _read_manifests({key: key for key in waiting}, below)
        graph.references.update(below)
        waiting = _children(below.values()) - known
    return found


def _read_links(graph: Graph, found: _Found) -> Plan[None]:
    unread: list[tuple[str, Link]] = []
    for path, link in _links(graph):
        if link.readable:
            unread.append((path, link))
        else:
            found.malformed.append(path)
    for start in range(0, len(unread), BATCH):
        batch = unread[start : start + BATCH]
        contents: list[bytes | None] = yield [Get(path) for path, _ in batch]
        for (path, link), content in zip(batch, contents, strict=True):
            digest = parse_link(content)
            if digest is not None:
                link.blob = key_of(digest)
            elif content is not None:
                found.malformed.append(path)


def _links(graph: Graph) -> Iterator[tuple[str, Link]]:
    """The links whose content matters, or that have none."""
    name = graph.name
    for key, link in graph.revisions.items():
        yield paths.revision_link(name, digest_of(key)), link
    for tag, folder in graph.tags.items():
        if folder.current is not None:
            yield paths.tag_current(name, tag), folder.current
        for key, link in folder.history.items():
            if not link.readable:
                yield paths.tag_index(name, tag, digest_of(key)), link
    for (subject, referrer), link in graph.referrers.items():
        yield paths.referrer_link(name, digest_of(subject), digest_of(referrer)), link
    for key, link in graph.odd_layers.items():
        yield paths.layer_link(name, digest_of(key)), link


def _look_at_tags(graph: Graph, cutoff: float, foreign: set[str]) -> Plan[None]:
    """Marks shared folders of tags, and adds those without any file: they are listed as tags."""
    for name, tag in graph.tags.items():
        tag.shared = paths.tag_folder(graph.name, name) in foreign
    names: list[str] = yield Names(paths.tags(graph.name))
    empty = [name for name in names if name not in graph.tags and is_tag(name)]
    infos: list[FileInfo | None] = yield [
        Stat(paths.tag_folder(graph.name, name)) for name in empty
    ]
    for name, info in zip(empty, infos, strict=True):
        if info is not None and info.is_folder and info.path not in foreign:
            graph.tags[name] = Tag(Link(info.modified > cutoff, readable=False))


def _read_manifests(blobs: Mapping[Key, Key], into: dict[Key, References]) -> Plan[dict[Key, str]]:
    """Reads the blobs of the manifests in `blobs`; gives the reason for each that could not be
    read."""
    unreadable: dict[Key, str] = {}
    keys = list(blobs)
    for start in range(0, len(keys), PARALLEL):
        batch = keys[start : start + PARALLEL]
        contents = yield from _contents([paths.blob(digest_of(blobs[key])) for key in batch])
        for key, content in zip(batch, contents, strict=True):
            if isinstance(content, str):
                unreadable[key] = content
                continue
            stored = digest_of(blobs[key])
            named = references(content) if Digest.of(content, stored.algorithm) == stored else None
            if named is None:
                unreadable[key] = "its blob is corrupt"
            else:
                into[key] = named
    return unreadable


def _contents(files: list[str]) -> Plan[list[bytes | str]]:
    """The bytes of each file, or why there are none."""
    try:
        contents: list[bytes | None] = yield [Get(path, MANIFEST_LIMIT) for path in files]
    except FileTooLarge:
        found: list[bytes | str] = []
        for path in files:
            try:
                content: bytes | None = yield Get(path, MANIFEST_LIMIT)
            except FileTooLarge:
                found.append(f"its blob is over {MANIFEST_LIMIT} bytes")
            else:
                found.append(_or_missing(content))
        return found
    return [_or_missing(content) for content in contents]


def _or_missing(content: bytes | None) -> bytes | str:
    return "its blob is missing" if content is None else content


def _children(manifests: Iterable[References]) -> set[Key]:
    return {child for manifest in manifests for child in manifest.manifests}


def _repository_folders() -> Plan[list[str]]:
    """The names of all folders that are laid out as a repository; names nest."""
    found = []
    folders = [""]
    while folders:
        batch, folders = folders[:BATCH], folders[BATCH:]
        listings: list[list[str]] = yield [
            Names(f"{paths.REPOSITORIES}{folder}") for folder in batch
        ]
        for folder, names in zip(batch, listings, strict=True):
            if folder and not set(PARTS).isdisjoint(names):
                found.append(folder[1:])
            folders.extend(f"{folder}/{name}" for name in names if is_name_part(name))
    return found


def _is_idle(name: str, cutoff: float) -> Plan[bool]:
    """True where no folder of the repository was changed since `cutoff`, and no upload is open."""
    folder = paths.repository(name)
    infos: list[FileInfo | None] = yield [Stat(f"{folder}/{part}") for part in PARTS]
    if any(info is not None and info.modified > cutoff for info in infos):
        return False
    uploads: list[str] = yield Names(paths.uploads(name))
    return not uploads


def _is_hollow(name: str, cutoff: float) -> Plan[bool]:
    """Whether a repository of which the walk saw nothing has only folders; False for new files.

    Raises Unavailable for old ones: what a walk does not show (it follows no symbolic link) would
    be taken for unreferenced.
    """
    folders = [f"{paths.repository(name)}/{part}" for part in PARTS]
    while folders:
        batch, folders = folders[:BATCH], folders[BATCH:]
        listings: list[list[str]] = yield [Names(folder) for folder in batch]
        leaves = [folder for folder, names in zip(batch, listings, strict=True) if not names]
        infos: list[FileInfo | None] = yield [Stat(leaf) for leaf in leaves]
        for info in infos:
            if info is not None and not info.is_folder:
                if info.modified > cutoff:
                    return False
                raise Unavailable(info.path, "a walk does not show it: is there a symbolic link?")
        folders += [
            f"{folder}/{name}"
            for folder, names in zip(batch, listings, strict=True)
            for name in names
        ]
    return True
