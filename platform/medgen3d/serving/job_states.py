"""The states of a job: the meaning of each, and the transitions between them. docs/serving.md shows the same table."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class JobState(StrEnum):
    """A job's state, as clients and the database see it."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class StateFacts:
    """One row of the table. A state without a next one is final."""

    meaning: str
    next: frozenset[JobState] = frozenset()


STATES: Mapping[JobState, StateFacts] = {
    JobState.QUEUED: StateFacts(
        "accepted; waits for its turn, or for another attempt", frozenset({JobState.RUNNING, JobState.CANCELLED})
    ),
    JobState.RUNNING: StateFacts(
        "a runner draws it; claimed again by another runner if its lease runs out",
        frozenset(JobState),
    ),
    JobState.SUCCEEDED: StateFacts("its result can be fetched until it is removed"),
    JobState.FAILED: StateFacts("it has no result; `error` says why"),
    JobState.CANCELLED: StateFacts("ended by its owner or an administrator"),
}
FINAL = tuple(state for state, facts in STATES.items() if not facts.next)
UNFINISHED = tuple(state for state, facts in STATES.items() if facts.next)


def origins(state: JobState) -> list[JobState]:
    """The states from which a job may come into this one."""
    return [origin for origin, facts in STATES.items() if state in facts.next]
