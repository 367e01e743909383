"""Runs the OCI distribution-spec conformance suite against this registry, twice.

First one server process, then two over one storage with a proxy that switches between them at every
request. Any failure, error or skip is a failure of the run: nothing is excused. Closing line:
`N passed, N failed`.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.proxy import running_proxy
from tests.e2e.server import ServerError, assert_no_traceback, clean_environment, running_server

RUN_SECONDS = 600
# A registry that passes is asked more than this; fewer means that a part of the suite was left out.
LEAST_TESTS = 980
# Off by default in the suite, and promised by us. OCI_DATA_SPARSE stays off: it wants manifests
# accepted whose layers are missing, which the specification leaves to the registry; ours refuses.
SWITCHES = {
    "OCI_API_BLOBS_UPLOAD_CANCEL": "true",
    "OCI_API_BLOBS_DIGEST_HEADER": "true",
    "OCI_API_MANIFESTS_DIGEST_HEADER": "true",
    "OCI_API_MANIFESTS_TAG_PARAM": "true",
    "OCI_DATA_SPARSE": "false",
}


@dataclass(frozen=True, slots=True)
class Result:
    """What the suite's junit.xml says of one run. `faults`: failures, errors and skips."""

    tests: int
    faults: int
    reasons: tuple[str, ...]


def broken(reason: str) -> Result:
    """A run that did not get as far as a report."""
    return Result(1, 1, (reason,))


def read_result(report: Path) -> Result:
    """The totals of the root element, which counts groups too, and the reasons of the cases."""
    root = ET.parse(report).getroot()
    totals = {name: int(root.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")}
    reasons = tuple(
        f"{case.get('status')}: {case.get('name')}: {(case.findtext('system-out') or '').strip()}"
        for case in root.iter("testcase")
        if case.get("status") != "passed"
    )
    faults = totals["failures"] + totals["errors"] + totals["skipped"]
    return Result(totals["tests"], max(faults, len(reasons)), reasons)


async def run_suite(program: str, port: int, results: Path) -> Result:
    """One run of the suite. Its output is shown only where it left no report."""
    environment = {
        **{k: v for k, v in clean_environment().items() if not k.startswith("OCI_")},
        **SWITCHES,
        "OCI_REGISTRY": f"127.0.0.1:{port}",
        "OCI_TLS": "disabled",
        "OCI_REPO1": "conformance/one",
        "OCI_REPO2": "conformance/two",
        "OCI_VERSION": "1.1",
        "OCI_RESULTS_DIR": str(results),
    }
    process = await asyncio.create_subprocess_exec(
        program,
        cwd=results,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(RUN_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        output, _ = await process.communicate()
        return broken(f"the suite ran longer than {RUN_SECONDS} s")
    report = results / "junit.xml"
    if not report.exists():
        print(output.decode(errors="replace"))
        return broken(f"the suite ended with status {process.returncode} and left no report")
    result = read_result(report)
    if result.tests < LEAST_TESTS:
        return broken(f"only {result.tests} tests were run: is an API switched off?")
    if process.returncode != 0 and not result.faults:
        return broken(f"the suite ended with status {process.returncode} and reported no failure")
    return result


async def run_against(program: str, processes: int, folder: Path) -> Result:
    """Starts the servers, with a proxy where there are several, and runs the suite."""
    secret = secrets.token_hex(16)
    results = folder / "results"
    results.mkdir(parents=True)
    logs = [folder / f"server-{number}.log" for number in range(processes)]
    with ExitStack() as servers:
        ports = [
            servers.enter_context(
                running_server(storage=folder / "storage", log=log, secret=secret)
            ).port
            for log in logs
        ]
        if processes == 1:
            result = await run_suite(program, ports[0], results)
        else:
            async with running_proxy([("127.0.0.1", port) for port in ports]) as (_, port):
                result = await run_suite(program, port, results)
    for log in logs:
        assert_no_traceback(log)
    return result


def main() -> int:
    program = shutil.which("conformance")
    if program is None:
        print("the conformance suite is missing; `make conformance` builds it (needs Go)")
        return 1
    passed = failed = 0
    for title, processes in (("one process", 1), ("two processes, switched", 2)):
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
            try:
                result = asyncio.run(run_against(program, processes, Path(folder)))
            except ServerError as error:
                result = broken(str(error))
        for reason in result.reasons:
            print(f"  {reason}")
        seconds = time.monotonic() - started
        print(f"{title}: {result.tests} tests, {result.faults} faults, {seconds:.1f} s")
        passed += result.tests - result.faults
        failed += result.faults
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
