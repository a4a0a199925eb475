"""Changes of a job's state: the one place that writes the column, and only along the table of `job_states`."""

from sqlalchemy import ColumnElement, Connection, update

from medgen3d.serving.job_states import JobState, origins
from medgen3d.serving.queue.database import jobs


def move(connection: Connection, which: ColumnElement[bool], state: JobState, **values: object) -> int:
    """Bring jobs into a state; those that may not come into it stay as they are.

    Args:
        connection: Of a writing transaction.
        which: The jobs that are meant.
        state: The new state.
        values: Other columns that change with it.

    Returns:
        How many jobs were changed.
    """
    allowed = which & jobs.c.state.in_(origins(state))
    return connection.execute(update(jobs).where(allowed).values(state=state, **values)).rowcount
