"""The job store as clients see it: submit, look, list, cancel. `leases` has the side of those who run the jobs.

A job is one row. Whatever changes it is one transaction, so any number of processes on any number of machines may use a
store, and may die at any moment.
"""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, func, select

from medgen3d.serving.errors import KeyReusedError, OwnerBusyError, QueueFullError, UnknownJobError
from medgen3d.serving.job_states import FINAL, UNFINISHED, JobState
from medgen3d.serving.queue.database import Database, jobs
from medgen3d.serving.queue.eta import estimate, recent_seconds
from medgen3d.serving.queue.fairness import waiting_before
from medgen3d.serving.queue.transitions import move
from medgen3d.serving.schemas import JobRequest, JobStatus, StageProgress

_SUBMISSIONS = 1  # name of the lock that lets one submission at a time count the queue


@dataclass(frozen=True, kw_only=True, slots=True)
class NewJob:
    """What is accepted.

    id: Of `new_id`; the mask, if any, lies in the job's folder already.
    pipeline: Reference of one version.
    digest: SHA-256 of everything that was asked for.
    num_pairs: Pairs to draw.
    """

    id: str
    owner: str
    request: JobRequest
    pipeline: str
    digest: str
    num_pairs: int
    mask_digest: str | None = None
    idempotency_key: str | None = None


def new_id() -> str:
    """A name that nobody guesses: 32 hexadecimal digits."""
    return secrets.token_hex(16)


