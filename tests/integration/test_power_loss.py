"""What is answered is on the disk: told from the system calls of a server while it takes a push.

The judge is tried on traces that are made up or doctored, too: one that finds nothing in them would
find nothing in a real one.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from oci.descriptor import OCI_INDEX, OCI_MANIFEST
from oci.digest import Digest
from tests.e2e.server import PROJECT, clean_environment, free_port
from tests.fakes.images import descriptor, image, index
from tests.load.durability import judge
from tests.load.ledger import Blob
from tests.load.pusher import OCTETS
from tests.load.strace import TRACED, Call, parse
from tests.load.wire import Answer, ServerLost, Wire

BIG = Blob.make(1, 700_000)
SMALL = Blob.make(2, 1_000)
LARGE_SHA512 = Blob.make(3, 300_000).content()


# A made-up trace: one request that puts one link, in the form that strace writes.
ROOT = "/volume"
FOLDER = "/volume/docker/registry/v2/repositories/a/_layers/sha256/ab"
GOOD = f"""\
1 read(5<socket:[1]>, "POST /v2/a/blobs/uploads/?mount=x HTTP/1.1\\r\\n"..., 1000) = 60
2 mkdir("{FOLDER}", 0777) = 0
2 openat(AT_FDCWD</>, "{FOLDER}/link.tmp", O_WRONLY|O_CREAT|O_EXCL, 0666) = 7<{FOLDER}/link.tmp>
2 write(7<{FOLDER}/link.tmp>, "sha256:ab", 9) = 9
2 fsync(7<{FOLDER}/link.tmp>) = 0
2 rename("{FOLDER}/link.tmp", "{FOLDER}/link") = 0
2 fsync(8<{FOLDER}>) = 0
2 fsync(8<{os.path.dirname(FOLDER)}>) = 0
1 write(5<socket:[1]>, "HTTP/1.1 201 Created\\r\\n"..., 300) = 300
""".splitlines()
WRITE, FSYNC, RENAME, SYNC_FOLDER, SYNC_ABOVE, ANSWER = range(3, 9)


def faults(lines: Sequence[str], root: str = ROOT) -> list[str]:
    return judge(parse(lines), root).faults


def moved(lines: Sequence[str], line: int, before: int) -> list[str]:
    rest = [*lines[:line], *lines[line + 1 :]]
    rest.insert(before if before < line else before - 1, lines[line])
    return rest


def without(lines: Sequence[str], *numbers: int) -> list[str]:
    return [line for number, line in enumerate(lines) if number not in numbers]


def cut(line: str) -> tuple[str, str]:
    """The two lines of a call during which something else ended."""
    thread, text = line.split(" ", 1)
    name = text.partition("(")[0]
    call, result = text.rsplit(") = ", 1)
    return f"{thread} {call} <unfinished ...>", f"{thread} <... {name} resumed>) = {result}"


def test_a_durable_push_has_no_fault() -> None:
    judgement = judge(parse(GOOD), ROOT)
    assert judgement.faults == []
    assert (judgement.renames, judgement.answers) == (1, 1)


def test_a_rename_without_a_sync_of_the_file_is_found() -> None:
    assert "is not synced" in faults(without(GOOD, FSYNC))[0]
    failed = [line.replace("= 0", "= -1 EIO (Input/output error)") for line in GOOD[FSYNC:RENAME]]
    assert "is not synced" in faults([*GOOD[:FSYNC], *failed, *GOOD[RENAME:]])[0]


def test_a_write_after_the_sync_is_found() -> None:
    assert "is not synced" in faults(moved(GOOD, WRITE, RENAME))[0]


def test_a_write_that_ends_during_the_sync_is_found() -> None:
    begin, end = cut(GOOD[WRITE].replace("2 write", "3 write"))
    assert faults([*GOOD[:WRITE], begin, end, *GOOD[FSYNC:]]) == []
    first, last = cut(GOOD[FSYNC])
    overlapping = [*GOOD[:WRITE], begin, first, end, last, *GOOD[RENAME:]]
    assert "is not synced" in faults(overlapping)[0]


def test_a_sync_that_ends_after_the_rename_is_found() -> None:
    begin, end = cut(GOOD[FSYNC].replace("2 fsync", "3 fsync"))
    assert "is not synced" in faults([*GOOD[:FSYNC], begin, GOOD[RENAME], end, *GOOD[6:]])[0]


def test_an_answer_before_the_folder_is_synced_is_found() -> None:
    assert "is answered before the name" in faults(without(GOOD, SYNC_FOLDER))[0]
    assert "is answered before the name" in faults(moved(GOOD, SYNC_FOLDER, RENAME))[0]
    begin, end = cut(GOOD[SYNC_FOLDER].replace("2 fsync", "3 fsync"))
    late = [*GOOD[:SYNC_FOLDER], begin, *GOOD[SYNC_ABOVE:], end]
    assert "is answered before the name" in faults(late)[0]


def test_an_answer_before_a_new_folder_is_durable_is_found() -> None:
    assert faults(without(GOOD, SYNC_ABOVE)) == [
        f"line 8: POST /v2/a/blobs/uploads/?mount=x is answered before the name {FOLDER[7:]} is"
        " durable"
    ]


def test_a_new_folder_of_an_earlier_request_has_to_be_durable_too() -> None:
    start = [GOOD[0], GOOD[1], GOOD[ANSWER].replace("201 Created", "202 Accepted")]
    later = [GOOD[0], *GOOD[2:]]
    assert faults([*start, *later]) == []
    assert "is answered before the name" in faults([*start, *without(later, 6)])[0]


def test_work_after_the_answer_is_found() -> None:
    assert "rename while no request runs" in faults(moved(GOOD, ANSWER, RENAME))[-1]


def test_a_folder_has_to_be_whole_on_the_disk_before_its_rename() -> None:
    new, tag = (f"/volume/v2/repositories/a/_manifests/tags/{name}" for name in (".new-1", "v1"))
    lines = [
        GOOD[0],
        f'2 mkdir("{new}", 0777) = 0',
        f'2 mkdir("{new}/current", 0777) = 0',
        f'2 openat(AT_FDCWD</>, "{new}/current/link", O_WRONLY|O_CREAT) = 7<{new}/current/link>',
        f'2 write(7<{new}/current/link>, "sha256:ab", 9) = 9',
        f"2 fsync(7<{new}/current/link>) = 0",
        f"2 fsync(8<{new}>) = 0",
        f"2 fsync(8<{new}/current>) = 0",
        f'2 rename("{new}", "{tag}") = 0',
        f"2 fsync(8<{os.path.dirname(tag)}>) = 0",
        GOOD[ANSWER],
    ]
    assert faults(lines) == []
    assert "is not synced" in faults(without(lines, 5))[0]
    assert "its name not durable" in faults(without(lines, 6))[0]
    assert "its name not durable" in faults(without(lines, 7))[0]


def test_a_tag_that_appears_before_its_manifest_is_durable_is_found() -> None:
    tag = "/volume/v2/repositories/a/_manifests/tags/v1/current"
    second = [
        f'2 openat(AT_FDCWD</>, "{tag}/x.tmp", O_WRONLY|O_CREAT, 0666) = 9<{tag}/x.tmp>',
        f"2 fsync(9<{tag}/x.tmp>) = 0",
        f'2 rename("{tag}/x.tmp", "{tag}/link") = 0',
        f"2 fsync(9<{tag}>) = 0",
    ]
    assert faults([*GOOD[:ANSWER], *second, GOOD[ANSWER]]) == []
    early = [*GOOD[:SYNC_FOLDER], *second, *GOOD[SYNC_FOLDER:]]
    assert "appears before" in faults(early)[0]


def test_bytes_that_are_answered_for_have_to_be_synced() -> None:
    data = "/volume/v2/repositories/a/_uploads/1/data"
    lines = [
        GOOD[0].replace("POST", "PATCH"),
        f'2 openat(AT_FDCWD</>, "{data}", O_WRONLY|O_CREAT|O_APPEND, 0666) = 7<{data}>',
        f'2 write(7<{data}>, "abc", 3) = 3',
        f"2 fsync(7<{data}>) = 0",
        GOOD[ANSWER],
    ]
    assert faults(lines) == []
    assert "is synced" in faults(without(lines, 3))[0]
    assert faults([line.replace("/data", "/startedat") for line in without(lines, 3)]) == []


@dataclass(frozen=True, slots=True)
class Push:
    """The calls of a server that took one push, and its storage folder."""

    calls: list[Call]
    root: str


def strace_or_skip() -> str:
    """The command; a failure where CI cannot run it, a skip elsewhere."""
    program = shutil.which("strace")
    reason = "strace is not installed"
    if program is not None:
        tried = subprocess.run([program, "-f", "true"], capture_output=True, text=True)
        if tried.returncode == 0:
            return program
        reason = f"strace may not trace here: {tried.stderr.strip()[:300]}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def wait_until_ready(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with Wire(port) as wire:
                if wire.call("GET", "/readyz").status == 200:
                    return
        except ServerLost:
            pass
        time.sleep(0.05)
    raise AssertionError("the traced server is not ready")


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the traced server; strace ends with it."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for child in children:
        os.kill(int(child), signal.SIGTERM)
    try:
        process.wait(40)
    finally:
        for child in children if process.poll() is None else ():
            os.kill(int(child), signal.SIGKILL)
        process.kill()
        process.wait()


def put_manifest(wire: Wire, reference: str, content: bytes, name: str = "it/a") -> Answer:
    kind = OCI_INDEX if b'"manifests"' in content else OCI_MANIFEST
    where = f"/v2/{name}/manifests/{reference}"
    return wire.expect(201, "PUT", where, content, {"Content-Type": kind})


def pieces(content: bytes) -> Iterator[bytes]:
    for at in range(0, len(content), 50_000):
        yield content[at : at + 50_000]


def push(wire: Wire) -> None:
    """Every way to make something that lasts, one after the other."""

    def begin(query: str = "", name: str = "it/a") -> str:
        path = f"/v2/{name}/blobs/uploads/{query}"
        return wire.expect(202, "POST", path).headers["location"]

    def patch(location: str, body: bytes | Iterator[bytes]) -> str:
        return wire.expect(202, "PATCH", location, body, OCTETS).headers["location"]

    def close(location: str, digest: Digest, rest: bytes = b"") -> None:
        wire.expect(201, "PUT", f"{location}&digest={digest}", rest, OCTETS)

    close(patch(begin(), pieces(BIG.content())), BIG.digest)
    close(begin(), SMALL.digest, SMALL.content())
    long = Digest.of(LARGE_SHA512, "sha512")
    half = patch(begin("?digest-algorithm=sha512"), LARGE_SHA512[:150_000])
    close(patch(half, LARGE_SHA512[150_000:200_000]), long, LARGE_SHA512[200_000:])
    close(begin(), Digest.of(b""))
    wire.expect(201, "POST", f"/v2/it/a/blobs/uploads/?digest={Digest.of(b'once')}", b"once")
    wire.expect(201, "POST", f"/v2/it/b/blobs/uploads/?mount={BIG.digest}&from=it/a")
    close(begin(name="it/c"), BIG.digest, BIG.content())
    first = image(BIG.content(), config=SMALL.content())
    second = image(b"once", config=SMALL.content())
    put_manifest(wire, "v1", first)
    put_manifest(wire, "v2", first)
    put_manifest(wire, "v1", second)
    put_manifest(wire, "v1", second)
    about = image(config=b"", subject=descriptor(first, OCI_MANIFEST))
    put_manifest(wire, Digest.of(about), about)
    both = index(first, second)
    put_manifest(wire, f"{Digest.of(both)}?tag=v2&tag=v3", both)
    wire.expect(202, "DELETE", "/v2/it/a/manifests/v3")
    put_manifest(wire, "v3", first)


class FreshWire(Wire):
    """A new connection for each request: any of the workers may get it."""

    def call(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        return super().call(method, path, body, {**(headers or {}), "Connection": "close"})


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two workers"])
def traced(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Push:
    strace = strace_or_skip()
    folder = tmp_path_factory.mktemp("traced")
    root, trace, port = folder / "storage", folder / "trace", free_port()
    root.mkdir()
    settings = {
        "REGISTRY_HTTP_ADDR": f"127.0.0.1:{port}",
        "REGISTRY_HTTP_SECRET": "traced",
        "REGISTRY_HTTP_WORKERS": str(request.param),
        "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": str(root),
        "REGISTRY_STORAGE_MAINTENANCE_UPLOADPURGING_ENABLED": "false",
        "REGISTRY_ALAUDA_AUTH_MODE": "none",
    }
    command = [strace, "-f", "-y", "-s", "200", "-e", f"trace={TRACED}", "-o", str(trace)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, sys.executable, "-m", "registry", "serve"],
            cwd=PROJECT,
            env={**clean_environment(), **settings},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        wait_until_ready(process, port)
        with FreshWire(port) as wire:
            push(wire)
    finally:
        stop(process)
    calls = parse(trace.read_text(errors="replace").splitlines())
    about = [
        call for call in calls if str(root) in call.arguments or call.file.startswith("socket:")
    ]
    return Push(about, str(root))


def test_nothing_that_is_answered_for_can_be_lost_with_the_power(traced: Push) -> None:
    judgement = judge(traced.calls, traced.root)
    assert judgement.faults == []
    assert judgement.renames >= 20
    assert judgement.answers >= 20


def test_a_known_blob_is_made_durable_before_it_is_linked_again(traced: Push) -> None:
    """Another process may have renamed it a moment ago, and be killed before the folder's sync."""
    folder = f"{traced.root}/docker/registry/v2/blobs/sha256/{BIG.digest.hex[:2]}/{BIG.digest.hex}"
    for name in ("it/b", "it/c"):
        link = f"repositories/{name}/_layers/sha256/{BIG.digest.hex}/link"
        linked = next(
            call for call in traced.calls if call.name == "rename" and call.texts[1].endswith(link)
        )
        begun = max(
            call.ended
            for call in traced.calls
            if call.ended < linked.begun
            and call.file.startswith("socket:")
            and call.texts
            and call.texts[0].startswith(("POST /v2/", "PUT /v2/"))
        )
        synced = {
            call.file
            for call in traced.calls
            if call.name == "fsync" and begun < call.begun and call.ended < linked.begun
        }
        assert {folder, f"{folder}/data"} <= synced


