"""What one training worker does besides the loop: logging, previews, checkpoints. The wiring to Ray is handed in."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from medgen3d.artifacts.pictures import montage
from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.config.experiment import ExperimentConfig, StageTraining
from medgen3d.core.seeds import stream_seed
from medgen3d.training.batches import read_example
from medgen3d.training.loop import Losses
from medgen3d.training.state import TrainingState
from medgen3d_stages.catalogue import make_stage
from medgen3d_stages.contract import DataSpec, Stage


def data_spec(prepared: PreparedSet) -> DataSpec:
    """What the stages must know of a prepared set."""
    return DataSpec(
        num_labels=len(prepared.info.label_table),
        plane=prepared.info.plane,
        spacing_mm=prepared.info.spacing_mm,
        max_depth=max(depth for depth, _, _ in prepared.info.shapes("train")),
    )


def stage_for(name: str, config: ExperimentConfig, prepared: PreparedSet) -> Stage:
    """The stage as the configuration and the data set describe it."""
    return make_stage(name, getattr(config, name), data_spec(prepared))


def preview_png(stage: Stage, state: TrainingState, prepared: PreparedSet, seed: int) -> bytes:
    """A picture of one sample of the EMA networks, for the first case of the validation split (or of training)."""
    info = prepared.info
    example = read_example(prepared, (info.case_ids("validation") or info.case_ids("train"))[0])
    generator = torch.Generator().manual_seed(stream_seed(seed, stage.name, "preview"))
    image, mask = stage.preview(state.sampling_networks(), example, generator)
    title = f"{'PHANTOM ' if info.phantom else ''}{info.name}, {stage.name}, step {state.step}"
    return montage([(title, image, mask)], dict(enumerate(info.label_table.names)), info.spacing_mm)


@dataclass
class StepReporter:
    """Decides, after each step, what is due: a log line, a preview, a checkpoint, the end.

    settings: How often each is due.
    batch_size: Examples per step over all workers.
    log: (step, metrics): the mean of each loss since the last time, examples per second, the learning rate.
    preview: Draws and logs a picture.
    checkpoint: Saves the state; called by every worker at the same steps.
    asked_to_stop: Whether training is to end now; called by every worker at the same steps, all get the same answer.
    """

    settings: StageTraining
    batch_size: int
    log: Callable[[int, Losses], None]
    preview: Callable[[TrainingState], None]
    checkpoint: Callable[[TrainingState], None]
    asked_to_stop: Callable[[], bool]
    stopped: bool = False
    _sums: dict[str, float] = field(default_factory=dict)
    _count: int = 0
    _since: float = field(default_factory=time.monotonic)

    def after_step(self, state: TrainingState, losses: Losses) -> bool:
        """True while training is to go on."""
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        last = state.step >= self.settings.steps
        if last or state.step % self.settings.log_every == 0:
            self._log(state)
            self.stopped = not last and self.asked_to_stop()
        if last or state.step % self.settings.preview_every == 0:
            self.preview(state)
        if last or self.stopped or state.step % self.settings.checkpoint_every == 0:
            self.checkpoint(state)
        return not (last or self.stopped)

    def _log(self, state: TrainingState) -> None:
        elapsed = max(time.monotonic() - self._since, 1e-9)
        metrics = {name: total / self._count for name, total in self._sums.items()}
        metrics["examples_per_second"] = self._count * self.batch_size / elapsed
        metrics["learning_rate"] = float(next(iter(state.schedules.values())).get_last_lr()[0])
        self.log(state.step, metrics)
        self._sums, self._count, self._since = {}, 0, time.monotonic()
