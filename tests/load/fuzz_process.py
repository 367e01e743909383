"""What is looked at from outside: the server's descriptors, threads and memory, its log, and what
it has on storage and can still read."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

SETTLED: Final = 10.0
"""seconds in which descriptors of the last connections are given back"""

GROWTH: Final = 160 << 20
"""bytes of memory that a campaign may add: caches and slack, not one blob a request"""

POOL: Final = 16
"""threads that pools may have made since the first look: they stay, and are bounded"""

READABLE: Final = "is read as"

_LINE_LIMIT: Final = 3000


@dataclass(frozen=True, slots=True)
class Footprint:
    """Of one process. `memory` is its resident set in bytes."""

    descriptors: int
    threads: int
    memory: int

    @classmethod
    def of(cls, pid: int) -> Footprint:
        """Raises OSError for a process that has ended."""
        folder = Path(f"/proc/{pid}")
        status = dict(
            line.split(":", 1) for line in (folder / "status").read_text().splitlines() if line
        )
        return cls(
            len(list((folder / "fd").iterdir())),
            int(status["Threads"]),
            int(status["VmRSS"].split()[0]) * 1024,
        )


async def settled(pid: int, before: Footprint) -> Footprint:
    """The footprint once it is as small as `before` again, or after SETTLED seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SETTLED
    while True:
        now = Footprint.of(pid)
        if now.descriptors <= before.descriptors or loop.time() > deadline:
            return now
        await asyncio.sleep(0.1)


def grown(before: Footprint, after: Footprint) -> Iterator[str]:
    if after.descriptors > before.descriptors:
        yield f"descriptors: {before.descriptors} before, {after.descriptors} after"
    if after.threads > before.threads + POOL:
        yield f"threads: {before.threads} before, {after.threads} after"
    if after.memory > before.memory + GROWTH:
        yield f"memory: {before.memory >> 20} MiB before, {after.memory >> 20} MiB after"


def faults_in_log(log: Path, start: int = 0) -> Iterator[str]:
    """Lines of the log (formatter json) from byte `start` on that tell of a fault, or are no
    JSON."""
    with log.open("rb") as file:
        file.seek(start)
        for raw in file:
            line = raw.decode("utf-8", "replace")
            try:
                entry = json.loads(line)
            except ValueError:
                yield f"log: not JSON: {line[:_LINE_LIMIT]}"
                continue
            if entry.get("level") in ("error", "critical") or "error.stack" in entry:
                stack = str(entry.get("error.stack", "")).strip().splitlines()
                last = stack[-1] if stack else ""
                yield f"log: {entry.get('msg')}: {last}\n{line[:_LINE_LIMIT]}"
            elif "Traceback" in line:
                yield f"log: {line[:_LINE_LIMIT]}"


_DATA: Final = re.compile(r"blobs/(sha256|sha512)/[0-9a-f]{2}/([0-9a-f]+)/data$")
_LINK: Final = re.compile(
    r"repositories/(.+)/(_layers|_manifests/revisions)/(sha256|sha512)/([0-9a-f]+)/link$"
)


def wrong_on_storage(root: Path) -> Iterator[str]:
    """Stored contents that have another digest than their path says."""
    for path in root.glob("docker/registry/v2/blobs/*/*/*/data"):
        match = _DATA.search(str(path))
        assert match is not None, path
        with path.open("rb") as file:
            found = hashlib.file_digest(file, match[1]).hexdigest()
        if found != match[2]:
            yield f"storage: {path} has the digest {match[1]}:{found}"


def readings(client: httpx.Client, root: Path, limit: int) -> dict[str, str]:
    """How each blob and manifest that a repository links is read, up to `limit` of them: READABLE
    with its type, or what is wrong."""
    repositories = root / "docker/registry/v2/repositories"
    found: dict[str, str] = {}
    for path in sorted(repositories.glob("**/link")):
        match = _LINK.search(str(path))
        if match is None or len(found) >= limit:
            continue
        name, place, algorithm, hexadecimal = match.groups()
        kind = "blobs" if place == "_layers" else "manifests"
        target = f"/v2/{name}/{kind}/{algorithm}:{hexadecimal}"
        answer = client.get(target)
        if answer.status_code != 200:
            found[target] = f"has status {answer.status_code}"
        elif hashlib.new(algorithm, answer.content).hexdigest() != hexadecimal:
            found[target] = "has other bytes"
        else:
            found[target] = f"{READABLE} {answer.headers['content-type']}"
    return found


def unreadable(found: dict[str, str]) -> Iterator[str]:
    """What is wrong among the readings."""
    for target, how in found.items():
        if not how.startswith(READABLE):
            yield f"{target} {how}"


def changed(before: dict[str, str], after: dict[str, str]) -> Iterator[str]:
    """What another process reads in another way."""
    for target, how in after.items():
        if before.get(target) != how:
            yield f"{target} {how} after a restart, {before.get(target)} before"


def wrong_tags(client: httpx.Client) -> Iterator[str]:
    """Tags that are listed and cannot be read, over all repositories."""
    last = ""
    while True:
        page = client.get("/v2/_catalog", params={"n": 1000, "last": last}).json()["repositories"]
        for name in page:
            listed = client.get(f"/v2/{name}/tags/list")
            for tag in listed.json().get("tags", []):
                answer = client.get(f"/v2/{name}/manifests/{tag}")
                digest = answer.headers.get("docker-content-digest", "")
                algorithm, _, hexadecimal = digest.partition(":")
                if answer.status_code != 200:
                    yield f"tag {name}:{tag} has status {answer.status_code}"
                elif hashlib.new(algorithm, answer.content).hexdigest() != hexadecimal:
                    yield f"tag {name}:{tag} has other bytes than {digest}"
        if not page:
            return
        last = page[-1]
