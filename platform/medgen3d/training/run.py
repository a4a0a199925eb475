"""A training run on disk: what it trains on, with which configuration, and what may resume it."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.artifacts.provenance import config_hash
from medgen3d.artifacts.versioned_json import read_versioned, write_versioned
from medgen3d.config.experiment import ExperimentConfig
from medgen3d.core.errors import DataError

FILE = "run.json"


class TrainingRun(BaseModel):
    """`run.json`: the identity of a run. A run is resumed only with the same identity.

    stage_hash: `config_hash` of everything in the configuration that decides the stage's weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = 1
    name: str
    stage: str
    dataset: str
    dataset_digest: str
    stage_hash: str
    num_workers: int
    seed: int
    mlflow_run: str | None = None

    @classmethod
    def of(cls, name: str | None, stage: str, prepared: PreparedSet, config: ExperimentConfig) -> Self:
        """The run that `config` describes; without a name it is named after the stage's configuration."""
        tree = config.model_dump(mode="json")
        stage_hash = config_hash({"stage": tree[stage], "training": tree["training"][stage]})
        return cls(
            name=name or f"{prepared.info.name}-{stage_hash[:8]}",
            stage=stage,
            dataset=prepared.info.name,
            dataset_digest=prepared.digest,
            stage_hash=stage_hash,
            num_workers=config.cluster.num_workers,
            seed=config.seed,
        )

    @property
    def folder_name(self) -> str:
        return f"{self.name}.{self.stage}"


def begin(run: TrainingRun, root: Path, *, resume: bool) -> TrainingRun:
    """Create the run's folder below `root`, or find the run that is to be resumed; without one it is begun.

    Raises:
        DataError: There is such a run and it is not to be resumed, or it is another one.
    """
    folder = root / run.folder_name
    if not (folder / FILE).exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_versioned(folder / FILE, run)
        return run
    if not resume:
        raise DataError(f"{folder}: this run exists already; add --resume to go on with it, or choose another --name")
    before = read_versioned(folder / FILE, TrainingRun, "Start a run with another --name.")
    for field in ("dataset", "dataset_digest", "stage_hash", "num_workers", "seed"):
        if getattr(before, field) != getattr(run, field):
            raise DataError(
                f"{folder}: the run was started with {field} {getattr(before, field)}, but now it is "
                f"{getattr(run, field)}; resume it as it was started, or choose another --name"
            )
    return before


def remember_mlflow(run: TrainingRun, root: Path, mlflow_run: str) -> TrainingRun:
    """Note the MLflow run that logs this training, so that a resumed training goes on in it."""
    noted = run.model_copy(update={"mlflow_run": mlflow_run})
    write_versioned(root / run.folder_name / FILE, noted)
    return noted
