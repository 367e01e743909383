"""The crash campaign: `kill -9` of the whole registry while clients push, again and again.

    python -m tests.load.crash --rounds 200 --workers 1 2

After each kill the registry starts on the same folder, and everything that it answered for must be
there, everything that can be seen must be whole, and what was cut off must succeed when it is
repeated. In the end the garbage collector must not take any of it. The exit code is 1, and the
storage stays for a look, where a promise was broken.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tests.load.inspector import Inspector
from tests.load.ledger import Ledger
from tests.load.pusher import Pusher, Shop
from tests.load.victim import Victim
from tests.load.wire import Violation

CLIENTS: Final = 6
SHORTEST: Final = 0.02
LONGEST: Final = 1.0
"""seconds from the first request to the kill"""

SAMPLE: Final = 12
"""older images that are read again in each round; the last round reads all"""


@dataclass(slots=True)
class Outcome:
    kills: int = 0
    images: int = 0
    blobs: int = 0
    """read and compared, some of them again and again"""
    links: int = 0
    deleted: int = 0
    """things that the garbage collector took"""
    seconds: float = 0.0


class Campaign:
    """Kills and checks on one storage folder. `workers` take turns, round by round."""

    def __init__(
        self, folder: Path, *, workers: Sequence[int], seed: int, say: Callable[[str], None]
    ) -> None:
        self.outcome = Outcome()
        self._workers = workers
        self._say = say
        self._dice = random.Random(seed)
        self._storage = folder / "storage"
        self._storage.mkdir()
        self._victim = Victim(self._storage, folder / "log")
        self._ledger = Ledger()
        self._shop = Shop(random.Random(seed + 1))
        self._pushers = [
            Pusher(self._shop, self._ledger, seed + 2 + number) for number in range(CLIENTS)
        ]
        self._seen: set[str] = set()

    def run(self, rounds: int) -> None:
        """Raises Violation."""
        begun = time.monotonic()
        try:
            self._victim.start(self._workers[0])
            for number in range(rounds):
                self._round(number)
                if number % 10 == 9:
                    self._say(f"{number + 1} kills: {self.summary()}")
            self._check_everything()
            self._check_collection()
            self._victim.stop()
        finally:
            self._victim.destroy()
        self.outcome.seconds = time.monotonic() - begun

    def _round(self, number: int) -> None:
        self._shop.turn_over(number)
        killed = threading.Event()
        with ThreadPoolExecutor(CLIENTS) as pool:
            pushes = [
                pool.submit(pusher.run, self._victim.port, killed) for pusher in self._pushers
            ]
            time.sleep(self._dice.uniform(SHORTEST, LONGEST))
            killed.set()
            self._victim.kill(self._dice)
            for push in pushes:
                push.result()
        self._ledger.server_killed()
        self.outcome.kills += 1
        self._victim.start(self._workers[(number + 1) % len(self._workers)])
        inspector = self._inspector()
        self._check_what_is_new(inspector)
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(lambda pusher: pusher.repair(self._victim.port), self._pushers))
        self._check_what_is_new(inspector)
        inspector.check_blob_files(self._seen)
        self._victim.check_log()
        self.outcome.blobs += inspector.blobs_read
        self.outcome.images = self._ledger.acknowledged

    def _check_what_is_new(self, inspector: Inspector) -> None:
        fresh = self._ledger.take_fresh()
        inspector.check_images([*fresh, *inspector.sample(SAMPLE, self._dice)])
        inspector.check_tags(name for name in self._shop.names if name in self._ledger.repositories)

    def _check_everything(self) -> None:
        inspector = self._inspector()
        inspector.check_images(inspector.everything())
        inspector.check_tags(self._ledger.repositories)
        inspector.check_catalog()
        inspector.check_blob_files(set())
        self.outcome.links = inspector.check_links()
        self.outcome.blobs += inspector.blobs_read

    def _check_collection(self) -> None:
        """What a dry run would delete, a real run deletes; it reports nothing wrong, and takes
        nothing that was acknowledged."""
        self._collect()
        confirmed = ("--confirm", "--force", "--grace-period", "0s")
        self.outcome.deleted = sum(self._collect(*confirmed).values())
        self._check_everything()
        self._inspector().check_no_leftovers()
        again = self._collect("--force", "--grace-period", "0s")
        if again:
            raise Violation(f"the garbage collector left something to do: {again}")
        self._victim.check_log()

    def _collect(self, *options: str) -> Counter[str]:
        report = json.loads(self._victim.collect("-o", "json", *options))
        for complaint in ("errors", "brokenManifests", "malformedLinks", "notes"):
            if report[complaint]["count"]:
                raise Violation(f"gc: {complaint}: {report[complaint]['first']}")
        if not report["sweptBlobs"]:
            raise Violation("gc left the blobs alone")
        return Counter({kind: count for kind, count in report["deleted"].items() if count})

    def _inspector(self) -> Inspector:
        return Inspector(self._ledger, self._storage, self._victim.port)

    def summary(self) -> str:
        """What was done so far, in one line."""
        counts: Counter[str] = Counter()
        for pusher in self._pushers:
            counts.update(asdict(pusher.counts))
        out = self.outcome
        return (
            f"{out.images} manifests acknowledged ({counts['uploaded']} blobs uploaded,"
            f" {counts['mounted']} mounted), {counts['interrupted']} pushes cut off and repeated,"
            f" {counts['continued']} uploads continued, {counts['vanished']} committed without an"
            f" answer, {out.blobs} blobs read back"
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.load.crash", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=200, help="kills (%(default)s)")
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[1, 2], help="processes; more than one: in turns"
    )
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="crash-"))

    def say(line: str) -> None:
        print(line, flush=True)

    say(f"{args.rounds} kills, workers {args.workers}, seed {args.seed}, in {folder}")
    campaign = Campaign(folder, workers=args.workers, seed=args.seed, say=say)
    try:
        campaign.run(args.rounds)
    except Violation as violation:
        say(f"VIOLATION after {campaign.outcome.kills} kills: {violation}\n{campaign.summary()}")
        return 1
    out = campaign.outcome
    say(
        f"{out.kills} kills in {out.seconds:.0f} s: {campaign.summary()},"
        f" {out.links} links checked, {out.deleted} things collected: no promise broken"
    )
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
