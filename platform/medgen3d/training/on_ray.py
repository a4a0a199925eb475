"""Training through Ray Train: one TorchTrainer run per stage, the same for every stage."""

import dataclasses
import logging
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from medgen3d.artifacts.bundle import BundleDataset, BundleInfo, write_bundle
from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.artifacts.provenance import Provenance, config_hash
from medgen3d.config.experiment import ExperimentConfig, StageTraining
from medgen3d.core.errors import ConfigError, Medgen3dError
from medgen3d.registry.tracking import RunLog
from medgen3d.training.batches import ExampleSet, StepSampler, batches
from medgen3d.training.loop import Losses, train
from medgen3d.training.run import TrainingRun
from medgen3d.training.state import TrainingState
from medgen3d.training.worker import Journal, preview_png, stage_for

log = logging.getLogger(__name__)
Progress = Callable[[str, int, int, Losses], None]
"""(stage, step, steps, latest figures)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
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
class Trained:
    """How a run ended. `bundle` is None when it was stopped before its last step; it can then be resumed."""

    run: TrainingRun
    step: int
    bundle: Path | None


class TrainingFailedError(Medgen3dError):
    """args: (run, reason)."""

    def __str__(self) -> str:
        run, reason = self.args
        return f"training run {run} failed: {reason} Its checkpoints are kept; mend the cause and add --resume."


@ray.remote(num_cpus=0)
class Board:
    """Where rank 0 tells the driver how far it is, and the driver asks the workers to stop."""

    def __init__(self) -> None:
        self.step, self.figures, self.stop = 0, {}, False

    def post(self, step: int, figures: Losses) -> bool:
        """Tell; the answer is whether to stop."""
        self.step, self.figures = step, figures
        return self.stop

    def read(self) -> tuple[int, Losses]:
        return self.step, self.figures

    def ask_to_stop(self) -> None:
        self.stop = True


def train_stage(run: TrainingRun, data: Path, config: ExperimentConfig, run_log: RunLog, progress: Progress) -> Trained:
    """Train one stage to its end, or continue it from its last checkpoint, and write its bundle.

    Ctrl-C once asks the workers to save a checkpoint and end; twice ends them at once.

    Args:
        run: As `run.begin` returned it; its folder below `config.storage.training_dir` holds checkpoints and bundle.
        data: A prepared set, in a folder that every worker sees.
        config: `use_gpu` must be decided.
        run_log: The MLflow run that is logged to.
        progress: Called about once a second.

    Raises:
        ConfigError: The cluster has no room for the workers.
        TrainingFailedError: The run failed more often than `cluster.max_failures`.
    """
    job = Job(stage=run.stage, data=str(data.absolute()), config=config, run_log=run_log)
    _check_room(config)
    board = Board.remote()
    trainer = TorchTrainer(
        _work,
        train_loop_config={"job": job, "board": board},
        scaling_config=ScalingConfig(
            num_workers=config.cluster.num_workers,
            use_gpu=bool(config.cluster.use_gpu),
            resources_per_worker={"CPU": config.cluster.cpus_per_worker}
            | ({"GPU": 1} if config.cluster.use_gpu else {}),
        ),
        run_config=RunConfig(
            name=run.folder_name,
            storage_path=str(config.storage.training_dir),
            failure_config=FailureConfig(max_failures=config.cluster.max_failures, controller_failure_limit=3),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )
    result = _fit(trainer, board, run, job.settings.steps, progress)
    checkpoint = result.checkpoint
    if checkpoint is None:
        raise TrainingFailedError(run.folder_name, "it ended without a checkpoint.")
    with checkpoint.as_directory() as folder:
        return _finish(run, job, Path(folder))


def _fit(trainer: TorchTrainer, board: Any, run: TrainingRun, steps: int, progress: Progress) -> ray.train.Result:
    """Run `fit` in a thread, so that Ray does not take Ctrl-C for itself, and show progress meanwhile."""
    outcome: dict[str, Any] = {}

    def fit() -> None:
        try:
            outcome["result"] = trainer.fit()
        except Exception as error:
            outcome["error"] = error

    thread = threading.Thread(target=fit, name=f"fit-{run.folder_name}", daemon=True)
    thread.start()
    asked = False
    while thread.is_alive():
        try:
            thread.join(timeout=1.0)
            step, figures = ray.get(board.read.remote())
            progress(run.stage, step, steps, figures)
        except KeyboardInterrupt:
            if asked:
                raise
            asked = True
            log.warning("Stopping at the next checkpoint; Ctrl-C again to stop at once.")
            board.ask_to_stop.remote()
    if "error" in outcome:
        raise TrainingFailedError(run.folder_name, _reason(outcome["error"])) from outcome["error"]
    result: ray.train.Result = outcome["result"]
    return result


def _reason(error: BaseException) -> str:
    """The sentence of our own error, if one was raised in a worker; otherwise the last line of what Ray says."""
    failures = getattr(error, "worker_failures", None) or {}
    for failure in failures.values():
        cause: BaseException | None = failure
        while cause is not None:
            if isinstance(cause, Medgen3dError):
                return str(cause)
            cause = getattr(cause, "cause", None) or cause.__cause__
    return str(error).strip().splitlines()[-1] + "."


def _check_room(config: ExperimentConfig) -> None:
    """Ray Train waits for ever for what a cluster cannot give; an autoscaling one may still grow, so only warn there."""
    have, cluster = ray.cluster_resources(), config.cluster
    wanted = {"CPU": cluster.num_workers * cluster.cpus_per_worker}
    if cluster.use_gpu:
        wanted["GPU"] = cluster.num_workers
    for kind, amount in wanted.items():
        if have.get(kind, 0) < amount:
            sentence = (
                f"{cluster.num_workers} training workers need {amount:g} {kind}, the cluster has {have.get(kind, 0):g}"
            )
            if cluster.wait_for_resources:
                log.warning("%s; waiting for it to grow", sentence)
            else:
                raise ConfigError(
                    f"{sentence}; lower cluster.num_workers, or set cluster.wait_for_resources=true where it can grow"
                )


def _work(told: dict[str, Any]) -> None:
    """One worker, from its start (or restart) to the last step."""
    job, board = told["job"], told["board"]
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    torch.set_num_threads(job.config.cluster.threads)
    device = ray.train.torch.get_device()
    prepared = PreparedSet(Path(job.data))
    stage, settings, seed = stage_for(job.stage, job.config, prepared), job.settings, job.config.seed
    state = TrainingState(stage, settings, seed, device)
    if (checkpoint := ray.train.get_checkpoint()) is not None:
        with checkpoint.as_directory() as folder:
            state.restore(Path(folder))
    first = rank == 0
    stop = False

    def log_figures(step: int, figures: Losses) -> None:
        nonlocal stop
        if first:
            job.run_log.metrics(step, {f"train/{name}": value for name, value in figures.items()})
            stop = ray.get(board.post.remote(step, figures))

    def asked_to_stop() -> bool:
        if world_size == 1:
            return stop
        answer = torch.tensor([int(stop)], device=device)
        torch.distributed.broadcast(answer, src=0)
        return bool(answer.item())

    def preview(current: TrainingState) -> None:
        if first:
            job.run_log.image(f"preview/{job.stage}", preview_png(stage, current, prepared, seed), current.step)

    journal = Journal(
        settings, settings.batch_size * world_size, log_figures, preview, lambda s: _report(s, first), asked_to_stop
    )
    loader = batches(
        ExampleSet(prepared, stage, seed),
        StepSampler(state.step, settings.steps, settings.batch_size, rank, world_size),
        settings.loader_workers,
    )
    wrap = ray.train.torch.prepare_model if world_size > 1 else torch.nn.Module.requires_grad_
    train(
        stage,
        state,
        loader,
        settings,
        seed=seed,
        rank=rank,
        device=device,
        wrap=wrap,
        after_step=journal.after_step,
    )


def _report(state: TrainingState, first: bool) -> None:
    """Every worker must report; the first one hands over the checkpoint."""
    metrics = {"step": state.step}
    if not first:
        ray.train.report(metrics, checkpoint=None)
        return
    with tempfile.TemporaryDirectory() as folder:
        state.save(Path(folder))
        ray.train.report(metrics, Checkpoint.from_directory(folder), checkpoint_dir_name=f"step-{state.step:08d}")


def _finish(run: TrainingRun, job: Job, checkpoint: Path) -> Trained:
    """Turn the last checkpoint into a bundle, if it is the last step's."""
    prepared = PreparedSet(Path(job.data))
    stage = stage_for(job.stage, job.config, prepared)
    state = TrainingState(stage, job.settings, job.config.seed, torch.device("cpu"))
    state.restore(checkpoint)
    if state.step < job.settings.steps:
        return Trained(run=run, step=state.step, bundle=None)
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
    bundle = job.config.storage.training_dir / run.folder_name / "bundle"
    picture = preview_png(stage, state, prepared, job.config.seed)
    write_bundle(bundle, info, state.bundle_weights(), provenance, picture)
    return Trained(run=run, step=state.step, bundle=bundle)
