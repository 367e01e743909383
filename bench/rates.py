"""Rate workloads: small requests, pushes of small images, listings."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from typing import Final

from bench.clients import Client, Script, check, drive
from bench.content import MANIFEST_TYPE, small_image
from bench.meters import Meter, Reading
from bench.results import CLIENT, CPU, P50, P99, PEAK, VALUE, Metrics, percentile
from bench.seeding import image_script
from bench.subject import NAMESPACE, TAGS, Subject, WorkloadFailed
from bench.wire import next_page

SMALL_BLOB: Final = 2048
_ACCEPT: Final = f"Accept: {MANIFEST_TYPE}"
_LEAST_LISTS: Final = 3

_WRK_REPORT: Final = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('JSON{"count":%d,"us":%d,"errors":%d,"p50":%d,"p99":%d}\\n',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.timeout + e.status,
    latency:percentile(50), latency:percentile(99)))
end
"""


def by_tag(subject: Subject, connections: int) -> Metrics:
    return _wrk(subject, f"/v2/{subject.image()[0]}/manifests/v1", connections)


def by_digest(subject: Subject, connections: int) -> Metrics:
    repository, digest = subject.image()
    return _wrk(subject, f"/v2/{repository}/manifests/{digest}", connections)


def small_blob(subject: Subject, connections: int) -> Metrics:
    return _wrk(subject, subject.blob(SMALL_BLOB), connections)


def page_of_tags(subject: Subject) -> Metrics:
    """A page of 100 tags from the middle, on one connection."""
    return _wrk(subject, f"/v2/{TAGS}/tags/list?n=100&last=v{subject.sizes.tags // 2:05d}", 1)


def _wrk(subject: Subject, path: str, connections: int) -> Metrics:
    seconds = subject.sizes.seconds
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_WRK_REPORT)
        script.flush()
        options = [
            "-t1",
            f"-c{connections}",
            f"-d{seconds}s",
            "--timeout",
            "30s",
            "-s",
            script.name,
        ]
        command = ["wrk", *options, "-H", _ACCEPT, subject.peer.target.url + path]
        meter = Meter(subject.peer.pid)
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
        reading = meter.stop()
    line = next((x for x in done.stdout.splitlines() if x.startswith("JSON")), None)
    if line is None:
        raise WorkloadFailed(f"wrk {path}: {(done.stdout + done.stderr)[-300:]}")
    report = json.loads(line[4:])
    if report["errors"] or not report["count"]:
        raise WorkloadFailed(f"wrk {path}: {report}")
    metrics = _cost(reading, report["count"])
    metrics |= {
        VALUE: report["count"] / (report["us"] / 1e6),
        P50: report["p50"],
        P99: report["p99"],
    }
    return metrics


def head(subject: Subject, connections: int) -> Metrics:
    """HEAD of a manifest by tag; by our own client, since wrk takes every HEAD answer for an
    unfinished one.
    """
    target = subject.peer.target
    request = target.wire("HEAD", f"/v2/{subject.image()[0]}/manifests/v1", f"{_ACCEPT}\r\n")
    latencies: list[float] = []
    meter = Meter(subject.peer.pid)
    end = meter.started + subject.sizes.seconds

    def script() -> Script:
        now = time.perf_counter()
        while now < end:
            check((yield request), "HEAD manifest", (200,))
            begun, now = now, time.perf_counter()
            latencies.append(now - begun)

    drive(target, [script() for _ in range(connections)])
    return _rate(meter.stop(), latencies)


def push_small_images(subject: Subject, pushers: int) -> Metrics:
    """Whole small images, all new: 17 requests each."""
    target, word = subject.peer.target, subject.fresh()
    latencies: list[float] = []
    meter = Meter(subject.peer.pid)
    end = meter.started + subject.sizes.seconds

    def script(pusher: int) -> Script:
        count = 0
        while time.perf_counter() < end:
            image = small_image(f"{word}-{pusher}-{count}")
            begun = time.perf_counter()
            # A repository takes 20 images, as one with a few builds does.
            repository = f"{NAMESPACE}/i{word}-{pusher}-{count // 20}"
            yield from image_script(target, repository, f"t{count}", image)
            latencies.append(time.perf_counter() - begun)
            count += 1

    drive(target, [script(pusher) for pusher in range(pushers)])
    return _rate(meter.stop(), latencies)


def all_tags(subject: Subject) -> Metrics:
    return _listing(subject, f"/v2/{TAGS}/tags/list", "tags", subject.sizes.tags)


def catalog(subject: Subject) -> Metrics:
    return _listing(subject, "/v2/_catalog?n=1000", "repositories", subject.sizes.repositories)


def _listing(subject: Subject, path: str, key: str, least: int) -> Metrics:
    """Whole listings, one after the other; `Link` is followed."""
    with subject.client() as client:
        entries = sum(len(json.loads(body)[key] or ()) for body in _pages(client, path))
        if entries < least:
            raise WorkloadFailed(f"{path}: only {entries} of {least}")
        latencies: list[float] = []
        meter = Meter(subject.peer.pid)
        end = meter.started + subject.sizes.seconds
        while (now := time.perf_counter()) < end or len(latencies) < _LEAST_LISTS:
            _pages(client, path)
            latencies.append(time.perf_counter() - now)
        return _rate(meter.stop(), latencies)


def _pages(client: Client, path: str) -> list[bytes]:
    bodies: list[bytes] = []
    following: str | None = path
    while following:
        response = client.request("GET", following, expect=(200,))
        bodies.append(response.body)
        following = next_page(response)
    return bodies


def _rate(reading: Reading, latencies: list[float]) -> Metrics:
    if not latencies:
        raise WorkloadFailed("nothing was done in time")
    latencies.sort()
    metrics = _cost(reading, len(latencies))
    metrics[VALUE] = len(latencies) / reading.wall
    metrics[P50] = percentile(latencies, 0.5) * 1e6
    metrics[P99] = percentile(latencies, 0.99) * 1e6
    return metrics


def _cost(reading: Reading, count: int) -> dict[str, float]:
    return {
        CPU: reading.cpu * 1e6 / count,
        PEAK: reading.peak_mib,
        CLIENT: reading.client_cpu / reading.wall,
    }
