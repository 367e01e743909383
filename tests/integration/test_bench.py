"""The benchmark's short form, as a command, on registries of this machine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")


@pytest.mark.skipif(shutil.which("docker-registry") is None, reason="it is not installed")
def test_quick_comparison_measures_and_leaves_nothing_behind(tmp_path: Path) -> None:
    data, report = tmp_path / "data", tmp_path / "report.json"
    workloads = ["push-chunked", "m-head@16", "catalog", "gc"]
    options = ["--quick", "--peers", "dist2", "--workload", ",".join(workloads)]
    done = subprocess.run(
        [sys.executable, "-m", "bench", "compare", *options, "--data", data, "--json", report],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads(report.read_text())["plain"]
    assert sorted(measured) == sorted(workloads)
    assert all(runs["dist2"][0]["value"] > 0 for runs in measured.values())
    assert list(data.iterdir()) == []
