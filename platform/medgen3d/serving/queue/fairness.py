"""Fair sharing between owners: they take turns, so that many jobs of one do not keep the others waiting.

An owner's first unfinished job has rank 1, the second rank 2, and so on, running ones included. Jobs are begun in the
order of their ranks, and within a rank in the order in which they came.
"""

from typing import Any

from sqlalchemy import Connection, Subquery, func, select, tuple_

from medgen3d.serving.job_states import UNFINISHED, JobState
from medgen3d.serving.queue.database import jobs


def fair_order() -> Subquery:
    """number, rank, state and num_pairs of every unfinished job."""
    rank = func.row_number().over(partition_by=jobs.c.owner, order_by=jobs.c.number).label("rank")
    unfinished = jobs.c.state.in_(UNFINISHED)
    return select(jobs.c.number, rank, jobs.c.state, jobs.c.num_pairs).where(unfinished).subquery()


def waiting_before(connection: Connection, number: int) -> tuple[int, int]:
    """(jobs, their pairs) that wait and are begun before a waiting job."""
    every: Any = fair_order()
    mine = select(every.c.rank).where(every.c.number == number).scalar_subquery()
    earlier = (every.c.state == JobState.QUEUED) & (tuple_(every.c.rank, every.c.number) < tuple_(mine, number))
    query = select(func.count(), func.coalesce(func.sum(every.c.num_pairs), 0)).where(earlier)
    num_jobs, num_pairs = connection.execute(query).one()
    return int(num_jobs), int(num_pairs)
