"""Choosing workloads by name."""

from __future__ import annotations

import pytest

from bench.subject import FULL, QUICK
from bench.workloads import UnknownWorkload, all_workloads, select


def test_names_are_unique() -> None:
    names = [workload.name for workload in all_workloads(FULL)]
    assert len(names) == len(set(names))


def test_a_family_stands_for_all_its_connection_counts() -> None:
    chosen = select(FULL, ["m-tag"], tls=False)
    assert [workload.name for workload in chosen] == ["m-tag@1", "m-tag@16", "m-tag@64"]
    assert [workload.name for workload in select(QUICK, ["m-tag@16"], tls=False)] == ["m-tag@16"]


def test_order_is_ours_whatever_was_asked() -> None:
    chosen = select(FULL, ["image-16", "catalog", "get-big"], tls=False)
    assert [workload.name for workload in chosen] == ["get-big", "catalog", "image-16"]


def test_tls_leaves_out_what_needs_no_server_unless_it_is_named() -> None:
    assert "gc" not in {workload.name for workload in select(FULL, [], tls=True)}
    assert "gc" in {workload.name for workload in select(FULL, [], tls=False)}
    assert "gc" in {workload.name for workload in select(FULL, ["gc"], tls=True)}


def test_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownWorkload, match=r"get-huge.*get-big"):
        select(FULL, ["get-huge"], tls=False)
