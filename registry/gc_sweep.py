"""The deleting half of garbage collection.

Links go before what they lead to: tags, then manifests (an index before its children), then layer
links, and only when all of that was done the blobs. So a run that is killed at any point leaves
every tag and manifest that can still be seen complete, and the next run ends the work. Each file is
looked at once more before it goes: what was written since the marking stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from registry.gc_files import PARTS, Key, digest_of
from registry.gc_marks import BATCH, Marks, Settings, in_flight
from registry.gc_plan import Verdict
from registry.gc_report import Kind, Listener, Progress, Removal, Report
from storage import paths
from storage.driver import FileInfo, StorageDriver, StorageError
from storage.plan import Delete, Names, Plan, Stat, perform


class Target(NamedTuple):
    """Something to delete: `path`, if the first of `files` is there and none of them is younger
    than the grace by now. Its size is that of the first."""

    kind: Kind
    name: str
    path: str
    files: tuple[str, ...]
    repository: str = ""
    key: Key = b""


class _Outcome(NamedTuple):
    removed: list[tuple[Target, int]]
    touched: list[Target]
    failed: list[tuple[Target, StorageError]]


class Sweeper:
    """Deletes what was marked, once; in a dry run it only looks. `report` gets the totals."""

    def __init__(
        self,
        driver: StorageDriver,
        settings: Settings,
        report: Report,
        *,
        listener: Listener | None,
        progress: Progress,
    ) -> None:
        self._driver = driver
        self._settings = settings
        self._report = report
        self._listener = listener
        self._progress = progress
        self._marks = Marks()
        self._spoiled: set[str] = set()

    async def sweep(self, marks: Marks) -> None:
        """Never raises for what storage refuses: that is in the report."""
        self._marks = marks
        await self._remove(self._leftovers())
        await self._remove(self._each(self._tags), touched=self._spoil)
        for level in range(max((len(verdict.revisions) for verdict in marks.verdicts), default=0)):
            await self._remove(self._each(self._revisions(level)), touched=self._spoil)
        await self._remove(self._each(self._history))
        await self._remove(self._each(self._referrers))
        await self._remove(self._each(self._layers), touched=self._keep_layer)
        for name in marks.empty:
            if name not in self._spoiled:
                await self._remove_repository(name)
        marks.verdicts.clear()  # for the memory: the blobs are sorted next
        if self._spoiled:
            self._report.swept_blobs = False
        if self._report.swept_blobs:
            await self._remove(self._blobs())

    def _spoil(self, target: Target) -> None:
        """Something was pushed again while we looked: what it needs must not go in this run."""
        self._spoiled.add(target.repository)
        self._report.notes.add(
            f"{target.name} was pushed meanwhile: run again for the rest of {target.repository}"
        )

    def _keep_layer(self, target: Target) -> None:
        if target.key in self._marks.blobs:
            self._marks.blobs.remove(target.key)
        else:
            self._spoil(target)  # What the link leads to now has another digest.

    async def _remove(
        self, targets: Iterable[Target], *, touched: Callable[[Target], None] | None = None
    ) -> None:
        waiting = iter(targets)

        def batches() -> Iterator[list[Target]]:
            while batch := list(islice(waiting, BATCH)):
                yield batch

        async def work(batch: list[Target]) -> None:
            plan = _remove_batch(batch, self._settings)
            try:
                outcome = await perform(self._driver, plan, writes=True)
            except StorageError as error:
                outcome = _Outcome([], [], [(target, error) for target in batch])
            self._note(outcome, touched)

        await in_flight(work, batches())

    def _note(self, outcome: _Outcome, touched: Callable[[Target], None] | None) -> None:
        for target, size in outcome.removed:
            self._report.deleted[target.kind] += 1
            self._report.freed += size
        for target in outcome.touched:
            self._report.touched += 1
            if touched is not None:
                touched(target)
        for target, error in outcome.failed:
            self._report.errors.add(f"{target.kind} {target.name}: {error}")
            if target.repository:
                self._spoiled.add(target.repository)
        if self._listener is not None and outcome.removed:
            self._listener(
                [Removal(target.kind, target.name, size) for target, size in outcome.removed]
            )
        self._progress("deleted", self._report.deleted.total())

    def _folder(self, folder: str, file: str) -> str:
        """`folder`, or only `file` in it where somebody else's files lie beside it."""
        return file if folder in self._marks.foreign else folder

    def _each(self, targets: Callable[[Verdict], Iterable[Target]]) -> Iterator[Target]:
        for verdict in self._marks.verdicts:
            if verdict.name not in self._spoiled:
                yield from targets(verdict)

    def _leftovers(self) -> Iterator[Target]:
        for path in self._marks.leftovers:
            yield Target(Kind.LEFTOVER, path, path, (path,))

    def _tags(self, verdict: Verdict) -> Iterator[Target]:
        name = verdict.name
        for tag in verdict.tags:
            folder, current = paths.tag_folder(name, tag), paths.tag_current(name, tag)
            path = self._folder(folder, current)
            yield Target(Kind.TAG, f"{name}:{tag}", path, (path, current), name)

    def _revisions(self, level: int) -> Callable[[Verdict], Iterator[Target]]:
        def targets(verdict: Verdict) -> Iterator[Target]:
            name = verdict.name
            for key, blob in verdict.revisions[level] if level < len(verdict.revisions) else ():
                digest = digest_of(key)
                link = paths.revision_link(name, digest)
                files = (link,) if blob is None else (link, paths.blob(digest_of(blob)))
                path = self._folder(paths.revision_folder(name, digest), link)
                yield Target(Kind.REVISION, f"{name}@{digest}", path, files, name)

        return targets

    def _history(self, verdict: Verdict) -> Iterator[Target]:
        name = verdict.name
        for tag, key in verdict.history:
            digest = digest_of(key)
            link = paths.tag_index(name, tag, digest)
            path = self._folder(link.rpartition("/")[0], link)
            yield Target(Kind.HISTORY, f"{name}:{tag}@{digest}", path, (link,), name)

    def _referrers(self, verdict: Verdict) -> Iterator[Target]:
        name = verdict.name
        for subject, referrer in verdict.referrers:
            of, digest = digest_of(subject), digest_of(referrer)
            link = paths.referrer_link(name, of, digest)
            path = self._folder(paths.referrer_folder(name, of, digest), link)
            yield Target(Kind.REFERRER, f"{name}@{digest} of {of}", path, (link,), name)

    def _layers(self, verdict: Verdict) -> Iterator[Target]:
        name = verdict.name
        for key in verdict.layers:
            digest = digest_of(key)
            link = paths.layer_link(name, digest)
            path = self._folder(paths.layer_folder(name, digest), link)
            yield Target(Kind.LAYER, f"{name}@{digest}", path, (link,), name, key)

    def _blobs(self) -> Iterator[Target]:
        for key in sorted(self._marks.blobs):
            digest = digest_of(key)
            file = paths.blob(digest)
            yield Target(Kind.BLOB, digest, self._folder(paths.blob_folder(digest), file), (file,))

    async def _remove_repository(self, name: str) -> None:
        parts = [f"{paths.repository(name)}/{part}" for part in PARTS]
        try:
            if not self._settings.dry_run:
                for part in parts:
                    async for _ in self._driver.walk(part):
                        return
                if not await perform(self._driver, _remove_folders(name, parts), writes=True):
                    return
        except StorageError as error:
            self._report.errors.add(f"{Kind.REPOSITORY} {name}: {error}")
            return
        self._report.deleted[Kind.REPOSITORY] += 1
        if self._listener is not None:
            self._listener([Removal(Kind.REPOSITORY, name, 0)])


