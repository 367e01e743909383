"""Bulk workloads: big blobs, pulled and pushed, by one client and by many."""

from __future__ import annotations

import enum
import os
import time
from typing import Final

from bench.clients import Client
from bench.content import MIB, Content
from bench.meters import Meter, Reading
from bench.results import CLIENT, CPU, PEAK, VALUE, Metrics
from bench.seeding import BYTES, push_blob, remove_fresh
from bench.subject import NAMESPACE, Subject, WorkloadFailed, at_once
from bench.wire import local_path, with_digest
from storage import paths

_REPOSITORY: Final = f"{NAMESPACE}/push"
_CLOCK: Final = 0.02
"""seconds by which a file's time may lie before the clock's (the kernel stamps files by its last
tick)
"""


class Way(enum.Enum):
    """How a blob is sent (OCI distribution-spec, "Pushing Blobs")."""

    PATCH = "POST, one PATCH with Content-Length, PUT"
    SINGLE = "POST, one PUT with the body"
    CHUNKED = "POST, one PATCH in the chunked coding of 32 KiB, PUT: as docker and podman do it"


def get(subject: Subject, size: int, clients: int) -> Metrics:
    """All clients read the same blob of `size` bytes, once."""
    path = subject.blob(size)

    def pull(client: Client, _: int) -> None:
        if client.download(path) != size:
            raise WorkloadFailed(f"GET {path}: a short body")

    with subject.clients(clients) as connected:
        meter = Meter(subject.peer.pid)
        at_once(connected, pull)
        return bulk_metrics(meter.stop(), size * clients)


def push(subject: Subject, size: int, clients: int, way: Way) -> Metrics:
    """Each client sends a blob of `size` bytes that is new. What was written is removed afterwards.

    Kept files would not only fill the disk: the first touch of a virtual machine's memory is slow,
    and would fall on one registry by chance; after a removal the next writes go to memory that was
    just freed.
    """
    salt = subject.fresh()
    contents = [Content(size, f"{salt}-{index}") for index in range(clients)]
    # Dirty pages of the run before must not be written in this one's time.
    os.sync()
    since = time.time() - _CLOCK
    try:
        with subject.clients(clients) as connected:
            meter = Meter(subject.peer.pid)
            at_once(connected, lambda client, index: send(client, contents[index], way))
            metrics = bulk_metrics(meter.stop(), size * clients)
            for client, content in zip(connected, contents, strict=True):
                path = f"/v2/{_REPOSITORY}/blobs/{content.digest}"
                client.request("HEAD", path, expect=(200,))
    finally:
        forget_pushes(subject, since)
    return metrics


def forget_pushes(subject: Subject, since: float) -> None:
    """Removes the blobs of 1 MiB and more that came after `since`."""
    peer = subject.peer
    folder = peer.place.root + (paths.ROOT if peer.recipe.shared_layout else "")
    remove_fresh(folder, since=since, least=MIB)


def send(client: Client, content: Content, way: Way) -> None:
    """Pushes one blob."""
    if way is Way.PATCH:
        push_blob(client, _REPOSITORY, content)
        return
    begun = client.request("POST", f"/v2/{_REPOSITORY}/blobs/uploads/", expect=(202,))
    location = begun.headers["location"]
    if way is Way.SINGLE:
        path = with_digest(location, content.digest)
        client.request("PUT", path, BYTES, content, length=content.size, expect=(201,))
        return
    coding = f"{BYTES}Transfer-Encoding: chunked\r\n"
    path = local_path(location)
    sent = client.request("PATCH", path, coding, content.chunks(), expect=(202, 204))
    client.request("PUT", with_digest(sent.headers["location"], content.digest), expect=(201,))


def bulk_metrics(reading: Reading, size: int) -> dict[str, float]:
    """Of `size` bytes moved: MB/s, CPU seconds for each GB, peak MiB."""
    return {
        VALUE: size / 1e6 / reading.wall,
        CPU: reading.cpu / (size / 1e9),
        PEAK: reading.peak_mib,
        CLIENT: reading.client_cpu / reading.wall,
    }
