"""A training run on disk: its data set and configuration, by which it is known when it is to be resumed."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.artifacts.provenance import config_hash
from medgen3d.artifacts.versioned_json import read_versioned, write_versioned
from medgen3d.config.experiment import ExperimentConfig
from medgen3d.core.errors import DataError

FILE = "run.json"


class TrainingRun(BaseModel):
    """`run.json`: the identity of a run. A run is resumed only with the same identity.

    settings: The stage's part of the configuration as the run was begun. What only sampling uses of it (the stage's
        SAMPLING_FIELDS) does not decide its weights and is no part of the identity.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = 1
    name: str
    stage: str
    dataset: str
    dataset_digest: str
    settings: dict[str, Any]
    num_workers: int
    seed: int
    mlflow_run: str | None = None

    @classmethod
    def of(cls, name: str | None, stage: str, prepared: PreparedSet, config: ExperimentConfig) -> Self:
        """The run that `config` describes; without a name it is named after the stage's configuration."""
        tree = config.model_dump(mode="json")
        settings = {stage: tree[stage], "training": {stage: tree["training"][stage]}}
        return cls(
            name=name or f"{prepared.info.name}-{config_hash(_decisive(stage, settings))[:8]}",
            stage=stage,
            dataset=prepared.info.name,
            dataset_digest=prepared.digest,
            settings=settings,
            num_workers=config.cluster.num_workers,
            seed=config.seed,
        )

    @property
    def folder_name(self) -> str:
        return f"{self.name}.{self.stage}"


def find(run: TrainingRun, root: Path) -> TrainingRun:
    """The run below `root` that is to be gone on with, or `run` itself if it was never begun; nothing is written.

    Raises:
        DataError: There is such a run, and it is another one.
    """
    folder = root / run.folder_name
    if not (folder / FILE).exists():
        return run
    before = read_versioned(folder / FILE, TrainingRun, "Start a run with another --name.")
    for field, was, is_now in differences(_identity(before), _identity(run)):
        raise DataError(
            f"{folder}: the run was started with {field} {was}, but now it is {is_now}; repeat it as it was started, "
            "choose another --name, or begin afresh with --new"
        )
    return before


def put_aside(run: TrainingRun, root: Path) -> None:
    """Give the folder of an earlier run of this name another name, so that the run begins afresh."""
    folder = root / run.folder_name
    if folder.exists():
        number = next(
            number for number in count(1) if not folder.with_name(f"{run.folder_name}.before-{number}").exists()
        )
        folder.rename(folder.with_name(f"{run.folder_name}.before-{number}"))


def begin(run: TrainingRun, root: Path, mlflow_run: str) -> TrainingRun:
    """Create the run's folder; it notes the MLflow run, so that a resumed training goes on logging there."""
    begun = run.model_copy(update={"mlflow_run": mlflow_run})
    folder = root / run.folder_name
    folder.mkdir(parents=True, exist_ok=True)
    write_versioned(folder / FILE, begun)
    return begun


def _identity(run: TrainingRun) -> dict[str, Any]:
    common = run.model_dump(include={"dataset", "dataset_digest", "num_workers", "seed"})
    return common | _decisive(run.stage, run.settings)


def _decisive(stage: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings without the stage's options that only sampling uses."""
    sampling = getattr(ExperimentConfig(), stage).SAMPLING_FIELDS
    return settings | {stage: {option: value for option, value in settings[stage].items() if option not in sampling}}


def differences(before: Any, now: Any, field: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Each value that differs between two trees, under its dotted name; what one of them lacks counts as None."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            yield from differences(before.get(key), now.get(key), f"{field}.{key}" if field else key)
    elif before != now:
        yield field, before, now
