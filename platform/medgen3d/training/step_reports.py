"""The reports that follow a training step: log lines, previews and checkpoints. How each is made is handed in."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from medgen3d.config.training import StageTraining
from medgen3d.training.loop import Losses
from medgen3d.training.state import TrainingState


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
