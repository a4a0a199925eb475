"""The task that the workers of a run are given, and the bundle that is made of their last checkpoint."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch

from medgen3d.artifacts.bundle import PREVIEW, BundleDataset, BundleInfo, write_bundle
from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.artifacts.provenance import Provenance, config_hash
from medgen3d.config.experiment import ExperimentConfig
from medgen3d.config.training import StageTraining
from medgen3d.registry.tracking import RunLog
from medgen3d.training.run import TrainingRun
from medgen3d.training.stage_factory import stage_for
from medgen3d.training.state import TrainingState


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingTask:
    """Everything that a worker of a run is told. Small and picklable; the workers read the data themselves.

    stage: Its name.
    data: Absolute path of the prepared set, which every worker sees.
    run_folder: Absolute path of the run's own folder.
    run_log: The MLflow run that is logged to.
    """

    stage: str
    data: str
    run_folder: str
    config: ExperimentConfig
    run_log: RunLog

    @property
    def settings(self) -> StageTraining:
        settings: StageTraining = getattr(self.config.training, self.stage)
        return settings


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingOutcome:
    """The end of a run. bundle: None where it was stopped before its last step; it can then be resumed."""

    run: TrainingRun
    step: int
    bundle: Path | None


def finish(run: TrainingRun, task: TrainingTask, checkpoint: Path) -> TrainingOutcome:
    """Make a bundle of the last checkpoint, if it is the last step's.

    Args:
        run: The run that has ended.
        task: As its workers were given it.
        checkpoint: Folder of the checkpoint and of the preview that was drawn with it.

    Raises:
        ArtifactError: The checkpoint is damaged, or of another stage or configuration.
    """
    prepared = PreparedSet(Path(task.data))
    stage = stage_for(task.stage, task.config, prepared)
    state = TrainingState(stage, task.settings, task.config.seed, torch.device("cpu"))
    state.restore(checkpoint)
    if state.step < task.settings.steps:
        return TrainingOutcome(run=run, step=state.step, bundle=None)
    info = BundleInfo(
        stage=run.stage,
        stage_config=dataclasses.asdict(getattr(task.config, run.stage)),
        spec=dataclasses.asdict(stage.spec),
        dataset=BundleDataset.of(prepared),
    )
    provenance = Provenance(
        dataset_name=prepared.info.name,
        dataset_digest=prepared.digest,
        config_hash=config_hash(task.config.model_dump(mode="json")),
        seed=task.config.seed,
        parent_run=run.mlflow_run,
    )
    bundle = bundle_folder(run, task.config)
    # The worker drew it: the driver may be a machine without a GPU, on which a large sample would take hours.
    picture = (checkpoint / PREVIEW).read_bytes()
    write_bundle(bundle, info, state.bundle_weights(), provenance, picture)
    return TrainingOutcome(run=run, step=state.step, bundle=bundle)


def bundle_folder(run: TrainingRun, config: ExperimentConfig) -> Path:
    """The folder of a run's bundle once the run has ended."""
    return config.storage.training_dir / run.folder_name / "bundle"
