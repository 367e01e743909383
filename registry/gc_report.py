"""What a run of the garbage collector found and did, and how people and programs read it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple, TextIO

MESSAGES: Final = 1000
"""messages of one sort that a report keeps; the rest is only counted"""


class Kind(StrEnum):
    """What is deleted, as it is called in the output."""

    LEFTOVER = "temporary file"
    TAG = "tag"
    HISTORY = "tag history link"
    REVISION = "manifest link"
    REFERRER = "referrer link"
    LAYER = "layer link"
    REPOSITORY = "repository"
    BLOB = "blob"


class Removal(NamedTuple):
    """One thing that was deleted, or would be; `size` in bytes of its file."""

    kind: Kind
    name: str
    size: int


Listener = Callable[[Sequence[Removal]], None]
Progress = Callable[[str, int], None]
"""Called with what is being done, and how many are done."""


@dataclass(slots=True)
class Messages:
    """Sentences for a person: the first thousand, and how many there were."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, message: str) -> None:
        self.count += 1
        if len(self.first) < MESSAGES:
            self.first.append(message)

    def __bool__(self) -> bool:
        return self.count > 0


@dataclass(slots=True)
class Report:
    """`deleted` counts by kind and `freed` bytes: in a dry run, of what would be deleted. `seconds`
    is the run's time.

    `broken`: manifests that are missing or cannot be read; `malformed`: links that count as absent;
    `touched`: what was used while the collector ran, and stays; `errors`: what storage refused.
    Without `swept_blobs` the blobs were left alone.
    """

    dry_run: bool
    deleted: Counter[Kind] = field(default_factory=Counter)
    freed: int = 0
    blobs: int = 0
    repositories: int = 0
    touched: int = 0
    swept_blobs: bool = True
    broken: Messages = field(default_factory=Messages)
    malformed: Messages = field(default_factory=Messages)
    notes: Messages = field(default_factory=Messages)
    errors: Messages = field(default_factory=Messages)
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        """True where something went wrong: the totals are those of a part of the work."""
        return bool(self.broken or self.errors)


def human_size(size: int) -> str:
    """`size` bytes as `512 B`, `1.5 GiB`."""
    if size < 1024:
        return f"{size} B"
    value = float(size)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if value < 1024:
            return f"{value:.1f} {unit}"
    return f"{value / 1024:.1f} PiB"


class TextOutput:
    """For people: a dry run names all that would go, a real run only sums up."""

    def __init__(self, out: TextIO, *, dry_run: bool) -> None:
        self._out = out
        self.listener: Listener | None = self._list if dry_run else None

    def _list(self, removals: Sequence[Removal]) -> None:
        self._out.write(
            "".join(
                f"Would delete {kind} {name} ({human_size(size)})\n"
                for kind, name, size in removals
            )
        )

    def end(self, report: Report) -> None:
        lines = [f"Malformed link, counts as absent: {text}" for text in report.malformed.first]
        lines += [f"Note: {text}" for text in report.notes.first]
        lines += [f"Broken manifest: {text}" for text in report.broken.first]
        lines += [f"Error: {text}" for text in report.errors.first]
        for title, messages in (
            ("malformed links", report.malformed),
            ("notes", report.notes),
            ("broken manifests", report.broken),
            ("errors", report.errors),
        ):
            if messages.count > len(messages.first):
                lines.append(f"... and {messages.count - len(messages.first)} more {title}")
        if not report.swept_blobs:
            lines.append("Blobs were left alone in this run")
        delete, free = (
            ("Would delete", "Would free up") if report.dry_run else ("Deleted", "Freed up")
        )
        for kind in Kind:
            if kind is Kind.BLOB or report.deleted[kind]:
                lines.append(f"{delete} {report.deleted[kind]} {plural(kind)}")
        lines.append(f"{free} {human_size(report.freed)}")
        self._out.write("\n".join(lines) + "\n")


def plural(kind: Kind) -> str:
    return "repositories" if kind is Kind.REPOSITORY else f"{kind}s"


class JsonOutput:
    """For programs: one document, written as the run goes on, so that its length is no matter."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._before = '{"items":['
        self.listener: Listener | None = self._list

    def _list(self, removals: Sequence[Removal]) -> None:
        for kind, name, size in removals:
            self._out.write(self._before + json.dumps({"kind": kind, "name": name, "size": size}))
            self._before = ",\n"

    def end(self, report: Report) -> None:
        totals = {
            "dryRun": report.dry_run,
            "deleted": {kind: report.deleted[kind] for kind in Kind},
            "freedBytes": report.freed,
            "blobs": report.blobs,
            "repositories": report.repositories,
            "touched": report.touched,
            "sweptBlobs": report.swept_blobs,
            "seconds": round(report.seconds, 3),
            "failed": report.failed,
        }
        for name, messages in (
            ("malformedLinks", report.malformed),
            ("brokenManifests", report.broken),
            ("notes", report.notes),
            ("errors", report.errors),
        ):
            totals[name] = {"count": messages.count, "first": messages.first}
        before = self._before if self._before != ",\n" else ""
        self._out.write(before + "]," + json.dumps(totals)[1:] + "\n")
