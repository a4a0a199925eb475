"""The time until a job ends, estimated from its own progress or from how long the last jobs took."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, func, select

from medgen3d.serving.job_states import FINAL, JobState
from medgen3d.serving.queue.database import jobs

_LAST_JOBS = 20
_ENOUGH = 0.05  # share of a job after which its own pace says more than that of others


def estimate(connection: Connection, row: Any, now: float, pairs_before: int) -> float | None:
    """Seconds until a job ends; None if it has ended or nothing is known.

    A running job goes on at its own pace once a twentieth is done. Otherwise a pair takes as long as in the last jobs,
    and the pairs that come first are shared among as many jobs as run now.
    """
    if row.state == JobState.RUNNING and (share := share_done(row.progress)) >= _ENOUGH:
        return max(0.0, (now - row.started) * (1 - share) / share)
    if row.state in FINAL:
        return None
    pace = _seconds_per_pair(connection)
    if pace is None:
        return None
    if row.state == JobState.RUNNING:
        return max(0.0, pace * row.num_pairs - (now - row.started))
    under_way = select(func.count(), func.coalesce(func.sum(jobs.c.num_pairs), 0)).where(
        jobs.c.state == JobState.RUNNING
    )
    num_running, pairs = connection.execute(under_way).one()
    return pace * ((int(pairs) + pairs_before) / max(1, int(num_running)) + row.num_pairs)


def share_done(progress: Sequence[dict[str, Any]]) -> float:
    """How much of a job is done, 0 to 1: the mean over its stages."""
    shares = [stage["done"] / stage["total"] for stage in progress if stage["total"]]
    return sum(shares) / len(shares) if shares else 0.0


def recent_seconds(connection: Connection) -> list[float]:
    """How long each of the last jobs that succeeded ran [s]."""
    return [float(row.seconds) for row in _recent(connection)]


def _seconds_per_pair(connection: Connection) -> float | None:
    recent = _recent(connection)
    return sum(row.seconds / row.num_pairs for row in recent) / len(recent) if recent else None


def _recent(connection: Connection) -> Sequence[Any]:
    seconds = (jobs.c.ended - jobs.c.started).label("seconds")
    done = select(seconds, jobs.c.num_pairs).where(jobs.c.state == JobState.SUCCEEDED, jobs.c.started.is_not(None))
    return connection.execute(done.order_by(jobs.c.number.desc()).limit(_LAST_JOBS)).all()
