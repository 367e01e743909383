"""What was measured, and its statistics: medians, spreads, ratios. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

VALUE: Final = "value"
"""the workload's own figure, in its own unit"""
CPU: Final = "cpu"
"""the server's CPU time for each unit of work, in the workload's unit for it"""
P50: Final = "p50"
P99: Final = "p99"
PEAK: Final = "peak"
PSS: Final = "pss"
CLIENT: Final = "client"
BEFORE: Final = "before"
AFTER: Final = "after"

ORDER: Final = (VALUE, P50, P99, CPU, PSS, PEAK, BEFORE, AFTER, CLIENT)

LABELS: Final[Mapping[str, str]] = {
    P50: "p50 us",
    P99: "p99 us",
    PEAK: "peak MiB",
    PSS: "PSS MiB",
    BEFORE: "PSS before MiB",
    AFTER: "PSS after MiB",
    CLIENT: "client CPUs",
}
"""of the metrics whose unit is the same in every workload"""

Metrics = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run of one workload on one registry: its metrics, or why it failed."""

    metrics: Metrics = field(default_factory=dict)
    error: str | None = None

    @classmethod
    def failure(cls, error: Exception) -> Outcome:
        return cls(error=f"{type(error).__name__}: {error}"[:300])


@dataclass(frozen=True, slots=True)
class Spread:
    """A metric over the rounds."""

    median: float
    low: float
    high: float


class Results:
    """Outcomes by workload and registry, in the order they came."""

    def __init__(self) -> None:
        self._outcomes: dict[str, dict[str, list[Outcome]]] = {}

    def add(self, workload: str, peer: str, outcome: Outcome) -> None:
        self._outcomes.setdefault(workload, {}).setdefault(peer, []).append(outcome)

    @property
    def workloads(self) -> tuple[str, ...]:
        return tuple(self._outcomes)

    def outcomes(self, workload: str, peer: str) -> tuple[Outcome, ...]:
        return tuple(self._outcomes.get(workload, {}).get(peer, ()))

    def metrics(self, workload: str) -> tuple[str, ...]:
        """The metrics that any registry has for `workload`, in the order of ORDER."""
        runs = [run for runs in self._outcomes.get(workload, {}).values() for run in runs]
        return tuple(name for name in ORDER if any(name in run.metrics for run in runs))

    def spread(self, workload: str, peer: str, metric: str) -> Spread | None:
        """Of the rounds that succeeded; None if there was none."""
        return spread(
            run.metrics[metric] for run in self.outcomes(workload, peer) if metric in run.metrics
        )

    def ratio(self, workload: str, peer: str, base: str, metric: str) -> float | None:
        """The peer's median over the base's, or None where one is unknown or not above 0."""
        mine, theirs = self.spread(workload, peer, metric), self.spread(workload, base, metric)
        if mine is None or theirs is None or min(mine.median, theirs.median) <= 0:
            return None
        return mine.median / theirs.median

    def failed(self, peer: str) -> bool:
        """Whether any run of `peer` failed."""
        return any(run.error for peers in self._outcomes.values() for run in peers.get(peer, ()))

    def document(self) -> dict[str, dict[str, list[dict[str, object]]]]:
        """Everything, ready for JSON."""
        return {
            workload: {
                peer: [_outcome_document(run) for run in runs] for peer, runs in peers.items()
            }
            for workload, peers in self._outcomes.items()
        }


def _outcome_document(outcome: Outcome) -> dict[str, object]:
    return {"error": outcome.error} if outcome.error else dict(outcome.metrics)


def spread(values: Iterable[float]) -> Spread | None:
    known = sorted(values)
    return Spread(statistics.median(known), known[0], known[-1]) if known else None


def percentile(ordered: list[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the `ordered`, non-empty values lie."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]
