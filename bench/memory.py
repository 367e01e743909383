"""Memory of a registry under load: many big transfers at once, many small pushes, many connections.

The figures are sums of PSS over all processes of the registry, looked at ten times a second.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from bench.bulk import Way, bulk_metrics, forget_pushes, send
from bench.clients import Client, Script, drive
from bench.content import MIB, Content, small_image
from bench.meters import Meter, free_mib, pss_mib, tree, watch_pss
from bench.peers import Certificate, Peer, Recipe
from bench.results import AFTER, BEFORE, PSS, VALUE, Metrics, Outcome, Results
from bench.seeding import image_script
from bench.subject import FULL, NAMESPACE, Subject, WorkloadFailed, at_once

PUSHES: Final = "pushes"
PULLS: Final = "pulls"
SMALL_PUSHES: Final = "small-pushes"
IDLE_CONNECTION: Final = "idle-connection"
SLOW_READER: Final = "slow-reader"

UNITS: Final = {
    PUSHES: ("MB/s", "CPU s/GB"),
    PULLS: ("MB/s", "CPU s/GB"),
    SMALL_PUSHES: ("MiB grown", ""),
    IDLE_CONNECTION: ("KiB each", ""),
    SLOW_READER: ("MiB each", ""),
}

_SETTLE: Final = 2.0
_SPARE_MIB: Final = 2048


@dataclass(frozen=True, slots=True)
class Load:
    """How much: transfers at once and their bytes, small pushes, idle connections, slow readers and
    their seconds.
    """

    clients: int
    size: int
    small_pushes: int
    idle: int = 200
    slow: int = 50
    slow_seconds: int = 3


QUICK_LOAD: Final = Load(clients=8, size=4 * MIB, small_pushes=100, idle=40, slow=8, slow_seconds=1)


class DiskTooSmall(Exception):
    """The pushes would not fit on the disk."""


def measure(
    recipes: Sequence[Recipe],
    load: Load,
    results: Results,
    *,
    folder: str,
    certificate: Certificate | None,
    say: Callable[[str], None],
) -> None:
    """Runs every part on a fresh registry of each kind into `results`. Raises DiskTooSmall."""
    need = load.clients * load.size / MIB + _SPARE_MIB
    if (room := free_mib(folder)) < need:
        raise DiskTooSmall(
            f"{need:.0f} MiB are needed below {folder}, {room:.0f} are free: "
            "give a smaller --size-mib"
        )
    for recipe in recipes:
        for names, part in (
            ((PUSHES, PULLS), _transfers),
            ((SMALL_PUSHES,), _small_pushes),
            ((IDLE_CONNECTION, SLOW_READER), _connections),
        ):
            say(f"{recipe.name}: {', '.join(names)}")
            root = f"{folder}/{recipe.name}-{names[0]}"
            try:
                with Peer(recipe, root, certificate) as peer:
                    for name, metrics in zip(names, part(Subject(peer, FULL), load), strict=True):
                        results.add(name, recipe.name, Outcome(metrics))
            # As in a comparison: the other parts and registries still count.
            except Exception as error:
                for name in names:
                    results.add(name, recipe.name, Outcome.failure(error))


def _now(subject: Subject) -> float:
    return pss_mib(tree(subject.peer.pid))


def _transfers(subject: Subject, load: Load) -> tuple[Metrics, Metrics]:
    """All clients push a blob of their own at once, then all pull theirs."""
    word = subject.fresh()
    contents = [Content(load.size, f"{word}-{index}") for index in range(load.clients)]
    paths = [f"/v2/{NAMESPACE}/push/blobs/{content.digest}" for content in contents]

    def push(client: Client, index: int) -> None:
        send(client, contents[index], Way.PATCH)

    def pull(client: Client, index: int) -> None:
        if client.discard(paths[index]) != load.size:
            raise WorkloadFailed(f"GET {paths[index]}: a short body")

    since = time.time() - 1
    try:
        return _watched(subject, load, push), _watched(subject, load, pull)
    finally:
        forget_pushes(subject, since)


def _watched(subject: Subject, load: Load, action: Callable[[Client, int], None]) -> Metrics:
    os.sync()
    before = _now(subject)
    with subject.clients(load.clients) as clients, watch_pss(subject.peer.pid) as peak:
        meter = Meter(subject.peer.pid)
        at_once(clients, action)
        reading = meter.stop()
    time.sleep(_SETTLE)
    after = _now(subject)
    metrics = bulk_metrics(reading, load.size * load.clients)
    return metrics | {PSS: max(peak.mib, after), BEFORE: before, AFTER: after}


def _small_pushes(subject: Subject, load: Load) -> tuple[Metrics]:
    """The growth over many small images, after a tenth as many to warm up: all caches have their
    size by then.
    """
    _push_small(subject, load.small_pushes // 10)
    before = _now(subject)
    with watch_pss(subject.peer.pid) as peak:
        _push_small(subject, load.small_pushes)
    time.sleep(_SETTLE)
    after = _now(subject)
    return ({VALUE: after - before, PSS: peak.mib, BEFORE: before, AFTER: after},)


def _push_small(subject: Subject, count: int) -> None:
    word, target = subject.fresh(), subject.peer.target
    numbers = iter(range(count))

    def script() -> Script:
        for number in numbers:
            image = small_image(f"{word}-{number}", layers=1, layer_size=1024)
            repository = f"{NAMESPACE}/i{word}-{number // 20}"
            yield from image_script(target, repository, f"t{number}", image)

    drive(target, [script() for _ in range(16)])


def _connections(subject: Subject, load: Load) -> tuple[Metrics, Metrics]:
    return _idle_connections(subject, load.idle), _slow_readers(subject, load)


def _idle_connections(subject: Subject, count: int) -> Metrics:
    """KiB that each connection takes which has had one answer and waits."""
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            # The first round warms up: what a server keeps for later connections is not theirs.
            stack.close()
            before = _now(subject)
            for _ in range(count):
                stack.enter_context(subject.client()).request("GET", "/v2/", expect=(200,))
            after = _now(subject)
    return {VALUE: (after - before) * 1024 / count, BEFORE: before, AFTER: after}


def _slow_readers(subject: Subject, load: Load) -> Metrics:
    """MiB that each reader takes which reads a big blob at about 300 KB/s."""
    path = subject.blob(max(load.size, 64 * MIB) if load.size > 16 * MIB else 16 * MIB)
    before = _now(subject)
    with subject.clients(load.slow) as clients, watch_pss(subject.peer.pid) as peak:
        for client in clients:
            client.begin(path)
        end = time.perf_counter() + load.slow_seconds
        while time.perf_counter() < end:
            for client in clients:
                client.open().recv(32 * 1024)
            time.sleep(0.1)
    return {VALUE: (peak.mib - before) / load.slow, PSS: peak.mib, BEFORE: before}
