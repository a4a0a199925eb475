"""The database of the service: a table of jobs and one of token buckets, in SQLite or PostgreSQL, through SQLAlchemy.

Times are seconds since 1970 by the database's clock, so that machines whose clocks differ agree on leases. SQLite has
no clock of its own; there all processes are on one machine, whose clock it is.
"""

import time
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    text,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.types import BigInteger

from medgen3d.core.errors import ConfigError

_BUSY_TIMEOUT_S = 30
_READS = "medgen3d_reads"

metadata = MetaData()
_Number = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up INTEGER keys only

jobs = Table(
    "jobs",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=True),  # place in the queue
    Column("id", String(32), nullable=False, unique=True),
    Column("owner", String(200), nullable=False),
    Column("idempotency_key", String(200)),
    Column("digest", String(64), nullable=False),  # of request and mask: what an idempotency key stands for
    Column("request", JSON, nullable=False),
    Column("pipeline", String(200), nullable=False),
    Column("mask_digest", String(64)),
    Column("num_pairs", Integer, nullable=False),
    Column("state", String(10), nullable=False),
    Column("created", Float, nullable=False),
    Column("started", Float),
    Column("ended", Float),
    Column("attempts", Integer, nullable=False, default=0),  # the number of the live attempt fences older ones off
    Column("spared", Integer, nullable=False, default=0),  # attempts that do not count as failed ones
    Column("runner", String(100)),
    Column("lease_until", Float),
    Column("not_before", Float, nullable=False, default=0.0),
    Column("progress", JSON, nullable=False, default=list),
    Column("error", Text, nullable=False, default=""),
    Column("result_bytes", _Number),
    UniqueConstraint("owner", "idempotency_key", name="one_job_per_key"),
    Index("jobs_by_state", "state", "number"),
    Index("jobs_by_owner", "owner", "number"),
    sqlite_autoincrement=True,  # a place is never given twice, whatever was deleted
)

token_buckets = Table(
    "allowances",
    metadata,
    Column("owner", String(200), primary_key=True),
    Column("tokens", Float, nullable=False),
    Column("at", Float, nullable=False),
)


class Database:
    """A database that has the tables. Its transactions serve any number of threads and processes.

    Args:
        url: SQLAlchemy address, `sqlite:////absolute/file.db` or `postgresql+psycopg://...`.

    Raises:
        ConfigError: It cannot be opened.
    """

    def __init__(self, url: str) -> None:
        self.is_sqlite = url.startswith("sqlite")
        options: dict[str, Any] = {"connect_args": {"timeout": _BUSY_TIMEOUT_S}} if self.is_sqlite else {}
        try:
            self._engine = create_engine(url, pool_pre_ping=not self.is_sqlite, **options)
            if self.is_sqlite:
                _one_writer(self._engine)
            with self.writing() as connection:
                if not self.is_sqlite:  # several replicas may begin at once
                    connection.execute(text("SELECT pg_advisory_xact_lock(7239108)"))
                metadata.create_all(connection)
        except (SQLAlchemyError, ModuleNotFoundError) as error:
            shown = self._engine.url.render_as_string(hide_password=True) if hasattr(self, "_engine") else "the address"
            reason = " ".join(str(error).split())[:300]
            raise ConfigError(
                f"serving.database_url: {shown} cannot be opened ({reason}). Start the database, correct the address, "
                "or for PostgreSQL install medgen3d[postgres]."
            ) from error

    def writing(self) -> Any:
        """A transaction that may write, as a context manager that yields its connection."""
        return self._engine.begin()

    def reading(self) -> Any:
        """A transaction that only reads, and so waits for nobody."""
        return self._engine.execution_options(**{_READS: True}).begin()

    def now(self, connection: Connection) -> float:
        """Seconds since 1970."""
        if self.is_sqlite:
            return time.time()
        return float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())

    def lock(self, connection: Connection, what: int) -> None:
        """Let one transaction at a time pass; on SQLite every writing transaction is alone already."""
        if not self.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(7239108, :what)"), {"what": what})

    def close(self) -> None:
        """Close the pooled connections."""
        self._engine.dispose()


def sqlite_url(path: Path) -> str:
    """The address of a SQLite file, which only its owner may read; it is made if it is missing."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    return f"sqlite:///{path.absolute()}"


def _one_writer(engine: Engine) -> None:
    """WAL, so that readers and the writer do not wait for one another, and one writer at a time from its beginning.

    A transaction that reads first and writes later can find, at its first write, that another process wrote in
    between; SQLite then refuses it whatever the timeout. BEGIN IMMEDIATE waits at the beginning instead.
    """

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # Python's sqlite3 begins no transactions by itself
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")  # what was accepted survives a power failure
        connection.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_S * 1000}")

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        reads = connection.get_execution_options().get(_READS, False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
