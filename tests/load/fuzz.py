"""A fuzz campaign over the whole HTTP surface: `python -m tests.load.fuzz --seconds 600`.

Starts a registry of its own on a loopback port and runs scenarios against it, several at once:
valid sequences of requests, some of them disturbed, and things that are no HTTP. Each scenario
follows from seed and number alone; `--only N` runs one again, by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import traceback
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from time import monotonic
from typing import Final

import httpx

from tests.e2e.server import Server, running_server
from tests.load import fuzz_manifests, fuzz_process, fuzz_reads, fuzz_uploads, fuzz_wild, fuzz_world
from tests.load.fuzz_process import Footprint
from tests.load.fuzz_run import Counters, Finding, Run
from tests.load.fuzz_world import World

CLIENTS: Final = 6
"""scenarios at once"""

SCENARIO_SECONDS: Final = 60.0
"""no scenario takes that long unless something hangs"""

LINKS: Final = 5000
"""blobs and manifests that are read in the end"""

ENOUGH: Final = 5000
"""findings after which a campaign ends"""

SETTINGS: Final = {
    # Absolute Locations are made of what clients send, so that there is more to get wrong.
    "REGISTRY_HTTP_RELATIVEURLS": "false",
    "REGISTRY_LOG_ACCESSLOG_DISABLED": "false",
    "REGISTRY_LOG_FORMATTER": "json",
    "REGISTRY_ALAUDA_AUDIT_ENABLED": "true",
    # Few places and any number of waiters: a place that is not given back would soon be missed.
    "REGISTRY_ALAUDA_REQUESTS_READ": "{maxrunning: 3}",
    "REGISTRY_ALAUDA_REQUESTS_WRITE": "{maxrunning: 3}",
}

Scenario = Callable[[Run], Awaitable[None]]

SCENARIOS: Final[Sequence[tuple[int, Scenario]]] = (
    (30, fuzz_uploads.upload),
    (8, fuzz_uploads.single_post),
    (3, fuzz_uploads.mount),
    (20, fuzz_manifests.manifest),
    (8, fuzz_reads.blob),
    (8, fuzz_reads.listing),
    (10, fuzz_reads.path),
    (4, fuzz_reads.beside),
    (6, fuzz_wild.garbage),
    (8, fuzz_wild.pipeline),
    (2, fuzz_wild.left_alone),
)


@dataclass(slots=True)
class Result:
    """What a campaign has found, with the number of scenarios it ran."""

    seed: int
    scenarios: int = 0
    counters: Counters = field(default_factory=Counters)
    findings: list[Finding] = field(default_factory=list)
    before: Footprint | None = None
    after: Footprint | None = None
    memory: list[int] = field(default_factory=list)
    """MiB of the server, at ten moments of the campaign"""

    def by_signature(self) -> dict[str, list[Finding]]:
        found: dict[str, list[Finding]] = {}
        for finding in self.findings:
            found.setdefault(finding.signature, []).append(finding)
        return found

    def text(self) -> str:
        counters = self.counters
        lines = [
            f"seed {self.seed}: {self.scenarios} scenarios, {counters.requests} requests, "
            f"{counters.disturbed} of them disturbed, {counters.unanswered} without an answer",
            f"statuses: {dict(sorted(counters.statuses.items()))}",
            f"footprint: {self.before} before, {self.after} after; MiB on the way: {self.memory}",
        ]
        for signature, findings in self.by_signature().items():
            first = findings[0]
            numbers = [finding.scenario for finding in findings[:5]]
            lines += [
                "",
                f"{len(findings)} x {signature}",
                f"scenarios {numbers}; again: --seed {self.seed} --only {numbers[0]}",
                first.what,
                first.detail,
            ]
        return "\n".join(lines)


def pick(rng: Random) -> Scenario:
    weights = [weight for weight, _ in SCENARIOS]
    return rng.choices([scenario for _, scenario in SCENARIOS], weights)[0]


class Campaign:
    """Runs scenarios against `server`, whose storage is the folder `storage`."""

    def __init__(self, server: Server, storage: Path, seed: int) -> None:
        self._server = server
        self._storage = storage
        self._result = Result(seed)
        self.readings: dict[str, str] = {}
        """how the server read all that it held in the end"""

    async def run(self, numbers: Iterable[int], seconds: float) -> Result:
        """Scenarios of these numbers, until the time is over."""
        result = self._result
        with httpx.Client(base_url=self._server.url, timeout=30) as client:
            world = await asyncio.to_thread(fuzz_world.build, client, result.seed)
            await self._warm_up(world)
        await asyncio.sleep(0.5)
        result.before = Footprint.of(self._server.pid)
        deadline = monotonic() + seconds
        waiting = iter(numbers)

        async def work() -> None:
            for number in waiting:
                await self._scenario(world, number)
                if monotonic() > deadline or len(result.findings) >= ENOUGH:
                    return

        watcher = asyncio.create_task(self._watch(seconds / 10))
        await asyncio.gather(*(work() for _ in range(CLIENTS)))
        watcher.cancel()
        await self._look_back()
        return result

    async def _warm_up(self, world: World) -> None:
        """Has thread pools and caches filled, so that what grows later grows for a reason."""
        forgotten = Counters()
        runs = [
            Run(self._server.port, world, Random(number), -number, forgotten, self._found)
            for number in range(1, 3 * CLIENTS)
        ]
        for scenario in (fuzz_uploads.single_post, fuzz_reads.blob, fuzz_uploads.upload):
            await asyncio.gather(*(scenario(run) for run in runs))
        for run in runs:
            run.hang_up()

    async def _watch(self, interval: float) -> None:
        while True:
            await asyncio.sleep(interval)
            with suppress(OSError):  # that it has ended is noticed at the end
                self._result.memory.append(Footprint.of(self._server.pid).memory >> 20)

    async def _scenario(self, world: World, number: int) -> None:
        result = self._result
        rng = Random(f"{result.seed}-{number}")
        scenario = pick(rng)
        run = Run(self._server.port, world, rng, number, result.counters, self._found)
        try:
            async with asyncio.timeout(SCENARIO_SECONDS):
                await scenario(run)
        except TimeoutError:
            self._found(Finding(number, f"{scenario.__name__} hangs", ""))
        except Exception as error:  # an answer of a form that the scenario has not thought of
            what = f"{scenario.__name__} cannot go on: {error!r}"
            self._found(Finding(number, what, traceback.format_exc()))
        finally:
            run.hang_up()
            result.scenarios += 1

    def _found(self, finding: Finding) -> None:
        self._result.findings.append(finding)

    async def _look_back(self) -> None:
        """The process, its log, and all that it holds."""
        result, server = self._result, self._server
        assert result.before is not None
        try:
            result.after = await fuzz_process.settled(server.pid, result.before)
        except OSError:
            self._found(Finding(0, "the server has ended", ""))
            return
        whats = list(fuzz_process.grown(result.before, result.after))
        with httpx.Client(base_url=server.url, timeout=30) as client:
            whats += await asyncio.to_thread(self._contents, client)
        whats += fuzz_process.faults_in_log(server.log)
        for what in whats:
            first, _, detail = what.partition("\n")
            self._found(Finding(0, first, detail))

    def _contents(self, client: httpx.Client) -> list[str]:
        ready = client.get("/readyz").status_code
        self.readings = fuzz_process.readings(client, self._storage, LINKS)
        return [
            *([] if ready == 200 else [f"/readyz is {ready}"]),
            *fuzz_process.wrong_on_storage(self._storage),
            *fuzz_process.unreadable(self.readings),
            *fuzz_process.wrong_tags(client),
        ]


def campaign(*, seed: int, seconds: float, numbers: Iterable[int] | None = None) -> Result:
    """Runs a campaign against a registry of its own, and looks whether another process reads what
    it left in the same way.

    Raises:
        ServerError: the registry did not start, or did not end as it should.
    """
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        storage, log = Path(folder) / "storage", Path(folder) / "log"
        with _server(storage, log) as server:
            one = Campaign(server, storage, seed)
            result = asyncio.run(one.run(numbers or count(1), seconds))
        with _server(storage, log) as server, httpx.Client(base_url=server.url) as client:
            again = fuzz_process.readings(client, storage, LINKS)
        result.findings += [
            Finding(0, what, "") for what in fuzz_process.changed(one.readings, again)
        ]
        return result


def _server(storage: Path, log: Path) -> AbstractContextManager[Server]:
    return running_server(storage=storage, log=log, secret="fuzz", host="127.0.0.1", extra=SETTINGS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a campaign; 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="tests.load.fuzz", description="Fuzz the registry.")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, action="append", help="run this scenario (repeatable)")
    args = parser.parse_args(arguments)
    result = campaign(seed=args.seed, seconds=args.seconds, numbers=args.only)
    print(result.text())
    return 1 if result.findings else 0


if __name__ == "__main__":
    sys.exit(main())
