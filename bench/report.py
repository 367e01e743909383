"""Results as text: one table a workload, then the targets. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bench.results import CPU, LABELS, VALUE, Results
from bench.targets import REFERENCE, Aim, Verdict

Units = Mapping[str, tuple[str, str]]
"""workload -> the units of its value and of its CPU metric"""


def figure(number: float) -> str:
    """Three digits, as many as a measurement is good for."""
    return f"{number:.3g}" if abs(number) < 100 else f"{number:.0f}"


def columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The rows as lines, with columns as wide as their widest cell."""
    width = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(size) for cell, size in zip(row, width, strict=True)).rstrip()


def tables(results: Results, peers: Sequence[str], *, base: str, units: Units) -> Iterator[str]:
    """Lines: for each workload median [min..max] of each metric, with the ratio to `base`; failures
    below.
    """
    for workload in results.workloads:
        rows = [[workload, *peers]]
        for metric in results.metrics(workload):
            value_unit, cpu_unit = units.get(workload, ("", ""))
            label = {VALUE: value_unit, CPU: cpu_unit, **LABELS}[metric]
            cells = [_cell(results, workload, peer, base, metric) for peer in peers]
            rows.append([f"  {label}", *cells])
        yield ""
        yield from columns(rows)
        yield from _failures(results, workload, peers)


def _cell(results: Results, workload: str, peer: str, base: str, metric: str) -> str:
    spread = results.spread(workload, peer, metric)
    if spread is None:
        return "-"
    text = figure(spread.median)
    if spread.low != spread.high:
        text += f" [{figure(spread.low)}..{figure(spread.high)}]"
    ratio = results.ratio(workload, peer, base, metric)
    return text if ratio is None or peer == base else f"{text} x{ratio:.2f}"


def _failures(results: Results, workload: str, peers: Sequence[str]) -> Iterator[str]:
    for peer in peers:
        errors = [run.error for run in results.outcomes(workload, peer) if run.error]
        if errors:
            yield f"  FAILED {len(errors)} time(s): {peer}: {errors[0]}"


def target_lines(verdicts: Sequence[Verdict], *, base: str, quick: bool) -> Iterator[str]:
    """Lines: each aim with what was measured and the verdict."""
    if not verdicts:
        return
    yield ""
    ratios = any(not verdict.aim.absolute and not verdict.aim.against for verdict in verdicts)
    yield f"targets (ratios to {base})" if ratios else "targets"
    if ratios and base != REFERENCE:
        yield f"  they were set for {REFERENCE}: to {base} they show the direction only"
    if quick:
        yield "  a quick run moves too little to judge by: it shows that everything works"
    rows = [["  workload", "metric", "now", "goal", "measured", "verdict"]]
    for verdict in verdicts:
        aim = verdict.aim
        name = aim.workload + (" (TLS)" if aim.tls else "")
        metric = aim.metric + (f" / {aim.against}" if aim.against else "")
        rows.append(
            [
                f"  {name}",
                metric,
                _bound(aim, aim.now),
                _bound(aim, aim.goal),
                _measured(aim, verdict.measured),
                verdict.verdict + (", close: repeat" if verdict.close else ""),
            ]
        )
    yield from columns(rows)


def _bound(aim: Aim, bound: float | None) -> str:
    if bound is None:
        return "-"
    return f"{'>=' if aim.at_least else '<='} {_measured(aim, bound)}"


def _measured(aim: Aim, number: float) -> str:
    return figure(number) if aim.absolute else f"{number:.2f}x"
