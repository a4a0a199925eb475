"""What the workers of a run are told, and what becomes of their last checkpoint: a bundle."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch

from medgen3d.artifacts.bundle import PREVIEW, BundleDataset, BundleInfo, write_bundle
from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.artifacts.provenance import Provenance, config_hash
from medgen3d.config.experiment import ExperimentConfig, StageTraining
from medgen3d.registry.tracking import RunLog
from medgen3d.training.run import TrainingRun
from medgen3d.training.state import TrainingState
from medgen3d.training.step_reports import stage_for


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingTask:
    """What every worker of a run is told. Small and picklable; data are read by the workers themselves."""

    stage: str
    data: str
    config: ExperimentConfig
    run_log: RunLog

    @property
    def settings(self) -> StageTraining:
        settings: StageTraining = getattr(self.config.training, self.stage)
        return settings


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingOutcome:
    """How a run ended. `bundle` is None when it was stopped before its last step; it can then be resumed."""

    run: TrainingRun
    step: int
    bundle: Path | None


def finish(run: TrainingRun, job: TrainingTask, checkpoint: Path) -> TrainingOutcome:
    """Turn the last checkpoint into a bundle, if it is the last step's."""
    prepared = PreparedSet(Path(job.data))
    stage = stage_for(job.stage, job.config, prepared)
    state = TrainingState(stage, job.settings, job.config.seed, torch.device("cpu"))
    state.restore(checkpoint)
    if state.step < job.settings.steps:
        return TrainingOutcome(run=run, step=state.step, bundle=None)
    info = BundleInfo(
        stage=run.stage,
        stage_config=dataclasses.asdict(getattr(job.config, run.stage)),
        spec=dataclasses.asdict(stage.spec),
        dataset=BundleDataset.of(prepared),
    )
    provenance = Provenance(
        dataset_name=prepared.info.name,
        dataset_digest=prepared.digest,
        config_hash=config_hash(job.config.model_dump(mode="json")),
        seed=job.config.seed,
        parent_run=run.mlflow_run,
    )
    bundle = bundle_folder(run, job.config)
    # The worker drew it: the driver may be a machine without a GPU, on which a large sample would take hours.
    picture = (checkpoint / PREVIEW).read_bytes()
    write_bundle(bundle, info, state.bundle_weights(), provenance, picture)
    return TrainingOutcome(run=run, step=state.step, bundle=bundle)


def bundle_folder(run: TrainingRun, config: ExperimentConfig) -> Path:
    """Where a run's bundle lies once it has ended."""
    return config.storage.training_dir / run.folder_name / "bundle"
