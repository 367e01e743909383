"""All registries of a run, loaded in turn: A B C A B C ... for each workload."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from bench.clients import RequestFailed
from bench.peers import Certificate, Peer, PeerFailed, Recipe
from bench.report import figure
from bench.results import VALUE, Outcome, Results
from bench.subject import Sizes, Subject, fill
from bench.workloads import Workload

Say = Callable[[str], None]


def compare(
    recipes: Sequence[Recipe],
    workloads: Sequence[Workload],
    results: Results,
    *,
    sizes: Sizes,
    rounds: int,
    folder: str,
    certificate: Certificate | None,
    say: Say,
) -> None:
    """Starts every registry below `folder`, fills `results`, ends them. Raises PeerFailed."""
    with contextlib.ExitStack() as stack:
        subjects = [
            Subject(
                stack.enter_context(_started(recipe, workloads, sizes, folder, certificate)), sizes
            )
            for recipe in recipes
        ]
        for workload in workloads:
            for _ in range(rounds):
                for subject in subjects:
                    if workload.applies(subject):
                        outcome = _attempt(workload, subject)
                        results.add(workload.name, subject.peer.name, outcome)
                        say(
                            f"{workload.name} {subject.peer.name}: {_brief(outcome, workload.unit)}"
                        )


@contextlib.contextmanager
def _started(
    recipe: Recipe,
    workloads: Sequence[Workload],
    sizes: Sizes,
    folder: str,
    certificate: Certificate | None,
) -> Iterator[Peer]:
    names = {workload.name for workload in workloads}
    peer = Peer(recipe, f"{folder}/{recipe.name}", certificate)
    wanted = {"tags": bool(names & {"tags", "tags-page"}), "repositories": "catalog" in names}
    if recipe.shared_layout:
        fill(peer, sizes, **wanted)
    with peer:
        if not recipe.shared_layout:
            try:
                fill(peer, sizes, **wanted)
            except RequestFailed as error:
                raise PeerFailed(f"{recipe.name} cannot be filled: {error}") from error
        yield peer


def _attempt(workload: Workload, subject: Subject) -> Outcome:
    try:
        return Outcome(workload.run(subject))
    # One registry's failure, of whatever kind, must not lose the figures of the others: it is
    # reported with them.
    except Exception as error:
        return Outcome.failure(error)


def _brief(outcome: Outcome, unit: str) -> str:
    return (
        f"FAILED {outcome.error}" if outcome.error else f"{figure(outcome.metrics[VALUE])} {unit}"
    )
