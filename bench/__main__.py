"""`python -m bench`: measures and prints; needs root, Linux and the distribution's packages."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from bench import image, namespaces, packages, report
from bench.cases import CASES
from bench.measure import BenchError, Results, measure
from bench.stage import PEERS, Stage


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few samples and a small crowd: minutes, not a verdict")
    parser.add_argument("--case", action="append", choices=[case.name for case in CASES], help="only this; repeatable")
    parser.add_argument("--json", type=Path, help="write every sample to this file too")
    parser.add_argument("--peer", action="append", choices=PEERS, help="only this; repeatable")
    return parser.parse_args()


def run(options: argparse.Namespace, work: Path) -> tuple[Results, str]:
    """The samples, and what ran the VMs among them."""
    chosen = [case for case in CASES if not options.case or case.name in options.case]
    with Stage(work, peers=options.peer, quick=options.quick) as stage:
        return measure(chosen, stage, quick=options.quick), stage.emulator()


def main() -> int:
    options = parse()
    if os.geteuid() != 0:
        sys.stderr.write("bench: must run as root: it starts the engines that it measures\n")
        return 1
    try:
        if (work := namespaces.work()) is None:
            packages.install()
            image.make()
            return namespaces.enter()
        namespaces.settle()
        results, emulator = run(options, work)
    except BenchError as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    report.show(results, emulator)
    if options.json:
        options.json.write_bytes(report.encode(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
