from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.metric_rows import Rows, make_folder
from serving.metrics import FAMILIES, Metrics

ROOT = Path(__file__).parents[3]

WORKER = """
import sys
from serving.metrics import Metrics
metrics = Metrics(folder=sys.argv[1])
for line in sys.stdin:
    if line == "request\\n":
        metrics.request_started()
        metrics.observe_request("GET", 200, 0.02, 0.01, 10, 2000)
    elif line == "start\\n":
        metrics.request_started()
    print("done", flush=True)
"""


class Worker:
    """Another process that counts into the same folder."""

    def __init__(self, folder: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, folder],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, *words: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        for word in words:
            self._process.stdin.write(f"{word}\n")
            self._process.stdin.flush()
            assert self._process.stdout.readline() == "done\n"

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate()


@pytest.fixture
def folder() -> Iterator[str]:
    path = make_folder()
    yield path
    shutil.rmtree(path)


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    made = Metrics()
    yield made
    made.close()


def samples(metrics: Metrics) -> dict[str, float]:
    """All samples by `name{label=value,...}`, without the namespace."""
    found = {}
    for family in text_string_to_metric_families(metrics.exposition().decode()):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            name = sample.name.removeprefix("imageregistry_")
            found[f"{name}{{{labels}}}" if labels else name] = sample.value
    return found


def request(metrics: Metrics, method: str = "GET", status: int = 200) -> None:
    metrics.request_started()
    metrics.observe_request(method, status, 0.02, 0.01, 10, 2000)


def test_a_request_is_in_all_its_metrics(metrics: Metrics) -> None:
    request(metrics)
    found = samples(metrics)
    assert found["http_requests_total{code=200,method=GET}"] == 1
    assert found["http_request_duration_seconds_count{method=GET}"] == 1
    assert found["http_request_duration_seconds_sum{method=GET}"] == 0.02
    assert found["http_time_to_write_header_seconds_sum"] == 0.01
    assert found["http_request_size_bytes_sum"] == 10
    assert found["http_response_size_bytes_sum"] == 2000
    assert found["http_in_flight_requests"] == 0


def test_requests_that_have_not_ended_are_in_flight(metrics: Metrics) -> None:
    metrics.request_started()
    metrics.request_started()
    assert samples(metrics)["http_in_flight_requests"] == 2


def test_buckets_count_what_is_at_most_their_bound(metrics: Metrics) -> None:
    for seconds in (0.0, 0.001, 0.0011, 300.0, 301.0):
        metrics.observe("request_duration_seconds", seconds, "BlobStore.Get")
    found = samples(metrics)

    def bucket(bound: str) -> float:
        return found[f"request_duration_seconds_bucket{{le={bound},operation=BlobStore.Get}}"]

    assert [bucket(bound) for bound in ("0.001", "0.0025", "60.0", "300.0", "+Inf")] == [
        2,
        3,
        3,
        4,
        5,
    ]
    assert found["request_duration_seconds_count{operation=BlobStore.Get}"] == 5
    assert found["request_duration_seconds_sum{operation=BlobStore.Get}"] == pytest.approx(601.0021)


def test_methods_that_clients_make_up_are_one_label(metrics: Metrics) -> None:
    for number in range(50):
        request(metrics, f"BREW{number}", 405)
    found = samples(metrics)
    assert found["http_requests_total{code=405,method=OTHER}"] == 50
    assert not any("BREW" in name for name in found)


def test_counters_and_gauges_add_up(metrics: Metrics) -> None:
    metrics.add("digest_cache_requests_total", "Hit")
    metrics.add("digest_cache_requests_total", "Hit")
    metrics.add("digest_cache_requests_total", "Miss")
    metrics.add("storage_errors_total", "StorageDriver.Stat", "PATH_NOT_FOUND", by=3)
    metrics.add("upload_active")
    metrics.add("upload_active", by=-1)
    found = samples(metrics)
    assert found["digest_cache_requests_total{type=Hit}"] == 2
    assert found["digest_cache_requests_total{type=Miss}"] == 1
    assert found["storage_errors_total{code=PATH_NOT_FOUND,operation=StorageDriver.Stat}"] == 3
    assert found["upload_active"] == 0


