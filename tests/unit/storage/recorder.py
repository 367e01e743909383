"""A Recorder that keeps what it is told."""

from __future__ import annotations

from collections import Counter


class Recorded:
    def __init__(self) -> None:
        self.observed: Counter[tuple[str, ...]] = Counter()
        self.added: Counter[tuple[str, ...]] = Counter()
        self.seconds = 0.0

    def observe(self, name: str, value: float, *labels: str) -> None:
        self.observed[name, *labels] += 1
        self.seconds += value

    def add(self, name: str, *labels: str, by: float = 1.0) -> None:
        self.added[name, *labels] += int(by)
