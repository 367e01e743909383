"""Garbage collection of a registry without the Image API, and its command: mark, decide, sweep.

To be run while nobody pushes, or with a grace that is longer than any push: what is younger than
the grace stays, with all that it needs. A push that finds an old blob on storage and links it while
the collector runs is not seen yet. Roots are the manifests of every repository with all that they
name and all that refers to them; with `delete_untagged` only what a tag leads to.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Final, TextIO

from registry.gc_marks import Marker, Settings
from registry.gc_report import JsonOutput, Listener, Progress, Report, TextOutput
from registry.gc_sweep import Sweeper
from serving.durations import Duration
from storage.driver import StorageDriver, StorageError

DEFAULT_GRACE: Final = 3600.0
"""seconds"""

MINIMUM_GRACE: Final = 900.0
"""seconds; less only with force"""

_PROGRESS_EVERY: Final = 0.5
"""seconds between two updates of the progress line"""


class GarbageCollector:
    """One run over the backend of `driver`.

    `clock` gives the time now and `grace` the age from which things may go, both in seconds (since
    the epoch). `listener` is told of everything that is deleted (in a dry run: would be),
    `progress` how far the run is. Raises ValueError for a grace under 15 minutes without `force`.
    """

    def __init__(
        self,
        driver: StorageDriver,
        *,
        clock: Callable[[], float],
        grace: float = DEFAULT_GRACE,
        dry_run: bool = True,
        delete_untagged: bool = False,
        force: bool = False,
        listener: Listener | None = None,
        progress: Progress = lambda stage, count: None,
    ) -> None:
        if grace < (0 if force else MINIMUM_GRACE):
            raise ValueError(
                "the grace period must be at least 15m, or use force while nobody pushes"
            )
        self._driver = driver
        self._clock = clock
        self._grace = grace
        self._dry_run = dry_run
        self._delete_untagged = delete_untagged
        self._listener = listener
        self._progress = progress

    async def run(self) -> Report:
        """Never raises for what storage refuses: an error while reading ends the run with nothing
        deleted."""
        started = self._clock()
        settings = Settings(started - self._grace, self._dry_run, self._delete_untagged)
        report = Report(self._dry_run)
        marks = None
        try:
            marks = await Marker(self._driver, settings, report, self._progress).mark()
        except* StorageError as failures:
            for failure in _leaves(failures):
                report.errors.add(f"nothing was deleted: {failure}")
            report.swept_blobs = False
        if marks is not None:
            sweeper = Sweeper(
                self._driver, settings, report, listener=self._listener, progress=self._progress
            )
            await sweeper.sweep(marks)
        report.seconds = self._clock() - started
        return report


def _leaves(group: BaseExceptionGroup[StorageError]) -> list[StorageError]:
    found: list[StorageError] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `registry gc`."""
    parser.add_argument(
        "--confirm", action="store_true", help="delete; without it, only say what would be deleted"
    )
    parser.add_argument(
        "--grace-period",
        default="1h",
        metavar="AGE",
        help="keep what is younger (default 1h, at least 15m)",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="allow a grace period under 15m: only while nobody pushes",
    )
    parser.add_argument(
        "--delete-untagged", action="store_true", help="delete manifests that no tag leads to"
    )
    parser.add_argument(
        "-o", "--output", choices=("text", "json"), default="text", help="output format"
    )


async def main_gc(driver: StorageDriver, args: argparse.Namespace, out: TextIO) -> int:
    """Runs the collector as `args` (of `add_arguments`) say, writes to `out`; the exit code."""
    dry_run = not args.confirm
    line = _ProgressLine(sys.stderr)
    output = JsonOutput(out) if args.output == "json" else TextOutput(out, dry_run=dry_run)
    try:
        collector = GarbageCollector(
            driver,
            clock=time.time,
            grace=Duration.parse(args.grace_period),
            dry_run=dry_run,
            delete_untagged=args.delete_untagged,
            force=args.force,
            listener=output.listener,
            progress=line.show,
        )
    except ValueError as error:
        print(f"--grace-period: {error}", file=sys.stderr)
        return 1
    report = await collector.run()
    line.clear()
    output.end(report)
    return 1 if report.failed else 0


class _ProgressLine:
    """One line that is written over again; nothing where `out` is no terminal."""

    def __init__(self, out: TextIO) -> None:
        self._out = out if out.isatty() else None
        self._shown = 0.0

    def show(self, stage: str, count: int) -> None:
        now = time.monotonic()
        if self._out is not None and now - self._shown >= _PROGRESS_EVERY:
            self._shown = now
            self._out.write(f"\r{stage}: {count}\x1b[K")
            self._out.flush()

    def clear(self) -> None:
        if self._out is not None and self._shown:
            self._out.write("\r\x1b[K")
            self._out.flush()
