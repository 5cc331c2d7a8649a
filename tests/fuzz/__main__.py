"""``python -m tests.fuzz``: broken bytes to every parser for some time, with progress; exit 1 where one fails."""

from __future__ import annotations

import argparse
import sys
import time
import traceback

from tests.fuzz.run import CORPUS, rounds
from tests.fuzz.targets import targets


def main() -> int:
    """Run; return the exit code."""
    known = {target.name: target for target in targets()}
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each parser (default: 60)")
    parser.add_argument(
        "--first", type=int, default=0, help="number of the first round (default: 0)"
    )
    parser.add_argument("only", nargs="*", metavar="PARSER", help=f"of: {', '.join(known)}")
    arguments = parser.parse_args()
    unknown = set(arguments.only) - set(known)
    if unknown:
        parser.error(f"no parser {min(unknown)!r}; use one of: {', '.join(known)}")
    failed = []
    for name in arguments.only or known:
        tried, begun_s = 0, time.monotonic()
        try:
            for _, count in rounds(known[name], arguments.seconds, arguments.first):
                tried += count
        except Exception:  # noqa: BLE001 - whatever a parser must not raise is the finding
            traceback.print_exc()
            failed.append(name)
        outcome = f"a finding, kept in {CORPUS / name}" if name in failed else "no finding"
        sys.stdout.write(
            f"{name}: {tried:,} inputs in {time.monotonic() - begun_s:.0f} s, {outcome}\n"
        )
        sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
