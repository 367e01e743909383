"""The workloads by name, in the order they are run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from bench import bulk, lifecycle, rates
from bench.results import Metrics
from bench.subject import Sizes, Subject

Run = Callable[[Subject], Metrics]

_PER_GB: Final = "CPU s/GB"
_PER_REQUEST: Final = "CPU us/req"


@dataclass(frozen=True, slots=True)
class Workload:
    """`unit` and `cpu_unit` are those of the metrics `value` and `cpu`."""

    name: str
    unit: str
    cpu_unit: str
    run: Run
    offline: bool = False
    """needs no server: TLS makes no difference to it"""
    applies: Callable[[Subject], bool] = lambda _: True


class UnknownWorkload(Exception):
    """A name that no workload has."""


def _moves(name: str, run: Run) -> Workload:
    return Workload(name, "MB/s", _PER_GB, run)


def _serves(name: str, run: Run, unit: str = "req/s") -> Workload:
    return Workload(name, unit, _PER_REQUEST, run)


def all_workloads(sizes: Sizes) -> Iterator[Workload]:
    """Listings come before the pushes of images: every catalog then has the same length."""
    big, mid = sizes.big, sizes.mid
    yield _moves("get-big", partial(bulk.get, size=big, clients=1))
    yield _moves("get-par", partial(bulk.get, size=mid, clients=16))
    yield _moves("push-big", partial(bulk.push, size=big, clients=1, way=bulk.Way.PATCH))
    yield _moves("push-par", partial(bulk.push, size=mid, clients=8, way=bulk.Way.PATCH))
    yield _moves("push-mono", partial(bulk.push, size=mid, clients=1, way=bulk.Way.SINGLE))
    yield _moves("push-chunked", partial(bulk.push, size=mid, clients=8, way=bulk.Way.CHUNKED))
    for name, small in (
        ("m-tag", rates.by_tag),
        ("m-digest", rates.by_digest),
        ("m-head", rates.head),
        ("b-small", rates.small_blob),
    ):
        for connections in sizes.connections:
            yield _serves(f"{name}@{connections}", partial(small, connections=connections))
    yield _serves("tags", rates.all_tags, "lists/s")
    yield _serves("tags-page", rates.page_of_tags)
    yield _serves("catalog", rates.catalog, "lists/s")
    yield _serves("image-1", partial(rates.push_small_images, pushers=1), "images/s")
    yield _serves("image-16", partial(rates.push_small_images, pushers=16), "images/s")
    yield Workload("start", "s", "CPU s", lifecycle.start)
    yield Workload("gc", "s", "CPU s", lifecycle.collect, offline=True, applies=lifecycle.collects)


def select(sizes: Sizes, names: list[str], *, tls: bool) -> list[Workload]:
    """The named workloads (`m-tag` stands for all its connection counts), or, for no names, all
    that fit.

    Raises UnknownWorkload.
    """
    known = list(all_workloads(sizes))
    if not names:
        return [workload for workload in known if not (tls and workload.offline)]
    families = {workload.name.partition("@")[0] for workload in known}
    unknown = set(names) - families - {workload.name for workload in known}
    if unknown:
        raise UnknownWorkload(
            f"no workload {', '.join(sorted(unknown))}; there are {', '.join(sorted(families))}"
        )
    return [w for w in known if w.name in names or w.name.partition("@")[0] in names]