class JobStore:
    """Jobs in a database.

    Args:
        database: Where.
        max_queued: Jobs that may wait.
        jobs_per_owner: Unfinished jobs that one owner may have.
    """

    def __init__(self, database: Database, *, max_queued: int, jobs_per_owner: int) -> None:
        self.database = database
        self._max_queued = max_queued
        self._jobs_per_owner = jobs_per_owner

    def submit(self, job: NewJob) -> tuple[str, bool]:
        """Accept a job, which from then on survives everything but the loss of the database.

        Returns:
            Its id, and whether it is new: with an idempotency key that this owner used for the same request before,
            the id is that of the first one.

        Raises:
            KeyReusedError: The key stands for another request.
            QueueFullError, OwnerBusyError: Too many jobs are waiting.
        """
        with self.database.writing() as connection:
            self.database.lock(connection, _SUBMISSIONS)
            known = self._known(connection, job)
            if known is not None:
                return known, False
            self._refuse_too_many(connection, job.owner)
            values = {
                "id": job.id,
                "owner": job.owner,
                "idempotency_key": job.idempotency_key,
                "digest": job.digest,
                "request": job.request.model_dump(mode="json"),
                "pipeline": job.pipeline,
                "mask_digest": job.mask_digest,
                "num_pairs": job.num_pairs,
                "state": JobState.QUEUED,
                "created": self.database.now(connection),
            }
            connection.execute(jobs.insert().values(**values))
            return job.id, True

    def status(self, job_id: str, owner: str | None) -> JobStatus:
        """A job as it stands; `owner` None sees everybody's.

        Raises:
            UnknownJobError: There is no such job of this owner.
        """
        with self.database.reading() as connection:
            row = self._row(connection, job_id, owner)
            return self._status(connection, row)

    def list(self, owner: str | None, limit: int = 100) -> list[JobStatus]:
        """The newest jobs of an owner, newest first; `owner` None lists everybody's."""
        query = select(jobs).order_by(jobs.c.number.desc()).limit(limit)
        if owner is not None:
            query = query.where(jobs.c.owner == owner)
        with self.database.reading() as connection:
            return [self._status(connection, row) for row in connection.execute(query).all()]

    def cancel(self, job_id: str, owner: str | None) -> JobStatus:
        """End a job that has not ended; who runs it notices at its next heartbeat. One that has ended stays.

        Raises:
            UnknownJobError: There is no such job of this owner.
        """
        with self.database.writing() as connection:
            row = self._row(connection, job_id, owner)
            if row.state not in FINAL:
                this = jobs.c.number == row.number
                move(connection, this, JobState.CANCELLED, ended=self.database.now(connection), lease_until=None)
                row = self._row(connection, job_id, owner)
            return self._status(connection, row)

    def result_attempt(self, job_id: str, owner: str | None) -> int | None:
        """The attempt whose files are the job's result; None unless it succeeded.

        Raises:
            UnknownJobError: There is no such job of this owner.
        """
        with self.database.reading() as connection:
            row = self._row(connection, job_id, owner)
        return int(row.attempts) if row.state == JobState.SUCCEEDED else None

    def mask_digest(self, job_id: str) -> str | None:
        """SHA-256 of the mask that came with a job."""
        with self.database.reading() as connection:
            return connection.execute(select(jobs.c.mask_digest).where(jobs.c.id == job_id)).scalar_one_or_none()

    def counts(self) -> dict[str, int]:
        """Number of jobs by state; states without one are left out."""
        with self.database.reading() as connection:
            found = connection.execute(select(jobs.c.state, func.count()).group_by(jobs.c.state)).all()
        return {state: int(number) for state, number in found}

    def _known(self, connection: Connection, job: NewJob) -> str | None:
        if job.idempotency_key is None:
            return None
        same = (jobs.c.owner == job.owner) & (jobs.c.idempotency_key == job.idempotency_key)
        row = connection.execute(select(jobs.c.id, jobs.c.digest).where(same)).one_or_none()
        if row is None:
            return None
        if row.digest != job.digest:
            raise KeyReusedError(
                f"the idempotency key {job.idempotency_key!r} was used for another request (job {row.id}). Use a new "
                "key for a new request."
            )
        return str(row.id)

    def _refuse_too_many(self, connection: Connection, owner: str) -> None:
        unfinished = jobs.c.state.in_(UNFINISHED)
        mine = connection.execute(select(func.count()).where(unfinished, jobs.c.owner == owner)).scalar_one()
        if mine >= self._jobs_per_owner:
            raise OwnerBusyError(
                f"{owner} has {mine} unfinished jobs, and at most {self._jobs_per_owner} are allowed. Wait until one "
                "has ended, or cancel one.",
                self._patience(connection),
            )
        queued = connection.execute(select(func.count()).where(jobs.c.state == JobState.QUEUED)).scalar_one()
        if queued >= self._max_queued:
            raise QueueFullError(
                f"{queued} jobs are waiting, and at most {self._max_queued} may. Try again later.",
                self._patience(connection),
            )

    def _patience(self, connection: Connection) -> float:
        """About the time until one of the running jobs ends; between 1 and 60 s."""
        recent = recent_seconds(connection)
        return min(max(sum(recent) / len(recent), 1.0), 60.0) if recent else 5.0

    def _row(self, connection: Connection, job_id: str, owner: str | None) -> Any:
        query = select(jobs).where(jobs.c.id == job_id)
        if owner is not None:
            query = query.where(jobs.c.owner == owner)
        row = connection.execute(query).one_or_none()
        if row is None:
            raise UnknownJobError(f"there is no job {job_id[:64]!r}; see GET /v1/jobs")
        return row

    def _status(self, connection: Connection, row: Any) -> JobStatus:
        place, pairs_before = waiting_before(connection, row.number) if row.state == JobState.QUEUED else (None, 0)
        return JobStatus(
            id=row.id,
            state=row.state,
            request=JobRequest.model_validate(row.request),
            pipeline=row.pipeline,
            created=_moment(row.created),
            started=_moment(row.started) if row.started else None,
            ended=_moment(row.ended) if row.ended else None,
            progress=[StageProgress.model_validate(stage) for stage in row.progress],
            place=place,
            eta_s=estimate(connection, row, self.database.now(connection), pairs_before),
            attempts=row.attempts,
            error=row.error,
            result_bytes=row.result_bytes,
        )


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
