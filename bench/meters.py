"""What a process tree uses: CPU time and memory, from /proc (Linux)."""

from __future__ import annotations

import contextlib
import os
import resource
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from bench.content import MIB


def tree(pid: int) -> list[int]:
    """`pid` and all its live descendants."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := _stat(int(name))):
            children.setdefault(int(fields[1]), []).append(int(name))
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of the processes with all their threads, in seconds.

    By their CPU clocks, which count nanoseconds where /proc counts ticks of 10 ms; the clock of a
    process is made of its id as clock_getcpuclockid(3) does it.
    """
    total = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += time.clock_gettime(~pid << 3 | 2)
    return total


def pss_mib(pids: Iterable[int]) -> float:
    """Proportional set size in MiB: a page shared by n processes counts 1/n in each, so the sum is
    honest.
    """
    return sum(_kib(f"/proc/{pid}/smaps_rollup", "Pss:") for pid in pids) / 1024


def peak_rss_mib(pids: Iterable[int]) -> float:
    """The sum of the highest resident sizes since `reset_peak`, in MiB."""
    return sum(_kib(f"/proc/{pid}/status", "VmHWM:") for pid in pids) / 1024


def reset_peak(pids: Iterable[int]) -> None:
    """Begins new peaks (proc(5), clear_refs). A process that has ended is passed over."""
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/clear_refs", "w") as file:
            file.write("5")


def _stat(pid: int) -> list[str]:
    """The fields after the command's name, or none if the process has ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def _kib(path: str, key: str) -> int:
    try:
        with open(path) as file:
            for line in file:
                if line.startswith(key):
                    return int(line.split()[1])
    except OSError:
        pass
    return 0


@dataclass(frozen=True, slots=True)
class Reading:
    """What passed between a meter's start and its stop; times in seconds."""

    wall: float
    cpu: float
    client_cpu: float
    peak_mib: float


class Meter:
    """Reads the tree of `pid` from now on to `stop`."""

    def __init__(self, pid: int) -> None:
        self._pids = tree(pid)
        reset_peak(self._pids)
        self._cpu = cpu_seconds(self._pids)
        self._client = _own_cpu()
        self.started: Final = time.perf_counter()

    def stop(self) -> Reading:
        return Reading(
            wall=time.perf_counter() - self.started,
            cpu=cpu_seconds(self._pids) - self._cpu,
            client_cpu=_own_cpu() - self._client,
            peak_mib=peak_rss_mib(self._pids),
        )


def _own_cpu() -> float:
    """Of this process and its ended children, wrk among them."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


@dataclass(slots=True)
class PssPeak:
    """The highest sum of PSS that was seen, in MiB, and how often was looked."""

    mib: float = 0.0
    samples: int = 0


@contextlib.contextmanager
def watch_pss(pid: int, interval: float = 0.1) -> Iterator[PssPeak]:
    """Looks at the tree of `pid` every `interval` seconds until the block ends."""
    peak, done = PssPeak(), threading.Event()

    def look() -> None:
        while True:
            peak.mib = max(peak.mib, pss_mib(tree(pid)))
            peak.samples += 1
            if done.wait(interval):
                return

    thread = threading.Thread(target=look, name="pss")
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def free_mib(folder: str) -> float:
    """What an unprivileged process may still write below `folder`, in MiB."""
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize / MIB
