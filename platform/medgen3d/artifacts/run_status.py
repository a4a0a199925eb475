"""`status.json` tells how far a run of bulk synthesis is, to programs and to `medgen3d synthesize status`."""

from datetime import UTC, datetime
from typing import Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from medgen3d.artifacts.storage import Folder
from medgen3d.core.errors import ArtifactError

STATUS = "status.json"
SILENT_S = 120.0
"""A run that has not written for so long is not running any more."""


RunState = Literal["running", "finished", "interrupted", "stopped"]


class StageStatus(BaseModel):
    """One stage of the run.

    num_done: Cases that it has drawn, checked or written, redraws included.
    busy_s: Time that its processes worked, added up [s].
    processes: How many there are.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_done: int
    busy_s: float
    processes: int


class RunStatus(BaseModel):
    """How far a run is.

    state: `running`, or how it ended: `finished`, `interrupted` (it was asked to stop) or `stopped` (by an error).
    planned, done, failed: Cases of the whole set: all, accepted, given up.
    rejections: Reason -> draws that a gate rejected for it.
    stages: In their order.
    seconds: Since the run began.
    cases_per_s: Of the last minutes; null at the beginning.
    eta_s: Until every case is done or given up, at that rate.
    host, pid: Of the driver.
    resume: The command that goes on.
    message: Why it was stopped.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = 1
    state: RunState
    planned: int
    done: int
    failed: int
    rejections: dict[str, int]
    stages: dict[str, StageStatus]
    started: AwareDatetime
    updated: AwareDatetime
    seconds: float
    cases_per_s: float | None
    eta_s: float | None
    host: str
    pid: int
    resume: str
    message: str = ""

    @property
    def is_silent(self) -> bool:
        """Whether it says that it runs, but has not written for too long: it was probably killed."""
        return self.state == "running" and (datetime.now(UTC) - self.updated).total_seconds() > SILENT_S

    def busy(self, stage: str) -> float:
        """Share of the run's time for which a stage's processes, and the devices that they have, worked."""
        found = self.stages[stage]
        return found.busy_s / max(self.seconds, 1e-9) / found.processes

    def write(self, folder: Folder) -> None:
        """Write it into the set's folder; whole or not at all."""
        folder.write(STATUS, self.model_dump_json(indent=1).encode())

    @classmethod
    def read(cls, folder: Folder) -> Self:
        """The status of the last run into a folder.

        Raises:
            ArtifactError: There is none, or it is damaged.
        """
        try:
            return cls.model_validate_json(folder.read(STATUS))
        except (OSError, ValidationError) as error:
            found = "no such file" if isinstance(error, FileNotFoundError) else "no valid status"
            remedy = "Give the folder of a set that `medgen3d synthesize` makes."
            raise ArtifactError(f"{folder}/{STATUS}", found, "the status of a run", remedy) from error
