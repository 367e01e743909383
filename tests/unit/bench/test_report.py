"""Tables and verdicts as text."""

from __future__ import annotations

from bench.report import columns, figure, tables, target_lines
from bench.results import CPU, VALUE, Outcome, Results
from bench.targets import Aim, judge


def test_figures_have_three_digits() -> None:
    assert [figure(x) for x in (0.01234, 1.234, 56.78, 1234.5)] == [
        "0.0123",
        "1.23",
        "56.8",
        "1234",
    ]


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert list(columns([["a", "bb", "c"], ["aaa", "b", ""]])) == ["a    bb  c", "aaa  b"]


def test_table_shows_medians_spreads_ratios_and_failures() -> None:
    results = Results()
    for value in (100.0, 120.0, 110.0):
        results.add("get-big", "dist3", Outcome({VALUE: value, CPU: 0.5}))
        results.add("get-big", "ours", Outcome({VALUE: 2 * value}))
    results.add("get-big", "ours", Outcome(error="OSError: gone"))
    lines = list(
        tables(results, ["dist3", "ours"], base="dist3", units={"get-big": ("MB/s", "CPU s/GB")})
    )
    assert lines == [
        "",
        "get-big     dist3           ours",
        "  MB/s      110 [100..120]  220 [200..240] x2.00",
        "  CPU s/GB  0.5             -",
        "  FAILED 1 time(s): ours: OSError: gone",
    ]


def test_targets_are_listed_with_their_verdict() -> None:
    found = [
        judge(Aim("get-big", VALUE, 1.3, 1.6), 2.5),
        judge(Aim("get-big", CPU, 1.0, 0.85, at_least=False, tls=True), 1.05),
        judge(Aim("start", VALUE, 1.0, 0.5, at_least=False, absolute=True), 0.7),
        judge(Aim("image-1", VALUE, None, 1.5, against="zotc"), 0.5),
    ]
    assert list(target_lines(found, base="dist3", quick=False)) == [
        "",
        "targets (ratios to dist3)",
        "  workload       metric        now       goal      measured  verdict",
        "  get-big        value         >= 1.30x  >= 1.60x  2.50x     goal reached",
        "  get-big (TLS)  cpu           <= 1.00x  <= 0.85x  1.05x     below now, close: repeat",
        "  start          value         <= 1      <= 0.5    0.7       ok",
        "  image-1        value / zotc  -         >= 1.50x  0.50x     ok",
    ]


def test_another_base_is_told() -> None:
    found = [judge(Aim("get-big", VALUE, 1.3, 1.6), 2.5)]
    assert "set for dist3" in "\n".join(target_lines(found, base="dist2", quick=False))


def test_absolute_targets_have_no_base() -> None:
    found = [judge(Aim("start", VALUE, 1.0, 0.5, at_least=False, absolute=True), 0.7)]
    assert list(target_lines(found, base="ours", quick=False))[1] == "targets"


def test_quick_run_is_no_measurement() -> None:
    found = [judge(Aim("get-big", VALUE, 1.3, 1.6), 2.5)]
    assert "too little" in "\n".join(target_lines(found, base="dist3", quick=True))


def test_no_verdicts_print_nothing() -> None:
    assert list(target_lines([], base="dist3", quick=False)) == []
