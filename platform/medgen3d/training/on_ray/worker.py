"""What one training worker does, wired to Ray Train."""

import tempfile
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray.train import Checkpoint

from medgen3d.artifacts.bundle import PREVIEW
from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.training.batches import ExampleSet, StepSampler, batches
from medgen3d.training.loop import Losses, train
from medgen3d.training.state import TrainingState
from medgen3d.training.step_reports import StepReporter, preview_png, stage_for
from medgen3d.training.task import TrainingTask


def run_worker(job: TrainingTask, board: Any) -> None:
    """One worker, from its start (or restart) to the last step."""
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
    stop, picture = False, b""

    def log_metrics(step: int, metrics: Losses) -> None:
        nonlocal stop
        if first:
            job.run_log.metrics(step, {f"train/{name}": value for name, value in metrics.items()})
            stop = ray.get(board.post.remote(step, metrics))

    def asked_to_stop() -> bool:
        if world_size == 1:
            return stop
        answer = torch.tensor([int(stop)], device=device)
        torch.distributed.broadcast(answer, src=0)
        return bool(answer.item())

    def preview(current: TrainingState) -> None:
        nonlocal picture
        if first:
            picture = preview_png(stage, current, prepared, seed)
            job.run_log.image(f"preview/{job.stage}", picture, current.step)

    journal = StepReporter(
        settings,
        settings.batch_size * world_size,
        log_metrics,
        preview,
        lambda s: _report(s, first, picture),
        asked_to_stop,
    )
    loader = batches(
        ExampleSet.of(prepared, stage, seed, settings.bend_mm),
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


def _report(state: TrainingState, first: bool, picture: bytes) -> None:
    """Every worker must report; the first one hands over the checkpoint, with the latest preview beside it."""
    metrics = {"step": state.step}
    if not first:
        ray.train.report(metrics, checkpoint=None)
        return
    with tempfile.TemporaryDirectory() as folder:
        state.save(Path(folder))
        (Path(folder) / PREVIEW).write_bytes(picture)
        ray.train.report(metrics, Checkpoint.from_directory(folder), checkpoint_dir_name=f"step-{state.step:08d}")
