"""Medians, spreads, ratios."""

from __future__ import annotations

import pytest

from bench.results import CPU, P50, VALUE, Outcome, Results, Spread, percentile, spread


def _results() -> Results:
    results = Results()
    for value in (3.0, 1.0, 2.0):
        results.add("get", "a", Outcome({CPU: value / 10, VALUE: value}))
        results.add("get", "b", Outcome({VALUE: value * 2}))
    results.add("get", "b", Outcome(error="broken"))
    return results


def test_spread_is_median_and_extremes() -> None:
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert spread([4.0, 1.0]) == Spread(2.5, 1.0, 4.0)
    assert spread([]) is None


def test_failed_rounds_do_not_count_but_are_known() -> None:
    results = _results()
    assert results.spread("get", "b", VALUE) == Spread(4.0, 2.0, 6.0)
    assert results.failed("b")
    assert not results.failed("a")


def test_ratio_is_of_medians() -> None:
    results = _results()
    assert results.ratio("get", "b", "a", VALUE) == pytest.approx(2.0)


def test_ratio_without_both_sides_is_unknown() -> None:
    results = _results()
    assert results.ratio("get", "b", "a", CPU) is None
    assert results.ratio("put", "b", "a", VALUE) is None
    results.add("grown", "a", Outcome({VALUE: -1.0}))
    results.add("grown", "b", Outcome({VALUE: 1.0}))
    assert results.ratio("grown", "b", "a", VALUE) is None


def test_metrics_come_in_one_order() -> None:
    results = _results()
    results.add("get", "b", Outcome({P50: 1.0}))
    assert results.metrics("get") == (VALUE, P50, CPU)


def test_document_holds_every_round() -> None:
    document = _results().document()
    assert document["get"]["a"][0] == {CPU: pytest.approx(0.3), VALUE: 3.0}
    assert document["get"]["b"][-1] == {"error": "broken"}


def test_failure_names_its_kind() -> None:
    assert Outcome.failure(ValueError("x" * 999)).error == ("ValueError: " + "x" * 999)[:300]


def test_percentile_stays_inside() -> None:
    ordered = [float(number) for number in range(100)]
    assert percentile(ordered, 0.5) == 50.0
    assert percentile(ordered, 0.99) == 99.0
    assert percentile([7.0], 0.99) == 7.0
