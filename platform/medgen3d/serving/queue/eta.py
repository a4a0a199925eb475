"""The time until a job ends, estimated from its own progress or from how long the last jobs took.

A step of the refiner takes many times as long as one of the mask generator, so stages are weighed by what a unit of
work took in the last jobs of the same pipeline. Units count slices and steps: larger pairs have more of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select

from medgen3d.serving.job_states import FINAL, JobState
from medgen3d.serving.queue.database import jobs

_LAST_JOBS = 20
_ENOUGH = 0.05  # share of a job after which its own pace says more than that of others


class UnitCost(NamedTuple):
    """What a stage takes, by the last jobs: seconds of a unit of work, and units of a pair."""

    seconds: float
    units: float


def estimate(connection: Connection, row: Any, now: float, pairs_before: int) -> float | None:
    """Seconds until a job ends; None if it has ended or nothing is known.

    A running job goes on at its own pace once a twentieth is done. Otherwise a pair takes as long as in the last jobs,
    and the pairs that come first are shared among as many jobs as run now.
    """
    if row.state in FINAL:
        return None
    if row.state == JobState.RUNNING:
        share = share_done(row.progress, _costs(_recent(connection, row.pipeline)), row.num_pairs)
        if share >= _ENOUGH:
            return max(0.0, (now - row.started) * (1 - share) / share)
    pace = _seconds_per_pair(_recent(connection, row.pipeline) or _recent(connection))
    if pace is None:
        return None
    if row.state == JobState.RUNNING:
        return max(0.0, pace * row.num_pairs - (now - row.started))
    under_way = select(func.count(), func.coalesce(func.sum(jobs.c.num_pairs), 0)).where(
        jobs.c.state == JobState.RUNNING
    )
    num_running, pairs = connection.execute(under_way).one()
    return pace * ((int(pairs) + pairs_before) / max(1, int(num_running)) + row.num_pairs)


def share_done(progress: Sequence[Mapping[str, Any]], costs: Mapping[str, UnitCost], num_pairs: int) -> float:
    """How much of a job is done, 0 to 1.

    Args:
        progress: Of the stages that have begun.
        costs: Of all stages, by stage; where they are not known, stages count alike.
        num_pairs: Of the job; what stages that have not begun will have to do follows from it.
    """
    begun = {stage["stage"]: stage for stage in progress if stage["total"]}
    if not costs or not begun.keys() <= costs.keys():
        shares = [stage["done"] / stage["total"] for stage in begun.values()]
        return sum(shares) / len(shares) if shares else 0.0
    spent = sum(stage["done"] * costs[name].seconds for name, stage in begun.items())
    whole = sum(
        cost.seconds * (begun[name]["total"] if name in begun else cost.units * num_pairs)
        for name, cost in costs.items()
    )
    return spent / whole if whole else 0.0


def recent_seconds(connection: Connection) -> list[float]:
    """How long each of the last jobs that succeeded ran [s]."""
    return [float(row.seconds) for row in _recent(connection)]


def _seconds_per_pair(recent: Sequence[Any]) -> float | None:
    return sum(row.seconds / row.num_pairs for row in recent) / len(recent) if recent else None


def _costs(recent: Sequence[Any]) -> dict[str, UnitCost]:
    seconds: dict[str, float] = {}
    units: dict[str, int] = {}
    for stage in (stage for row in recent for stage in row.progress):
        seconds[stage["stage"]] = seconds.get(stage["stage"], 0.0) + stage.get("seconds", 0.0)
        units[stage["stage"]] = units.get(stage["stage"], 0) + stage["done"]
    pairs = sum(row.num_pairs for row in recent)
    return {name: UnitCost(seconds[name] / units[name], units[name] / pairs) for name in units if units[name]}


def _recent(connection: Connection, pipeline: str | None = None) -> Sequence[Any]:
    """The last jobs that succeeded, of one pipeline or of all."""
    seconds = (jobs.c.ended - jobs.c.started).label("seconds")
    wanted = (jobs.c.state == JobState.SUCCEEDED) & jobs.c.started.is_not(None)
    wanted = wanted if pipeline is None else wanted & (jobs.c.pipeline == pipeline)
    done = select(seconds, jobs.c.num_pairs, jobs.c.progress).where(wanted)
    return connection.execute(done.order_by(jobs.c.number.desc()).limit(_LAST_JOBS)).all()
