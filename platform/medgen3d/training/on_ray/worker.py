"""One training worker: the training loop and the reports after its steps, wired to Ray Train."""

import logging
import tempfile
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray.train import Checkpoint

from medgen3d.artifacts.bundle import PREVIEW
from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.core.errors import ArtifactError
from medgen3d.training.batches import ExampleSet, StepSampler, batches
from medgen3d.training.loop import Losses, train
from medgen3d.training.previews import preview_png
from medgen3d.training.run_journal import RunJournal
from medgen3d.training.stage_factory import stage_for
from medgen3d.training.state import TrainingState
from medgen3d.training.step_reports import StepReporter
from medgen3d.training.task import TrainingTask
from medgen3d_stages.contract import Stage

log = logging.getLogger(__name__)
_LAST_WORDS_S = 10.0
"""Time for which a worker that ends waits for MLflow; the command hands on what is left."""


def run_worker(task: TrainingTask, progress_actor: Any) -> None:
    """One worker, from its start (or restart) to the last step.

    Args:
        task: The same for all workers of a run.
        progress_actor: Handle of a `ProgressActor`.

    Raises:
        ArtifactError: The prepared set or the checkpoint cannot be used.
        TrainingDivergedError: A loss or a gradient is no longer finite.
    """
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    torch.set_num_threads(task.config.cluster.threads)
    device, prepared = ray.train.torch.get_device(), PreparedSet(Path(task.data))
    stage, settings, seed = stage_for(task.stage, task.config, prepared), task.settings, task.config.seed
    state = TrainingState(stage, settings, seed, device)
    if (checkpoint := ray.train.get_checkpoint()) is not None:
        _restore(state, Path(checkpoint.path))
    journal = RunJournal(Path(task.run_folder), task.run_log)
    if rank == 0:
        journal.start()
    hooks = _Hooks(task, progress_actor, stage, prepared, journal, rank, world_size)
    reporter = StepReporter(
        settings, settings.batch_size * world_size, hooks.log, hooks.preview, hooks.checkpoint, hooks.asked_to_stop
    )
    loader = batches(
        ExampleSet.of(prepared, stage, seed, settings),
        StepSampler(state.step, settings.steps, settings.batch_size, rank, world_size),
        settings.loader_workers,
    )
    try:
        train(
            stage,
            state,
            loader,
            settings,
            seed=seed,
            rank=rank,
            device=device,
            wrap=ray.train.torch.prepare_model if world_size > 1 else torch.nn.Module.requires_grad_,
            after_step=reporter.after_step,
        )
    finally:
        if rank == 0:
            journal.close(_LAST_WORDS_S)


def _restore(state: TrainingState, newest: Path) -> None:
    """Go on from the newest checkpoint, or from an earlier one that is kept if it is damaged.

    Raises:
        ArtifactError: None of them can be used; what is wrong with the newest one.
    """
    earlier = sorted((folder for folder in newest.parent.glob("step-*") if folder.name < newest.name), reverse=True)
    wrong = []
    for folder in (newest, *earlier):
        try:
            state.restore(folder)
        except ArtifactError as error:
            wrong.append(error)
            log.warning("%s Looking for an earlier checkpoint.", error)
        else:
            return
    raise wrong[0]


@dataclass
class _Hooks:
    """The hooks of `StepReporter` in one worker: rank 0 logs, draws and saves; all stop at the same step.

    stop: The driver's last answer to rank 0.
    picture: The latest preview, which goes into the next checkpoint.
    """

    task: TrainingTask
    progress_actor: Any
    stage: Stage
    prepared: PreparedSet
    journal: RunJournal
    rank: int
    world_size: int
    stop: bool = False
    picture: bytes = b""

    def log(self, step: int, metrics: Losses) -> None:
        if self.rank == 0:
            self.journal.metrics(step, {f"train/{name}": value for name, value in metrics.items()})
            self.stop = ray.get(self.progress_actor.post.remote(step, metrics))

    def preview(self, state: TrainingState) -> None:
        if self.rank == 0:
            self.picture = preview_png(self.stage, state, self.prepared, self.task.config.seed)
            self.journal.image(f"preview/{self.stage.name}", self.picture, state.step)

    def checkpoint(self, state: TrainingState) -> None:
        """Every worker must report to Ray Train; rank 0 hands over the checkpoint, with the latest preview in it."""
        metrics = {"step": state.step}
        if self.rank != 0:
            ray.train.report(metrics, checkpoint=None)
            return
        with tempfile.TemporaryDirectory() as folder:
            state.save(Path(folder))
            (Path(folder) / PREVIEW).write_bytes(self.picture)
            ray.train.report(
                metrics, Checkpoint.from_directory(folder), checkpoint_dir_name=self._free_name(state.step)
            )

    def _free_name(self, step: int) -> str:
        """Never that of a checkpoint which is there, if only a damaged one: Ray Train removes it by its name later."""
        names = (f"step-{step:08d}{again}" for again in chain([""], (f"-{number}" for number in count(2))))
        return next(name for name in names if not Path(self.task.run_folder, name).exists())

    def asked_to_stop(self) -> bool:
        if self.world_size == 1:
            return self.stop
        answer = torch.tensor([int(self.stop)], device=ray.train.torch.get_device())
        torch.distributed.broadcast(answer, src=0)
        return bool(answer.item())