def _remove_batch(batch: Sequence[Target], settings: Settings) -> Plan[_Outcome]:
    infos: list[FileInfo | None] = yield [Stat(file) for target in batch for file in target.files]
    outcome = _Outcome([], [], [])
    found = iter(infos)
    old: list[tuple[Target, int]] = []
    for target in batch:
        first, *others = (next(found) for _ in target.files)
        if first is None:
            continue
        there = [first, *(info for info in others if info is not None)]
        if any(info.modified > settings.cutoff for info in there):
            outcome.touched.append(target)
        else:
            old.append((target, first.size))
    if settings.dry_run:
        outcome.removed.extend(old)
        return outcome
    try:
        yield [Delete(target.path) for target, _ in old]
    except StorageError:
        # One of them failed, and perhaps not all others were tried: each is asked for by itself.
        for target, size in old:
            try:
                yield Delete(target.path)
            except StorageError as error:
                outcome.failed.append((target, error))
            else:
                outcome.removed.append((target, size))
    else:
        outcome.removed.extend(old)
    return outcome


def _remove_folders(name: str, parts: Sequence[str]) -> Plan[bool]:
    """Removes the folders of a repository without files, and those above it that are empty then."""
    uploads: list[str] = yield Names(paths.uploads(name))
    if uploads:
        return False
    yield [Delete(part, at_once=True) for part in parts]
    folder = paths.repository(name)
    while folder != paths.REPOSITORIES:
        names: list[str] = yield Names(folder)
        if names:
            break
        yield Delete(folder)
        folder = folder.rpartition("/")[0]
    return True
