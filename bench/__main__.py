"""This registry beside others, in one run: `compare` (also without a word) and `memory`."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from functools import partial

from bench import memory, targets
from bench.compare import compare
from bench.content import MIB
from bench.peers import OURS, Distribution, Given, Ours, PeerFailed, Recipe, make_certificate
from bench.report import Units, tables, target_lines
from bench.results import Results
from bench.subject import FULL, QUICK
from bench.workloads import UnknownWorkload, select


class Unusable(Exception):
    """The run cannot begin as asked for."""


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_args(words or ["compare"])
    # The registries are ended on SIGTERM as they are on ^C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        clean: bool = options.run(options)
    except (Unusable, UnknownWorkload, PeerFailed, memory.DiskTooSmall) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    return 0 if clean else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="compare | memory")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--quick", action="store_true", help="small sizes, one round: does it run at all?"
    )
    shared.add_argument(
        "--data", default="data/bench", help="folder on the disk to measure (%(default)s)"
    )
    shared.add_argument("--python", default=sys.executable, help="interpreter that runs ours")
    shared.add_argument(
        "--dist3", default="registry-v3", metavar="PATH", help="distribution v3 (%(default)s)"
    )
    shared.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="another registry; {port} {root} {cert} {key} are filled in; may be repeated",
    )
    shared.add_argument("--json", metavar="FILE", help="write every single result there")

    one = commands.add_parser(
        "compare", parents=[shared], help="speed, CPU, memory: medians and ratios"
    )
    one.add_argument(
        "--peers", default="dist3,dist2,ours", help="of dist3, dist2, ours (%(default)s)"
    )
    one.add_argument(
        "--base", help="the peer that ratios are to (the first of dist3, dist2 that is there)"
    )
    one.add_argument("--workload", default="", help="names, joined by commas (all)")
    one.add_argument("--rounds", type=int, help="of each workload on each registry (3; quick: 1)")
    one.add_argument("--tls", action="store_true", help="everything over https")
    one.set_defaults(run=_compare)

    two = commands.add_parser(
        "memory", parents=[shared], help="PSS under many transfers and connections"
    )
    two.add_argument("--peers", default=OURS, help="of dist3, dist2, ours (%(default)s)")
    two.add_argument("--clients", type=int, default=50, help="transfers at once (%(default)s)")
    two.add_argument("--size-mib", type=int, default=1024, help="of each transfer (%(default)s)")
    two.add_argument("--small", type=int, default=10_000, help="small pushes (%(default)s)")
    two.add_argument("--schemes", default="plain,tls", help="plain, tls or both (%(default)s)")
    two.set_defaults(run=_memory)
    return parser


def _recipes(options: argparse.Namespace) -> list[Recipe]:
    """The registries that can be run; what is missing is said. Raises Unusable if ours is."""
    known: dict[str, Recipe] = {
        "dist3": Distribution("dist3", options.dist3),
        "dist2": Distribution("dist2", "docker-registry"),
        OURS: Ours(options.python),
    }
    wanted = []
    for name in options.peers.split(","):
        if name not in known:
            raise Unusable(f"no peer {name}: there are {', '.join(known)}, and --peer NAME=COMMAND")
        wanted.append(known[name])
    for text in options.peer:
        name, equals, command = text.partition("=")
        if not equals or not name.isidentifier() or name in known:
            raise Unusable(f"--peer {text}: give NAME=COMMAND with a new name")
        wanted.append(Given(name, command))
    usable = []
    for recipe in wanted:
        if (reason := recipe.missing()) is None:
            usable.append(recipe)
        elif recipe.name == OURS:
            raise Unusable(f"ours: {reason}")
        else:
            print(f"{recipe.name} is left out: {reason}", flush=True)
    if not usable:
        raise Unusable("no registry is left to measure")
    return usable


def _say(scheme: str, line: str) -> None:
    print(f"{scheme}, {line}", flush=True)


def _compare(options: argparse.Namespace) -> bool:
    if shutil.which("wrk") is None:
        raise Unusable("the command wrk is needed (apt-get install wrk)")
    sizes = QUICK if options.quick else FULL
    names = [name for name in options.workload.split(",") if name]
    workloads = select(sizes, names, tls=options.tls)
    recipes = _recipes(options)
    peers = [recipe.name for recipe in recipes]
    base = options.base or next((name for name in ("dist3", "dist2") if name in peers), peers[0])
    if base not in peers:
        raise Unusable(f"the base {base} is not in this run")
    units = {workload.name: (workload.unit, workload.cpu_unit) for workload in workloads}
    scheme, results = "tls" if options.tls else "plain", Results()
    try:
        with _folder(options.data) as folder:
            compare(
                recipes,
                workloads,
                results,
                sizes=sizes,
                rounds=options.rounds or (1 if options.quick else 3),
                folder=folder,
                certificate=make_certificate(folder) if options.tls else None,
                say=partial(_say, scheme),
            )
    finally:
        # A long run that is interrupted has still measured something.
        _print(scheme, results, peers, options, base=base, units=units)
        _write(options.json, {scheme: results})
    return not results.failed(OURS)


def _memory(options: argparse.Namespace) -> bool:
    schemes = options.schemes.split(",")
    if not set(schemes) <= {"plain", "tls"}:
        raise Unusable("--schemes takes plain, tls")
    load = memory.Load(options.clients, options.size_mib * MIB, options.small)
    recipes = _recipes(options)
    peers = [recipe.name for recipe in recipes]
    found = {scheme: Results() for scheme in schemes}
    try:
        for scheme, results in found.items():
            with _folder(options.data) as folder:
                memory.measure(
                    recipes,
                    memory.QUICK_LOAD if options.quick else load,
                    results,
                    folder=folder,
                    certificate=make_certificate(folder) if scheme == "tls" else None,
                    say=partial(_say, scheme),
                )
    finally:
        for scheme, results in found.items():
            _print(scheme, results, peers, options, base=peers[0], units=memory.UNITS)
        _write(options.json, found)
    return not any(results.failed(OURS) for results in found.values())


def _folder(data: str) -> tempfile.TemporaryDirectory[str]:
    os.makedirs(data, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix="run-", dir=os.path.abspath(data))


def _print(
    scheme: str,
    results: Results,
    peers: list[str],
    options: argparse.Namespace,
    *,
    base: str,
    units: Units,
) -> None:
    print(f"\n{scheme}:")
    for line in tables(results, peers, base=base, units=units):
        print(line)
    if OURS in peers:
        found = targets.verdicts(results, peer=OURS, base=base, tls=scheme == "tls")
        for line in target_lines(found, base=base, quick=options.quick):
            print(line)


def _write(path: str | None, runs: dict[str, Results]) -> None:
    if path:
        with open(path, "w") as file:
            json.dump({name: results.document() for name, results in runs.items()}, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    sys.exit(main())
