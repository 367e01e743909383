"""The metrics of one process, or of several worker processes that are scraped as one.

A scrape of any worker gives the sum over all; a killed worker's counters stay, its gauges do not
count. Nothing is written on a timer, and counting a request takes one look-up and a dozen
additions: prometheus_client's own counters cost several times that, so it only renders the text.

Label values come from fixed sets, never from what a client sent.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Metric, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from serving.metric_rows import Rows

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
"""of `Metrics.exposition`"""

# fmt: off
SECONDS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0
)
# fmt: on
"""upper bounds of all histograms of times"""
BYTES: Final = tuple(float(256 * 4**step) for step in range(14))
"""upper bounds of all histograms of sizes: 256 bytes to 16 GiB"""

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER_METHOD: Final = "OTHER"
"""stands for every other method: a client must not be able to make labels"""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric, by its name without the namespace."""

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def width(self) -> int:
        """Numbers in a row: the value, or the count up to each bound, that above, and the sum."""
        return len(self.bounds) + 2 if self.kind == "histogram" else 1


def _counter(name: str, text: str, *labels: str) -> Family:
    return Family("counter", name, text, labels)


def _gauge(name: str, text: str) -> Family:
    return Family("gauge", name, text)


def _times(name: str, text: str, *labels: str) -> Family:
    return Family("histogram", name, text, labels, SECONDS)


def _sizes(name: str, text: str) -> Family:
    return Family("histogram", name, text, (), BYTES)


FAMILIES: Final = (
    _gauge("http_in_flight_requests", "Requests that are being answered."),
    _counter("http_requests_total", "Answered requests.", "code", "method"),
    _times(
        "http_request_duration_seconds", "From a request's head to the end of its answer.", "method"
    ),
    _sizes("http_request_size_bytes", "Bytes of request bodies."),
    _sizes("http_response_size_bytes", "Bytes of response bodies."),
    _times("http_time_to_write_header_seconds", "From a request's head to the head of its answer."),
    _times("request_duration_seconds", "Registry operations.", "operation"),
    _times("storage_duration_seconds", "Calls of the storage driver.", "operation"),
    _counter("storage_errors_total", "Failed calls of the storage driver.", "operation", "code"),
    _counter("storage_corrupt_blobs_total", "Stored blobs that were found broken and replaced."),
    _counter("digest_cache_requests_total", "Look-ups of a digest's content: Hit or Miss.", "type"),
    _gauge("upload_active", "Requests that are writing to an upload."),
    _counter("tls_reload_failures_total", "Changed certificates that could not be taken into use."),
)

_SEPARATOR: Final = "\x1f"

Sums = dict[str, list[tuple[list[str], list[float]]]]
"""by family: the label values and the numbers of each row"""


