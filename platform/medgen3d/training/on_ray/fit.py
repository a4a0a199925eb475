"""The driver's side of a training run: one TorchTrainer run of Ray Train per stage, the same for every stage."""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from medgen3d.config.experiment import ExperimentConfig
from medgen3d.core.errors import ConfigError, Medgen3dError
from medgen3d.registry.tracking import RunLog
from medgen3d.training.loop import Losses, TrainingDivergedError
from medgen3d.training.on_ray.failure_policy import StopForOwnErrors
from medgen3d.training.on_ray.progress_actor import ProgressActor
from medgen3d.training.on_ray.worker import run_worker
from medgen3d.training.run import TrainingRun
from medgen3d.training.run_journal import RunJournal
from medgen3d.training.task import TrainingOutcome, TrainingTask, bundle_folder, finish

log = logging.getLogger(__name__)
_TOLD_EVERY_S = 60.0
"""How often a training that waits for machines says what is missing."""
Progress = Callable[[str, int, int, Losses], None]
"""(stage, step, steps, latest metrics)."""


class TrainingFailedError(Medgen3dError):
    """args: (run, reason)."""

    def __str__(self) -> str:
        run, reason = self.args
        return f"training run {run} failed: {reason} Its checkpoints are kept; mend the cause and repeat the command."


def train_stage(
    run: TrainingRun, data: Path, config: ExperimentConfig, run_log: RunLog, progress: Progress
) -> TrainingOutcome:
    """Train one stage to its end, or continue it from its last checkpoint, and write its bundle; once only.

    Ctrl-C once asks the workers to save a checkpoint and end; twice ends them at once.

    Args:
        run: As `run.begin` returned it; its folder below `config.storage.training_dir` holds checkpoints and bundle.
        data: A prepared set, in a folder that every worker sees.
        config: `use_gpu` must be decided.
        run_log: The MLflow run that is logged to.
        progress: Called about once a second.

    Raises:
        TrainingDivergedError: A loss became NaN or infinite.
        RegistryError: MLflow has not got all figures at the end; the same call hands them on.
        TrainingFailedError: A worker met another error of ours, or the run failed more often than
            `cluster.max_failures`.
    """
    folder = config.storage.training_dir / run.folder_name
    task = TrainingTask(
        stage=run.stage, data=str(data.absolute()), run_folder=str(folder), config=config, run_log=run_log
    )
    bundle = bundle_folder(run, config)
    if bundle.exists():
        return TrainingOutcome(run=run, step=task.settings.steps, bundle=bundle)
    run_log.reopen()
    # On the driver's own machine, as Ray Train's controller: a run survives the loss of any other.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    progress_actor = ray.remote(num_cpus=0, scheduling_strategy=here)(ProgressActor).remote()
    trainer = _trainer(run, task, progress_actor)
    checkpoint = _fit(trainer, progress_actor, run, task, progress).checkpoint
    if checkpoint is None:
        raise TrainingFailedError(run.folder_name, "it ended without a checkpoint.")
    RunJournal(folder, run_log).drain()
    with checkpoint.as_directory() as saved:
        return finish(run, task, Path(saved))


def _trainer(run: TrainingRun, task: TrainingTask, progress_actor: Any) -> TorchTrainer:
    config, cluster = task.config, task.config.cluster
    return TorchTrainer(
        # Not as `train_loop_config`, which the controller would load, and with it torch.
        lambda: run_worker(task, progress_actor),
        scaling_config=ScalingConfig(
            num_workers=cluster.num_workers,
            use_gpu=bool(cluster.use_gpu),
            resources_per_worker={"CPU": cluster.cpus_per_worker} | ({"GPU": 1} if cluster.use_gpu else {}),
        ),
        run_config=RunConfig(
            name=run.folder_name,
            storage_path=str(config.storage.training_dir),
            failure_config=FailureConfig(
                max_failures=cluster.max_failures,
                # Counted up for every minute without room: no end where an autoscaler may still bring machines.
                controller_failure_limit=-1 if cluster.wait_for_resources else 3,
            ),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            callbacks=[StopForOwnErrors()],
        ),
    )


def _fit(
    trainer: TorchTrainer, progress_actor: Any, run: TrainingRun, task: TrainingTask, progress: Progress
) -> ray.train.Result:
    """Run `fit` in a thread, so that Ray does not take Ctrl-C for itself, and show progress meanwhile.

    SIGTERM, with which Kubernetes and spot machines announce the end, is taken for Ctrl-C.
    """
    outcome: dict[str, Any] = {}
    ended = threading.Event()

    def fit() -> None:
        try:
            outcome["result"] = trainer.fit()
        except Exception as error:
            outcome["error"] = error
        finally:
            ended.set()

    threading.Thread(target=fit, name=f"fit-{run.folder_name}", daemon=True).start()
    with _sigterm_as_ctrl_c():
        _follow(ended, progress_actor, task, progress)
    if "error" in outcome:
        raise _explained(run, outcome["error"]) from outcome["error"]
    result: ray.train.Result = outcome["result"]
    return result


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # which alone may say what a signal does
        yield
        return
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def _follow(ended: threading.Event, progress_actor: Any, task: TrainingTask, progress: Progress) -> None:
    asked, told = False, time.monotonic()
    while not ended.is_set():
        try:
            ended.wait(timeout=1.0)  # not Thread.join: Ctrl-C in it makes Python 3.11 believe that the thread has ended
            step, metrics = ray.get(progress_actor.read.remote())
            progress(task.stage, step, task.settings.steps, metrics)
            if time.monotonic() - told >= _TOLD_EVERY_S:
                told = time.monotonic()
                if missing := _missing(task.config):
                    log.warning("%s; waiting for machines", missing)
        except KeyboardInterrupt:
            if asked:
                raise
            asked = True
            log.warning("Saving a checkpoint, then stopping; Ctrl-C again to stop at once.")
            progress_actor.ask_to_stop.remote()


def _explained(run: TrainingRun, error: Exception) -> Medgen3dError:
    cause = getattr(error, "controller_failure", None)  # what StopForOwnErrors raised
    if isinstance(cause, TrainingDivergedError):
        return cause  # no use in resuming
    if isinstance(cause, Medgen3dError):
        return TrainingFailedError(run.folder_name, str(cause))
    last_line = (str(error).strip() or repr(error)).splitlines()[-1]
    return TrainingFailedError(run.folder_name, f"{last_line}.")


def check_room(config: ExperimentConfig) -> None:
    """Ray Train waits for ever for what a cluster cannot give; an autoscaling one may still grow, so only warn there.

    Raises:
        ConfigError: The cluster has no room for the workers.
    """
    missing = _missing(config)
    if missing and not config.cluster.wait_for_resources:
        raise ConfigError(
            f"{missing}; lower cluster.num_workers, or set cluster.wait_for_resources=true where it can grow"
        )
    if missing:
        log.warning("%s; waiting for machines", missing)


def _missing(config: ExperimentConfig) -> str:
    """Which resources the cluster lacks for the workers, as a sentence; empty if none."""
    have, cluster = ray.cluster_resources(), config.cluster
    wanted = {"CPU": cluster.num_workers * cluster.cpus_per_worker}
    if cluster.use_gpu:
        wanted["GPU"] = cluster.num_workers
    for kind, amount in wanted.items():
        if have.get(kind, 0) < amount:
            return (
                f"{cluster.num_workers} training workers need {amount:g} {kind}, the cluster has {have.get(kind, 0):g}"
            )
    return ""
