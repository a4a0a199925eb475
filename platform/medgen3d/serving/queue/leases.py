"""The job store as runners see it: claim, heartbeat, finish, fail, give back.

A runner owns a job for the time of its lease and renews that by heartbeats. Each claim has a number, the
attempt. Whatever a runner writes names its attempt, and changes nothing once the job was claimed anew, cancelled or
ended. So at most one execution counts, whoever else still believes to run it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, or_, select

from medgen3d.serving.job_states import FINAL, JobState
from medgen3d.serving.queue.database import Database, jobs, token_buckets
from medgen3d.serving.queue.fairness import fair_order
from medgen3d.serving.queue.transitions import move
from medgen3d.serving.schemas import JobRequest, StageProgress

_CLAIMS = 2  # name of the lock that lets one claim at a time choose
_MAX_ERROR = 2000
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimedJob:
    """A job that a runner owns. attempt: Its number, from 1; whatever the runner writes names it."""

    id: str
    attempt: int
    owner: str
    request: JobRequest
    pipeline: str
    mask_digest: str | None


class Leases:
    """Jobs that are run.

    Args:
        database: Where.
        lease_s: Time that a claim, or a heartbeat, is good for [s].
        max_attempts: How often a job is begun.
    """

    def __init__(self, database: Database, *, lease_s: float, max_attempts: int) -> None:
        self.database = database
        self.lease_s = lease_s
        self._max_attempts = max_attempts

    def claim(self, runner: str) -> ClaimedJob | None:
        """The job whose turn it is, or one whose runner died; None if there is nothing to do.

        Args:
            runner: Who takes it, for people who look at the table.
        """
        with self.database.writing() as connection:
            self.database.lock(connection, _CLAIMS)
            now = self.database.now(connection)
            self._fail_after_last_attempt(connection, now)
            waiting = (jobs.c.state == JobState.QUEUED) & (jobs.c.not_before <= now)
            orphaned = (jobs.c.state == JobState.RUNNING) & (jobs.c.lease_until < now)
            order = fair_order()
            ready = select(jobs).join(order, order.c.number == jobs.c.number).where(or_(waiting, orphaned))
            query = ready.order_by(order.c.rank, jobs.c.number).limit(1)
            row = connection.execute(query.with_for_update(of=jobs)).one_or_none()
            if row is None:
                return None
            taken = {"attempts": row.attempts + 1, "runner": runner, "started": now, "lease_until": now + self.lease_s}
            move(connection, jobs.c.number == row.number, JobState.RUNNING, **taken)
        return ClaimedJob(
            id=row.id,
            attempt=row.attempts + 1,
            owner=row.owner,
            request=JobRequest.model_validate(row.request),
            pipeline=row.pipeline,
            mask_digest=row.mask_digest,
        )

    def heartbeat(self, running: Mapping[tuple[str, int], Sequence[StageProgress]]) -> set[tuple[str, int]]:
        """Renew the leases of several jobs at once.

        Args:
            running: (job id, attempt) -> its progress.

        Returns:
            Those that the runner no longer owns and must stop: cancelled, or claimed by another.
        """
        lost = set()
        with self.database.writing() as connection:
            until = self.database.now(connection) + self.lease_s
            for job_id, attempt in sorted(running):  # in one order, so that two runners never wait for one another
                renewed = {"lease_until": until, "progress": _plain(running[job_id, attempt])}
                if not move(connection, _owned(job_id, attempt), JobState.RUNNING, **renewed):
                    lost.add((job_id, attempt))
        return lost

    def finish(self, job_id: str, attempt: int, result_bytes: int, progress: Sequence[StageProgress] = ()) -> bool:
        """A job's result lies in the folder of this attempt; False if the attempt no longer counts."""
        values = {"result_bytes": result_bytes, "error": "", "progress": _plain(progress)}
        return self._end(job_id, attempt, JobState.SUCCEEDED, **values)

    def fail(self, job_id: str, attempt: int, reason: str) -> bool:
        """A job cannot be done; another attempt would end alike. False if the attempt no longer counts."""
        return self._end(job_id, attempt, JobState.FAILED, error=reason[:_MAX_ERROR])

    def retry(self, job_id: str, attempt: int, reason: str) -> bool:
        """An attempt failed; the job waits for another one, or ends as failed if that was the last.

        The pauses between attempts double, from 1 s to at most 60 s. False if the attempt no longer counts.
        """
        with self.database.reading() as connection:
            spared = connection.execute(select(jobs.c.spared).where(jobs.c.id == job_id)).scalar_one_or_none() or 0
        number = attempt - spared
        if number >= self._max_attempts:
            return self.fail(job_id, attempt, f"{reason} (attempt {number} of {self._max_attempts})")
        pause = min(_FIRST_PAUSE_S * 2 ** (number - 1), _LONGEST_PAUSE_S)
        return self._requeue(job_id, attempt, pause, error=reason[:_MAX_ERROR])

    def give_back(self, job_id: str, attempt: int) -> bool:
        """A runner that stops orderly returns a job; the attempt does not count against it.

        The next claim has the next number all the same, so that nothing this runner still writes is taken for it.
        """
        return self._requeue(job_id, attempt, 0.0, spared=jobs.c.spared + 1)

    def remove_ended(self, older_than_s: float) -> list[str]:
        """Forget jobs that ended longer ago, and token buckets that are long full again; the ids of the jobs."""
        with self.database.writing() as connection:
            then = self.database.now(connection) - older_than_s
            old = jobs.c.state.in_(FINAL) & (jobs.c.ended < then)
            gone = [row.id for row in connection.execute(select(jobs.c.id).where(old)).all()]
            connection.execute(delete(jobs).where(old))
            connection.execute(delete(token_buckets).where(token_buckets.c.at < then))
        return gone

    def ended(self, job_id: str) -> tuple[bool, int | None]:
        """Whether a job has ended, or is gone; and the attempt whose result counts, if it succeeded."""
        with self.database.reading() as connection:
            row = connection.execute(select(jobs.c.state, jobs.c.attempts).where(jobs.c.id == job_id)).one_or_none()
        if row is None:
            return True, None
        return row.state in FINAL, row.attempts if row.state == JobState.SUCCEEDED else None

    def known(self) -> set[str]:
        """The ids of all jobs that there are."""
        with self.database.reading() as connection:
            return {row.id for row in connection.execute(select(jobs.c.id)).all()}

    def _fail_after_last_attempt(self, connection: Connection, now: float) -> None:
        """End jobs whose runners died as often as a job may be begun."""
        orphaned = (jobs.c.state == JobState.RUNNING) & (jobs.c.lease_until < now)
        exhausted = orphaned & (jobs.c.attempts - jobs.c.spared >= self._max_attempts)
        reason = f"whoever ran it died, {self._max_attempts} times of {self._max_attempts}"
        move(connection, exhausted, JobState.FAILED, ended=now, lease_until=None, error=reason)

    def _end(self, job_id: str, attempt: int, state: JobState, **values: object) -> bool:
        with self.database.writing() as connection:
            ended = {"ended": self.database.now(connection), "lease_until": None}
            return move(connection, _owned(job_id, attempt), state, **values, **ended) == 1

    def _requeue(self, job_id: str, attempt: int, pause_s: float, **values: object) -> bool:
        with self.database.writing() as connection:
            waiting: dict[str, Any] = {
                "lease_until": None,
                "not_before": self.database.now(connection) + pause_s,
                "progress": [],
            }
            return move(connection, _owned(job_id, attempt), JobState.QUEUED, **values, **waiting) == 1


def _plain(progress: Sequence[StageProgress]) -> list[dict[str, Any]]:
    return [stage.model_dump() for stage in progress]


def _owned(job_id: str, attempt: int) -> ColumnElement[bool]:
    """A job, as long as this attempt is the one that counts."""
    return (jobs.c.id == job_id) & (jobs.c.state == JobState.RUNNING) & (jobs.c.attempts == attempt)
