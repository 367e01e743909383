"""How fast we have to be (now) and want to be (goal), as data, and the comparison with what was
measured. Pure.

Ratios are to the CNCF distribution registry v3 in the same run on the same machine, unless
`against` names another one; differences under 15 % mean nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bench.results import CPU, P99, PEAK, PSS, VALUE, Results

NOISE: Final = 0.15
REFERENCE: Final = "dist3"
"""the peer that the ratios without `against` were set for"""

GOAL_REACHED: Final = "goal reached"
OK: Final = "ok"
BELOW: Final = "below now"


@dataclass(frozen=True, slots=True)
class Aim:
    """A bound of one metric of one workload: a ratio to a peer, or an absolute figure."""

    workload: str
    metric: str
    now: float | None
    goal: float | None
    at_least: bool = True
    """the figure has to be as high as the bound; else: as low"""
    tls: bool = False
    absolute: bool = False
    against: str = ""
    """the peer of the ratio; empty: the base of the run"""


@dataclass(frozen=True, slots=True)
class Verdict:
    aim: Aim
    measured: float
    verdict: str
    close: bool
    """within the noise of a bound that decided: worth another run"""


def _faster(workload: str, now: float, goal: float, *, tls: bool = False) -> Aim:
    return Aim(workload, VALUE, now, goal, tls=tls)


def _at_most(metric: str, workload: str, now: float, goal: float, *, tls: bool = False) -> Aim:
    return Aim(workload, metric, now, goal, at_least=False, tls=tls)


def _limit(workload: str, metric: str, now: float, goal: float) -> Iterator[Aim]:
    for tls in (False, True):
        yield Aim(workload, metric, now, goal, at_least=False, absolute=True, tls=tls)


def _bulk() -> Iterator[Aim]:
    yield _faster("get-big", 1.3, 1.6)
    yield _at_most(CPU, "get-big", 0.5, 0.4)
    yield _faster("get-par", 1.5, 1.7)
    yield _at_most(CPU, "get-par", 0.5, 0.36)
    yield _faster("push-big", 1.5, 2.1)
    yield _at_most(CPU, "push-big", 0.75, 0.6)
    yield _faster("push-par", 1.3, 1.7)
    yield _at_most(CPU, "push-par", 0.8, 0.7)
    yield _faster("push-mono", 1.3, 1.8)
    for workload in ("get-big", "get-par", "push-big", "push-par"):
        yield _at_most(PEAK, workload, 1.0, 0.5)


def _small() -> Iterator[Aim]:
    for name in ("m-tag", "m-digest", "m-head"):
        yield _faster(f"{name}@1", 1.4, 2.0)
        for connections in (16, 64):
            workload = f"{name}@{connections}"
            yield _faster(workload, 2.0, 3.0)
            yield _at_most(P99, workload, 0.6, 0.6)
            yield Aim(workload, VALUE, None, 1.2, against="zot")
    for connections in (1, 16, 64):
        yield _faster(f"b-small@{connections}", 8.0, 13.0)
        yield Aim(f"b-small@{connections}", VALUE, None, 1.5, against="zot")
    yield _faster("image-1", 3.0, 4.0)
    yield _faster("image-16", 3.5, 5.0)
    for workload in ("image-1", "image-16"):
        yield Aim(workload, VALUE, None, 1.5, against="zotc")


def _rest() -> Iterator[Aim]:
    yield _faster("tags", 4.9, 10.0)
    yield _faster("tags-page", 3.0, 50.0)
    yield _faster("catalog", 3.0, 20.0)
    yield _at_most(VALUE, "gc", 0.3, 0.1)
    yield from _limit("start", VALUE, 1.0, 0.5)
    yield from _limit("start", PSS, 80.0, 60.0)


def _memory() -> Iterator[Aim]:
    """Of `python -m bench memory`: the documented memory limit, no growth, and what a TLS
    connection may take.
    """
    for workload in ("pushes", "pulls"):
        yield from _limit(workload, PSS, 500.0, 250.0)
    yield from _limit("small-pushes", VALUE, 4.0, 1.0)
    yield Aim("idle-connection", VALUE, 50.0, 30.0, at_least=False, absolute=True, tls=True)
    yield Aim("slow-reader", VALUE, 1.5, 0.5, at_least=False, absolute=True, tls=True)


def _over_tls() -> Iterator[Aim]:
    yield _faster("get-big", 1.0, 1.1, tls=True)
    yield _at_most(CPU, "get-big", 1.0, 0.85, tls=True)
    yield _faster("get-par", 0.95, 1.1, tls=True)
    yield _at_most(CPU, "get-par", 1.0, 0.85, tls=True)
    yield _faster("push-par", 1.1, 1.25, tls=True)
    yield _faster("push-big", 1.2, 1.4, tls=True)
    yield _faster("push-mono", 1.2, 1.4, tls=True)
    for workload in ("push-par", "push-big", "push-mono"):
        yield _at_most(CPU, workload, 0.95, 0.85, tls=True)
    yield _faster("m-tag@16", 1.8, 3.0, tls=True)
    yield _faster("b-small@16", 8.0, 12.0, tls=True)


AIMS: Final[tuple[Aim, ...]] = (*_bulk(), *_small(), *_rest(), *_over_tls(), *_memory())


def judge(aim: Aim, measured: float) -> Verdict:
    """Compares one figure with its bounds."""

    def holds(bound: float) -> bool:
        return measured >= bound if aim.at_least else measured <= bound

    def near(bound: float) -> bool:
        return abs(measured / bound - 1) < NOISE and not aim.absolute

    if aim.goal is not None and holds(aim.goal):
        return Verdict(aim, measured, GOAL_REACHED, close=near(aim.goal))
    if aim.now is None or holds(aim.now):
        return Verdict(aim, measured, OK, close=aim.now is not None and near(aim.now))
    return Verdict(aim, measured, BELOW, close=near(aim.now))


def verdicts(results: Results, *, peer: str, base: str, tls: bool) -> list[Verdict]:
    """What `peer` measured in each aim that this run can decide."""
    found = []
    for aim in AIMS:
        if aim.tls is not tls:
            continue
        if aim.absolute:
            figure = results.spread(aim.workload, peer, aim.metric)
            measured = figure.median if figure else None
        else:
            against = aim.against or base
            measured = results.ratio(aim.workload, peer, against, aim.metric)
        if measured is not None:
            found.append(judge(aim, measured))
    return found
