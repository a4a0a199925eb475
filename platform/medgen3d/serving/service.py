"""A service: the store, the files, the tokens, the engine and a runner, put together from one configuration."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from medgen3d.config.experiment import ServingConfig
from medgen3d.serving.errors import QueueFullError
from medgen3d.serving.execution.engine import Engine
from medgen3d.serving.execution.runner import Runner
from medgen3d.serving.files import JobFiles
from medgen3d.serving.metrics import Metrics
from medgen3d.serving.queue.database import Database, sqlite_url
from medgen3d.serving.queue.job_store import JobStore
from medgen3d.serving.queue.leases import Leases
from medgen3d.serving.queue.rate_limit import RateLimiter
from medgen3d.serving.security.audit import AuditLog
from medgen3d.serving.security.tokens import TOKENS, TokenStore

AUDIT = "audit.jsonl"
_CHECKS_AT_A_TIME = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """What the HTTP endpoints use.

    checks: Lets few masks be checked at a time, which bounds the memory that they take.
    held_connections: Those that are held open for a job.
    """

    settings: ServingConfig
    engine: Engine
    database: Database
    store: JobStore
    rate_limiter: RateLimiter
    files: JobFiles
    tokens: TokenStore
    audit: AuditLog
    runner: Runner
    metrics: Metrics
    held_connections: "HeldConnections"
    checks: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_CHECKS_AT_A_TIME))


class HeldConnections:
    """Bounds the connections that are held open for a job. most: How many there may be."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0

    def refuse_too_many(self) -> None:
        """Before one more is held.

        Raises:
            QueueFullError: There are too many.
        """
        if self._held >= self._most:
            raise QueueFullError(f"{self._held} clients wait for their jobs, and no more may. Ask for the state.", 5.0)

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold one more."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1


def open_service(settings: ServingConfig, folder: Path, engine: Engine) -> Service:
    """Open a service's folder and database, or make them; nothing runs until the app starts.

    Args:
        settings: Limits and places.
        folder: `ExperimentConfig.serving_dir`; every process and machine of the service must see it.
        engine: What draws.

    Raises:
        ConfigError: The database cannot be opened.
    """
    files = JobFiles(folder)
    database = Database(settings.database_url or sqlite_url(files.root / "jobs.db"))
    leases = Leases(database, lease_s=settings.lease_s, max_attempts=settings.max_attempts)
    store = JobStore(database, max_queued=settings.max_queued, jobs_per_owner=settings.jobs_per_owner)
    metrics = Metrics(store.counts)
    runner = Runner(
        leases,
        engine,
        files,
        max_running=settings.max_running,
        keep_results_s=settings.keep_results_h * 3600,
        ended=metrics.job_ended,
    )
    return Service(
        settings=settings,
        engine=engine,
        database=database,
        store=store,
        rate_limiter=RateLimiter(database, per_minute=settings.requests_per_minute, burst=settings.request_burst),
        files=files,
        tokens=TokenStore(files.root / TOKENS),
        audit=AuditLog(files.root / AUDIT),
        runner=runner,
        metrics=metrics,
        held_connections=HeldConnections(settings.max_streams),
    )
