"""The review database on a real PostgreSQL: the same answers as on SQLite, and leases that nobody shares."""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stream_guard.offline.improve.rulings import rulings_of_review
from stream_guard.offline.review.projection import Projection
from stream_guard.offline.review.queue import Person, ReviewQueue
from stream_guard.offline.review.store import Store
from tests.unit.offline.review.test_projection import history, interleaved, share_out
from tests.unit.offline.review.topics import KAFKA, NOW_MS, Topics, apply

if TYPE_CHECKING:
    from collections.abc import Iterator

REVIEWERS = 100


def programs(folder: Path) -> Path:
    """Return the folder of PostgreSQL's programs: those of the system, else a copy of the wheel's in a folder."""
    found = shutil.which("initdb")
    places = [Path(found).resolve()] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    if places:
        return places[0].parent
    wheel = importlib.util.find_spec("pgserver")
    if wheel is None or wheel.origin is None:
        pytest.fail(
            "PostgreSQL is not installed, and this test needs it: apt-get install postgresql"
        )
    # A copy, because another user runs them, who may not read the virtual environment.
    copy = folder / "postgresql"
    shutil.copytree(Path(wheel.origin).parent / "pginstall", copy, symlinks=True)
    copy.chmod(0o755)
    return copy / "bin"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server that listens on a socket in a folder of its own; the URL of its database."""
    folder = Path(tempfile.mkdtemp(prefix="review-pg-"))
    binaries = programs(folder)
    owner = "nobody" if os.geteuid() == 0 else None  # the server refuses to run as root
    if owner is not None:
        shutil.chown(folder, owner)

    def run(*words: str) -> None:
        done = subprocess.run(
            words, user=owner, cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr + done.stdout

    data = str(folder / "data")
    run(str(binaries / "initdb"), "-D", data, "-U", "guard", "--auth=trust", "--no-sync")
    options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
    control = str(binaries / "pg_ctl")
    run(control, "-D", data, "-l", str(folder / "log"), "-w", "-o", options, "start")
    try:
        yield f"postgresql://guard@/postgres?host={folder}"
    finally:
        run(control, "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder)


@pytest.fixture
def store(server: str) -> Iterator[Store]:
    made = Store(server)
    made.forget()
    yield made
    made.close()


def answers(store: Store) -> dict[str, Any]:
    """What the queue says of a database, by the question."""
    queue = ReviewQueue(store)
    return {
        "reviewed": queue.reviewed(),
        "rulings": rulings_of_review(queue, "spam"),
        "sampled": queue.sampled(),
        "listed": [queue.listed(state=state, limit=100) for state in ("open", "decided")],
        "counts": queue.counts(),
    }


@pytest.mark.parametrize("seed", range(3))
def test_it_says_what_sqlite_says_also_when_it_is_rebuilt(
    seed: int, store: Store, tmp_path: Path
) -> None:
    topics, dice = history(seed), random.Random(seed)  # noqa: S311 - seeded, no secret
    beside = Store(str(tmp_path / "review.sqlite"))
    for one in (store, beside):
        records = interleaved(topics, dice)
        while records:
            count = dice.randint(1, 20)
            batch, records = records[:count], records[count:]
            apply(Projection(one, KAFKA), batch)
    expected, said = Projection(beside, KAFKA).dump(), answers(beside)
    beside.close()
    assert {item["deleted"] for item, _ in said["reviewed"]} == {True, False}
    assert answers(store) == said
    assert Projection(store, KAFKA).dump() == expected
    store.forget()
    apply(Projection(store, KAFKA), topics.records)
    assert Projection(store, KAFKA).dump() == expected


def test_a_hundred_reviewers_never_share_an_item(store: Store) -> None:
    topics = Topics()
    names = {topics.item(offset) for offset in range(150)}
    apply(Projection(store, KAFKA), topics.records)
    leased = share_out(ReviewQueue(store), reviewers=REVIEWERS, each=2)
    assert len(leased) == len(set(leased))
    assert set(leased) <= names
    # Rows that others lock are left out, so somebody may go away with nothing; nothing is lost.
    queue = ReviewQueue(store)
    while (lease := queue.claim(Person("late"), NOW_MS)) is not None:
        leased.append(lease.item_id)
    assert sorted(leased) == sorted(names)
