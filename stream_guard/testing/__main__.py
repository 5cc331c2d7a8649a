"""``python -m stream_guard.testing``: a Kafka broker for the tests of other programs, in any language.

The address is the only line on standard output, so that a script can read it. All else is on standard error.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from typing import TYPE_CHECKING, NoReturn

from stream_guard.core.errors import BrokerError
from stream_guard.testing.broker import start_broker

if TYPE_CHECKING:
    from collections.abc import Sequence

_TURN_S = 1.0
_DESCRIPTION = """\
Start a real Kafka broker on this machine, print its address, and run until Ctrl-C or SIGTERM.
Its data is removed at the end. Do not use it in production.

The address is the only line on standard output. It is printed when the broker and its topics are ready.
"""
_EPILOG = """\
examples:
  python -m stream_guard.testing --topic posts --topic stream-guard.verdicts --topic stream-guard.dead-letters
  python -m stream_guard.testing --brokers 3 --topic posts --partitions 6

environment:
  KAFKA_BOOTSTRAP_SERVERS   a broker that already runs; it is used and left running, and no other is started
  BROKER                    embedded (a Java process, the default) or docker

exit codes: 0 stopped by a signal, 2 wrong usage, 3 the broker did not start or refused a topic
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m stream_guard.testing",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        *("--brokers", "-b"),
        type=int,
        choices=(1, 2, 3),
        default=1,
        help="brokers in the cluster (default 1); topics have as many replicas",
    )
    parser.add_argument(
        *("--topic", "-t"),
        action="append",
        default=[],
        metavar="NAME",
        dest="topics",
        help="create this topic; repeat for more (default: none)",
    )
    parser.add_argument(
        *("--partitions", "-p"),
        type=_positive,
        default=1,
        metavar="N",
        help="partitions of each topic (default 1)",
    )
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with start_broker(options.brokers, progress=_report) as broker:
            if options.topics:
                broker.create_topics(*options.topics, partitions=options.partitions)
            _report(broker.description)
            sys.stdout.write(f"{broker.bootstrap_servers}\n")
            sys.stdout.flush()
            # Not signal.pause(): a signal that comes just before it would be missed.
            while True:
                time.sleep(_TURN_S)
    except KeyboardInterrupt:
        return 0
    except BrokerError as error:
        _report(str(error))
        return error.exit_code


def _report(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _positive(text: str) -> int:
    """Return a count of 1 or more. Raises ValueError: it is none."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
