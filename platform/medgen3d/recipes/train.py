"""Train stages one after the other, log each to MLflow and register its bundle."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.config.experiment import ExperimentConfig
from medgen3d.core.errors import RegistryError
from medgen3d.registry.bundles import register_bundle
from medgen3d.registry.tracking import RunLog, Tracking, start_run
from medgen3d.registry.versions import Version
from medgen3d.training.on_ray.fit import Progress, check_room, train_stage
from medgen3d.training.run import TrainingRun, begin, find, put_aside
from medgen3d.training.stage_factory import stage_for
from medgen3d.training.task import TrainingOutcome

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class StageResult:
    """What became of one stage. `version` is None when training was stopped before its last step."""

    trained: TrainingOutcome
    version: Version | None


def plan_runs(stages: Sequence[str], data: Path, config: ExperimentConfig, name: str | None) -> list[TrainingRun]:
    """The runs that `train_stages` would do; nothing is written.

    Raises:
        ArtifactError: `data` is no prepared set.
        ConfigError: The options of a stage do not go with the size of the data set.
    """
    prepared = PreparedSet(data)
    for stage in stages:
        stage_for(stage, config, prepared)
    return [TrainingRun.of(name, stage, prepared, config) for stage in stages]


def train_stages(
    runs: Sequence[TrainingRun], data: Path, config: ExperimentConfig, progress: Progress, *, anew: bool = False
) -> list[StageResult]:
    """Train one run after the other; ends early when one is stopped.

    The same call goes on: stages that are finished are left as they are, one that was stopped continues from its newest
    checkpoint, and those that have not begun are started.

    Args:
        runs: Of `plan_runs`.
        data: The prepared set.
        config: `use_gpu` must be decided.
        progress: Called about once a second.
        anew: Put earlier runs of these names aside, and begin.

    Raises:
        ConfigError: The cluster has no room for the workers; nothing is begun.
        DataError: A run of this name is another one than the configuration describes; nothing is begun.
        TrainingDivergedError, TrainingFailedError: A stage failed; the stages before it are registered.
    """
    check_room(config)
    tracking = Tracking.of(config.storage)
    if anew:
        for run in runs:
            put_aside(run, config.storage.training_dir)
    found = [find(run, config.storage.training_dir) for run in runs]
    begun = ", ".join(run.folder_name for run in found if run.mlflow_run)
    if begun:
        log.warning("Going on with what was begun before: %s", begun)
    results = []
    for run in found:
        result = _train_and_register(run, data, config, tracking, progress)
        results.append(result)
        if result.version is None:
            break
    return results


def _train_and_register(
    run: TrainingRun, data: Path, config: ExperimentConfig, tracking: Tracking, progress: Progress
) -> StageResult:
    if run.mlflow_run is None:
        tags = {"stage": run.stage, "dataset": run.dataset, "dataset_digest": run.dataset_digest}
        run_id = start_run(tracking, run.dataset, run.folder_name, tags, config.model_dump(mode="json"))
        run = begin(run, config.storage.training_dir, run_id)
    run_log = RunLog(tracking.uri, str(run.mlflow_run))
    try:
        trained = train_stage(run, data, config, run_log, progress)
    except BaseException as error:
        with suppress(RegistryError):  # the error itself is what matters
            run_log.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    if trained.bundle is None:
        run_log.finish("KILLED")
        return StageResult(trained=trained, version=None)
    version = register_bundle(tracking, trained.bundle, data)
    run_log.finish("FINISHED")
    return StageResult(trained=trained, version=version)
