"""An archive of Kafka's classes as Java has parsed them, made once: brokers then start in half the time.

Java calls it class data sharing. The wheel's Java has no archive, so each start would parse 11,000 classes again.
Java itself ignores an archive that does not fit (another Java, other jars, a damaged file). If the archive cannot be
made, brokers start without it.
"""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stream_guard.core.errors import BrokerError
from stream_guard.testing.broker.java import locked
from stream_guard.testing.broker.node import JVM, Node, Peer, new_cluster_id
from stream_guard.testing.broker.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_TRAINING_S: Final = 60.0


def class_archive(
    java: Path, jars: Sequence[Path], directory: Path, *, progress: Callable[[str], None]
) -> tuple[str, ...]:
    """Return the options with which Java uses the archive; make the archive first if it is missing.

    Args:
        java: the program.
        jars: the class path, in its order.
        directory: where the archive is kept.
        progress: called with one line when the archive is made.

    Returns:
        The options; none if the archive could not be made. There is no second attempt.
    """
    file = directory / f"classes-{_identity(java, jars)}.jsa"
    with locked(directory / "lock"):
        if not file.exists():
            progress("preparing Kafka's classes for quick starts (once)")
            with tempfile.TemporaryDirectory(prefix="stream-guard-kafka-") as scratch:
                made = Path(scratch) / "classes.jsa"
                with contextlib.suppress(BrokerError, OSError, subprocess.SubprocessError):
                    _make(java, jars, Path(scratch), made)
                content = made.read_bytes() if made.exists() else b""
            partial = file.with_suffix(".partial")
            partial.write_bytes(content)
            partial.replace(file)
    return (f"-XX:SharedArchiveFile={file}",) if file.stat().st_size else ()


def _identity(java: Path, jars: Sequence[Path]) -> str:
    """Return a name for this Java and these jars."""
    release = java.resolve().parent.parent / "release"
    about = release.read_bytes() if release.is_file() else str(java).encode()
    about += "\n".join(map(str, jars)).encode()
    return hashlib.sha256(about).hexdigest()[:12]


def _make(java: Path, jars: Sequence[Path], scratch: Path, archive: Path) -> None:
    """Start a broker to see which classes it loads, then have Java write those down, parsed."""
    classes = scratch / "classes.lst"
    broker_port, controller_port = free_ports(2)
    peer = Peer(1, broker_port, controller_port)
    options = (f"-XX:DumpLoadedClassList={classes}",)
    node = Node(peer, [peer], scratch, java=java, jars=jars, options=options)
    try:
        node.start(new_cluster_id())
        node.wait_started(time.monotonic() + _TRAINING_S)
        node.stop()
    finally:
        node.kill()
    subprocess.run(  # noqa: S603 - our own Java
        [
            *(str(java), *JVM, "-Xshare:dump"),
            *(f"-XX:SharedClassListFile={classes}", f"-XX:SharedArchiveFile={archive}"),
            *("-cp", ":".join(map(str, jars))),
        ],
        check=True,
        capture_output=True,
        timeout=_TRAINING_S,
    )
