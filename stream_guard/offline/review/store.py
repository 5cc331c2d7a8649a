"""The projection's database: its tables, and transactions that see one another whole.

SQLite or PostgreSQL, by URL. Times are Unix time in ms. The extra ``review`` installs SQLAlchemy.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from stream_guard.core.errors import DatabaseError, SettingsError

try:
    from sqlalchemy import (
        BigInteger,
        Column,
        Float,
        Index,
        Integer,
        MetaData,
        Table,
        Text,
        create_engine,
        event,
        text,
    )
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import (
        ArgumentError,
        DataError,
        DBAPIError,
        IntegrityError,
        NoSuchModuleError,
        NotSupportedError,
        ProgrammingError,
    )
    from sqlalchemy.exc import TimeoutError as PoolTimeoutError
except ImportError as error:
    _MESSAGE = (
        f"the package {error.name!r} is missing, which review needs; "
        "run: pip install 'stream-guard[review]'"
    )
    raise SettingsError(_MESSAGE) from error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

__all__ = [
    "PROJECTED",
    "Store",
    "audit",
    "changes",
    "decisions",
    "escalations",
    "items",
    "positions",
]

_BUSY_S: Final = 30
_METADATA: Final = MetaData()

items: Final = Table(
    "review_items",
    _METADATA,
    Column("id", Text, primary_key=True),
    Column("place_partition", Integer, nullable=False),
    Column("place_offset", BigInteger, nullable=False),
    Column("verdict_id", Text, nullable=False, index=True),
    Column("subject", Text, nullable=False, index=True),
    Column("policy_id", Text, nullable=False),
    Column("source_topic", Text, nullable=False),
    Column("source_partition", Integer, nullable=False),
    Column("source_offset", BigInteger, nullable=False),
    Column("source_key", Text, index=True),
    Column("content_id", Text, nullable=False, index=True),
    Column("content_sha256", Text, nullable=False),
    Column("rank", Float, nullable=False),
    Column("reviews", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("text", Text),
    # Of this database alone: no topic has leases.
    Column("lease_reviewer", Text),
    Column("lease_token", Text),
    Column("lease_until", BigInteger),
)
Index("review_items_queue", items.c.state, items.c.rank)

decisions: Final = Table(
    "review_decisions",
    _METADATA,
    Column("id", Text, primary_key=True),
    Column("decided_at", BigInteger, nullable=False),
    Column("place_partition", Integer, nullable=False),
    Column("place_offset", BigInteger, nullable=False),
    Column("verdict_id", Text, index=True),
    Column("subject", Text, nullable=False, index=True),
    Column("content_sha256", Text),
    Column("reviewer", Text, nullable=False),
    Column("body", Text, nullable=False),
)

changes: Final = Table(
    "review_changes",
    _METADATA,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("verdict_id", Text, index=True),
    Column("source_topic", Text, nullable=False),
    Column("source_partition", Integer, nullable=False),
    Column("source_offset", BigInteger, nullable=False),
    Column("content_id", Text, index=True),
    Column("source_key", Text, index=True),
)

positions: Final = Table(
    "review_positions",
    _METADATA,
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("position", BigInteger, nullable=False),
)

audit: Final = Table(
    "review_audit",
    _METADATA,
    Column("n", Integer, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("who", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("item_id", Text),
)
_WORK_OF_A_PERSON: Final = Index("review_audit_who", audit.c.who, audit.c.at)

escalations: Final = Table(
    "review_escalations",
    _METADATA,
    # Of this database alone, as leases are.
    Column("item_id", Text, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("who", Text, nullable=False),
    Column("reason", Text),
)

PROJECTED: Final = (items, decisions, changes, positions)
"""The tables that the topics can rebuild; the audit trail and escalations are not among them."""


class Store:
    """A database; safe to use from several threads and processes.

    Args:
        url: ``sqlite:///FILE`` or ``postgresql+psycopg://...``. A path alone is a file of SQLite.

    Raises:
        SettingsError: the URL is wrong, or the database cannot be opened.
    """

    def __init__(self, url: str) -> None:
        if "://" not in url:
            url = f"sqlite:///{url}"
        elif url.startswith("postgresql://"):
            url = url.replace("postgresql://", "postgresql+psycopg://", 1)
        try:
            self._engine = _open(url)
            with self._engine.begin() as connection:
                _METADATA.create_all(connection)
                # Databases of earlier versions have the table, and not the index.
                _WORK_OF_A_PERSON.create(connection, checkfirst=True)
        except (ArgumentError, NoSuchModuleError, ImportError) as error:
            message = f"--database: not a database that can be opened ({error}); use a file, or postgresql://..."
            raise SettingsError(message) from error
        except DBAPIError as error:
            cause = str(error.orig).splitlines()[0] if error.orig else type(error).__name__
            message = f"--database: cannot be opened: {cause}; check the path or the server"
            raise SettingsError(message) from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Run a block in one transaction: it is committed whole, or not at all.

        Raises:
            DatabaseError: the database cannot be used.
        """
        try:
            with self._engine.begin() as connection:
                yield connection
        except PoolTimeoutError as error:
            message = "review.database: cannot be used: no connection became free"
            raise DatabaseError(message) from error
        except (DataError, IntegrityError, NotSupportedError, ProgrammingError):
            raise  # a bug of ours
        except (
            DBAPIError
        ) as error:  # also a file that is no database any more, which has no class of its own
            cause = str(error.orig).splitlines()[0] if error.orig else type(error).__name__
            message = f"review.database: cannot be used: {cause}"
            raise DatabaseError(message) from error

    @contextlib.contextmanager
    def projecting(self) -> Iterator[Connection]:
        """Run a block in one transaction, in which nobody else projects."""
        with self.transaction() as connection:
            if connection.dialect.name == "postgresql":  # SQLite has one writer anyway
                connection.execute(text("LOCK TABLE review_positions IN EXCLUSIVE MODE"))
            yield connection

    def forget(self) -> None:
        """Drop what the topics can rebuild, and the leases."""
        with self.projecting() as connection:
            for table in PROJECTED:
                connection.execute(table.delete())

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()


def _open(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        message = f"--database: {parsed.get_backend_name()} is not supported; use a file, or postgresql://..."
        raise SettingsError(message)
    if parsed.get_backend_name() == "postgresql":
        return create_engine(parsed, pool_pre_ping=True)
    engine = create_engine(parsed, connect_args={"timeout": _BUSY_S})

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: Any) -> None:  # noqa: ANN401 - the driver's own
        # The driver would begin transactions late, so that two readers could both believe to be the writer.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
