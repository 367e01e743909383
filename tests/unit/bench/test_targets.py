"""Comparison with the targets."""

from __future__ import annotations

import pytest

from bench.memory import UNITS
from bench.results import CPU, PSS, VALUE, Outcome, Results
from bench.subject import FULL
from bench.targets import AIMS, BELOW, GOAL_REACHED, OK, Aim, judge, verdicts
from bench.workloads import all_workloads

_FAST = Aim("w", VALUE, now=1.3, goal=1.6)
_CHEAP = Aim("w", CPU, now=0.5, goal=0.4, at_least=False)


@pytest.mark.parametrize(
    ("aim", "measured", "verdict"),
    [
        (_FAST, 1.6, GOAL_REACHED),
        (_FAST, 1.59, OK),
        (_FAST, 1.3, OK),
        (_FAST, 1.29, BELOW),
        (_CHEAP, 0.4, GOAL_REACHED),
        (_CHEAP, 0.41, OK),
        (_CHEAP, 0.51, BELOW),
        (Aim("w", VALUE, now=None, goal=1.2), 0.5, OK),
    ],
)
def test_verdict_by_the_bounds(aim: Aim, measured: float, verdict: str) -> None:
    assert judge(aim, measured).verdict == verdict


@pytest.mark.parametrize(
    ("measured", "close"), [(1.2, True), (1.0, False), (1.4, True), (1.7, True), (2.5, False)]
)
def test_ratio_within_the_noise_of_its_bound_is_close(measured: float, close: bool) -> None:
    assert judge(_FAST, measured).close is close


def test_absolute_figures_are_never_close() -> None:
    assert not judge(Aim("start", VALUE, 1.0, 0.5, at_least=False, absolute=True), 1.01).close


def _results() -> Results:
    results = Results()
    for peer, speed, cpu in (("dist3", 100.0, 1.0), ("zot", 110.0, 0.8), ("ours", 250.0, 0.6)):
        results.add("push-big", peer, Outcome({VALUE: speed, CPU: cpu}))
        results.add("b-small@16", peer, Outcome({VALUE: speed * 8}))
    results.add("start", "ours", Outcome({VALUE: 0.3, PSS: 90.0}))
    return results


def test_run_is_judged_by_ratios_and_by_absolute_figures() -> None:
    found = verdicts(_results(), peer="ours", base="dist3", tls=False)
    judged = {(v.aim.workload, v.aim.metric, v.aim.against): v for v in found}
    assert judged["push-big", VALUE, ""].verdict == GOAL_REACHED
    assert judged["push-big", CPU, ""].measured == pytest.approx(0.6)
    assert judged["b-small@16", VALUE, ""].verdict == BELOW
    assert judged["b-small@16", VALUE, "zot"].verdict == GOAL_REACHED
    assert judged["start", VALUE, ""].verdict == GOAL_REACHED
    assert judged["start", PSS, ""].verdict == BELOW


def test_tls_runs_have_targets_of_their_own() -> None:
    found = verdicts(_results(), peer="ours", base="dist3", tls=True)
    assert {(v.aim.workload, v.aim.now) for v in found} >= {("push-big", 1.2), ("push-big", 0.95)}
    assert all(v.aim.tls for v in found)


def test_what_was_not_measured_is_not_judged() -> None:
    assert verdicts(Results(), peer="ours", base="dist3", tls=False) == []


def test_every_target_names_a_workload() -> None:
    known = {workload.name for workload in all_workloads(FULL)} | set(UNITS)
    assert {aim.workload for aim in AIMS} <= known


def test_goals_are_never_easier_than_the_present_bound() -> None:
    for aim in AIMS:
        if aim.now is not None and aim.goal is not None:
            assert aim.goal >= aim.now if aim.at_least else aim.goal <= aim.now