def next_answer(push: Push, rename: Call) -> Call:
    return next(
        call
        for call in push.calls
        if call.begun > rename.ended and call.file.startswith("socket:")
        if call.texts and call.texts[0].startswith("HTTP/1.1 2")
    )


def syncs(push: Push, path: str, after: int, before: int) -> list[Call]:
    """Those of a file or folder, and of what is in it, between two lines."""
    return [
        call
        for call in push.calls
        if call.name == "fsync" and after < call.begun and call.ended < before
        if call.file == path or call.file.startswith(f"{path}/")
    ]


def test_the_real_trace_with_any_needed_sync_taken_out_is_found_out(traced: Push) -> None:
    def fault(without: list[Call], *, answer: Call | None = None, at: int = 0) -> str:
        calls = [call for call in traced.calls if call not in without and call is not answer]
        if answer is not None:
            calls.append(replace(answer, begun=at, ended=at))
            calls.sort(key=lambda call: call.ended)
        return " ".join(judge(calls, traced.root).faults)

    renames = [
        call
        for call in traced.calls
        if call.name == "rename" and call.texts[1].startswith(traced.root)
        if "/.del-" not in call.texts[1]
    ]
    assert renames
    for rename in renames:
        source, target = rename.texts
        answer = next_answer(traced, rename)
        of_the_file = syncs(traced, source, 0, rename.begun)
        of_the_folder = syncs(traced, os.path.dirname(target), rename.ended, answer.begun)
        assert of_the_file and of_the_folder
        assert "is not synced" in fault(of_the_file), rename
        assert "is answered before the name" in fault(of_the_folder), rename
        too_early = fault([], answer=answer, at=rename.ended)
        assert "is answered before the name" in too_early, rename