def test_metrics_without_labels_are_there_from_the_start(metrics: Metrics) -> None:
    found = samples(metrics)
    assert found["storage_corrupt_blobs_total"] == 0
    assert found["tls_reload_failures_total"] == 0


def test_every_family_has_its_help_and_type(metrics: Metrics) -> None:
    text = metrics.exposition().decode()
    for family in FAMILIES:
        assert f"# HELP imageregistry_{family.name} " in text
        assert f"# TYPE imageregistry_{family.name} {family.kind}\n" in text


def test_a_single_process_tells_of_itself(metrics: Metrics) -> None:
    assert samples(metrics)["process_resident_memory_bytes"] > 0


def test_wrong_labels_are_a_mistake_of_the_caller(metrics: Metrics) -> None:
    with pytest.raises(ValueError, match="labels"):
        metrics.add("storage_errors_total", "StorageDriver.Stat")
    with pytest.raises(KeyError):
        metrics.add("no_such_metric")


def test_the_namespace_is_that_of_the_process() -> None:
    metrics = Metrics("other")
    assert b"\nother_http_in_flight_requests 0.0\n" in metrics.exposition()
    metrics.close()


def test_more_rows_than_fit_into_the_file_are_counted_here(folder: str) -> None:
    rows, other = Rows(folder), Rows(folder)
    for number in range(200):
        rows.row(f"key{number}", 1000)[0] = 1.0
    assert [row[0] for row in rows.mine().values()] == [1.0] * 200
    ((shared, alive),) = other.others()
    assert alive
    assert 100 < len(shared) < 200
    rows.close()
    other.close()


def test_a_scrape_of_any_worker_is_the_sum_of_all(folder: str) -> None:
    first, second = Metrics(folder=folder), Metrics(folder=folder)
    request(first)
    request(second)
    request(second, "PUT", 201)
    second.request_started()
    for metrics in (first, second):
        found = samples(metrics)
        assert found["http_requests_total{code=200,method=GET}"] == 2
        assert found["http_requests_total{code=201,method=PUT}"] == 1
        assert found["http_in_flight_requests"] == 1
        assert found["http_request_size_bytes_sum"] == 30
    first.close()
    second.close()


def test_a_killed_workers_counters_stay_and_its_gauges_go(folder: str) -> None:
    metrics = Metrics(folder=folder)
    worker = Worker(folder)
    try:
        worker.tell("request", "request", "start")
        found = samples(metrics)
        assert found["http_requests_total{code=200,method=GET}"] == 2
        assert found["http_in_flight_requests"] == 1
    finally:
        worker.kill()
    found = samples(metrics)
    assert found["http_requests_total{code=200,method=GET}"] == 2
    assert found["http_in_flight_requests"] == 0
    metrics.close()


def test_a_new_worker_goes_on_where_a_dead_one_ended(folder: str) -> None:
    metrics = Metrics(folder=folder)
    for _ in range(3):
        worker = Worker(folder)
        try:
            worker.tell("request", "start")
            assert samples(metrics)["http_in_flight_requests"] == 1
        finally:
            worker.kill()
    assert samples(metrics)["http_requests_total{code=200,method=GET}"] == 3
    assert len(list(Path(folder).iterdir())) == 2
    metrics.close()


def test_a_file_that_is_only_begun_does_not_disturb_a_scrape(folder: str) -> None:
    metrics = Metrics(folder=folder)
    request(metrics)
    (Path(folder) / "1-begun").touch()
    assert samples(metrics)["http_requests_total{code=200,method=GET}"] == 1
    metrics.close()