class Metrics:
    """The numbers of this process, and of its siblings where they share a `folder`.

    The folder is from `metric_rows.make_folder`. A worker makes its Metrics after its fork.
    `observe_request` and `request_started` are for the event loop
    only; the other methods may be called by any thread.
    """

    def __init__(self, namespace: str = "imageregistry", *, folder: str | None = None) -> None:
        self._namespace = namespace
        self._families = {family.name: family for family in FAMILIES}
        self._lock = threading.Lock()
        self._rows = Rows(folder)
        for key in self._rows.mine():
            if self._is_gauge(key):
                self._rows.row(key, 1)[0] = 0.0
        self._by_labels: dict[tuple[str, ...], memoryview[float]] = {}
        self._requests: dict[tuple[str, int], tuple[memoryview[float], memoryview[float]]] = {}
        self._in_flight = self._row("http_in_flight_requests")
        self._first_byte = self._row("http_time_to_write_header_seconds")
        self._request_size = self._row("http_request_size_bytes")
        self._response_size = self._row("http_response_size_bytes")
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Collector(self))
        if folder is None:
            ProcessCollector(registry=self._registry)

    def request_started(self) -> None:
        """One more request is being answered; `observe_request` ends it."""
        self._in_flight[0] += 1.0

    def observe_request(
        self,
        method: str,
        status: int,
        seconds: float,
        ttfb: float,
        request_bytes: int,
        response_bytes: int,
    ) -> None:
        """A request that `request_started` was called for has ended.

        `seconds` to the end of its answer, `ttfb` seconds to the head of its answer; the sizes are
        those of the bodies.
        """
        rows = self._requests.get((method, status)) or self._request_rows(method, status)
        rows[0][0] += 1.0
        row = rows[1]
        row[bisect_left(SECONDS, seconds)] += 1.0
        row[-1] += seconds
        row = self._first_byte
        row[bisect_left(SECONDS, ttfb)] += 1.0
        row[-1] += ttfb
        row = self._request_size
        row[bisect_left(BYTES, request_bytes)] += 1.0
        row[-1] += request_bytes
        row = self._response_size
        row[bisect_left(BYTES, response_bytes)] += 1.0
        row[-1] += response_bytes
        self._in_flight[0] -= 1.0

    def observe(self, name: str, value: float, *labels: str) -> None:
        """Puts `value` into the histogram `name`."""
        bounds = self._families[name].bounds
        with self._lock:
            row = self._row(name, *labels)
            row[bisect_left(bounds, value)] += 1.0
            row[-1] += value

    def add(self, name: str, *labels: str, by: float = 1.0) -> None:
        """Adds to the counter or gauge `name`; only a gauge may be given less than nothing."""
        with self._lock:
            self._row(name, *labels)[0] += by

    def exposition(self) -> bytes:
        """The text for a scraper, of type CONTENT_TYPE."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """All families, summed over the workers."""
        sums = self._sums()
        for family in FAMILIES:
            yield _rendered(f"{self._namespace}_{family.name}", family, sums.get(family.name, []))

    def close(self) -> None:
        """Ends counting. With a folder, what was counted stays there."""
        self._by_labels.clear()
        self._requests.clear()
        self._rows.close()

    def _is_gauge(self, key: str) -> bool:
        return self._families[key.split(_SEPARATOR, 1)[0]].kind == "gauge"

    def _row(self, name: str, *labels: str) -> memoryview[float]:
        key = (name, *labels)
        row = self._by_labels.get(key)
        if row is None:
            family = self._families[name]
            if len(labels) != len(family.labels):
                raise ValueError(f"{name} has the labels {family.labels}")
            row = self._by_labels[key] = self._rows.row(_SEPARATOR.join(key), family.width)
        return row

    def _request_rows(
        self, method: str, status: int
    ) -> tuple[memoryview[float], memoryview[float]]:
        known = method if method in METHODS else OTHER_METHOD
        with self._lock:
            total = self._row("http_requests_total", str(status), known)
            duration = self._row("http_request_duration_seconds", known)
        if known is method:
            self._requests[method, status] = total, duration
        return total, duration

    def _sums(self) -> Sums:
        with self._lock:
            sums = self._rows.mine()
        for key, numbers in self._others():
            mine = sums.get(key)
            sums[key] = (
                list(numbers)
                if mine is None
                else [a + b for a, b in zip(mine, numbers, strict=True)]
            )
        families: Sums = {}
        for key, total in sorted(sums.items()):
            name, *labels = key.split(_SEPARATOR)
            families.setdefault(name, []).append((labels, total))
        return families

    def _others(self) -> Iterator[tuple[str, Sequence[float]]]:
        """The rows of the other workers, without the gauges of dead ones."""
        for rows, alive in self._rows.others():
            for key, numbers in rows.items():
                if alive or not self._is_gauge(key):
                    yield key, numbers


class _Collector(Collector):
    """Metrics as prometheus_client asks for them."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics.collect()


def _rendered(name: str, family: Family, rows: list[tuple[list[str], list[float]]]) -> Metric:
    if not rows and not family.labels:
        rows = [([], [0.0] * family.width)]
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(name, family.help, labels=family.labels)
        for labels, numbers in rows:
            histogram.add_metric(labels, _buckets(family.bounds, numbers[:-1]), numbers[-1])
        return histogram
    metric: CounterMetricFamily | GaugeMetricFamily
    if family.kind == "counter":
        metric = CounterMetricFamily(name, family.help, labels=family.labels)
    else:
        metric = GaugeMetricFamily(name, family.help, labels=family.labels)
    for labels, numbers in rows:
        metric.add_metric(labels, numbers[0])
    return metric


def _buckets(bounds: Sequence[float], counts: Sequence[float]) -> list[tuple[str, float]]:
    """For each bound, how many values were at most that."""
    buckets = []
    total = 0.0
    for bound, count in zip((*bounds, inf), counts, strict=True):
        total += count
        buckets.append(("+Inf" if bound == inf else repr(bound), total))
    return buckets
