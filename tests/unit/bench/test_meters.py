"""Meters, read on this very process."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from bench.meters import Meter, cpu_seconds, peak_rss_mib, pss_mib, tree, watch_pss


def test_tree_holds_the_children() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert {os.getpid(), child.pid} <= set(tree(os.getpid()))
        assert child.stdin is not None
        child.stdin.close()


def test_work_is_seen_as_cpu_time() -> None:
    meter = Meter(os.getpid())
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    reading = meter.stop()
    assert reading.cpu >= 0.05
    assert reading.client_cpu >= 0.09
    assert reading.wall >= 0.09


def test_memory_of_a_live_process_is_known() -> None:
    assert pss_mib([os.getpid()]) > 1
    assert peak_rss_mib([os.getpid()]) >= 1


def test_ended_process_counts_nothing() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert (cpu_seconds([child.pid]), pss_mib([child.pid])) == (0, 0)


def test_highest_pss_of_a_block_is_kept() -> None:
    with watch_pss(os.getpid(), interval=0.01) as peak:
        block = bytearray(os.urandom(1 << 20)) * 20
        time.sleep(0.1)
        del block
    assert peak.samples >= 2
    assert peak.mib > 20
