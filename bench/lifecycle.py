"""Workloads on a registry of their own: its start, its idle memory, its garbage collection."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import time
from typing import Final

from bench.content import small_image
from bench.meters import pss_mib, tree
from bench.peers import environment_of
from bench.results import CPU, PEAK, PSS, VALUE, Metrics
from bench.seeding import lay_images, lay_orphans, stored_blobs
from bench.subject import NAMESPACE, Subject, WorkloadFailed

_SETTLE: Final = 1.5
"""seconds from the first answer on until memory is read"""

_REPOSITORY: Final = f"{NAMESPACE}/gc"


def start(subject: Subject) -> Metrics:
    """Seconds from the exec to the answer of GET /v2/, on an empty folder, and idle PSS."""
    with subject.another() as peer, peer:
        time.sleep(_SETTLE)
        return {VALUE: peer.start_seconds, PSS: pss_mib(tree(peer.pid))}


def collects(subject: Subject) -> bool:
    """Whether `collect` can be measured on it."""
    recipe = subject.peer.recipe
    return recipe.shared_layout and recipe.collect(subject.peer.place) is not None


def collect(subject: Subject) -> Metrics:
    """Seconds of an offline garbage collection: many small blobs go, one image stays."""
    with subject.another(tls=False) as peer:
        place, image = peer.place, small_image("kept")
        command = peer.recipe.collect(place)
        if command is None:
            raise WorkloadFailed(f"{peer.name} has no garbage collection to call")
        orphans = (
            hashlib.sha256(str(number).encode()).digest() * 32
            for number in range(subject.sizes.orphans)
        )
        lay_images(place.root, [(_REPOSITORY, "v1")], image)
        lay_orphans(place.root, _REPOSITORY, orphans)
        os.sync()
        log = f"{place.root}.gc.log"
        metrics = _timed(command.argv, environment_of(command), log)
        left = stored_blobs(place.root)
        if left != len(image.blobs) + 1:
            raise WorkloadFailed(f"gc left {left} blobs: {_last_words(log)}")
        return metrics


def _timed(argv: tuple[str, ...], environment: dict[str, str], log: str) -> Metrics:
    with open(log, "wb") as output:
        begun = time.perf_counter()
        process = subprocess.Popen(argv, stdout=output, stderr=output, env=environment)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
            raise
        wall = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise WorkloadFailed(f"gc ended with {process.returncode}: {_last_words(log)}")
    return {VALUE: wall, CPU: usage.ru_utime + usage.ru_stime, PEAK: usage.ru_maxrss / 1024}


def _last_words(log: str) -> str:
    with open(log, errors="replace") as file:
        return file.read()[-300:].strip()
