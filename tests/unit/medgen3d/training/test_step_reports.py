from types import SimpleNamespace

import pytest

from medgen3d.config.training import StageTraining
from medgen3d.training.step_reports import StepReporter


class Witness:
    """A reporter whose reports are noted, and the steps of a training that never computes anything."""

    def __init__(self, stop_at: int | None = None, **settings: int) -> None:
        self.logged, self.pictures, self.saved, self.asked = {}, [], [], []
        self.steps = settings["steps"]

        def asked_to_stop() -> bool:
            self.asked.append(self.step)
            return stop_at is not None and self.step >= stop_at

        self.reporter = StepReporter(
            StageTraining(**settings),
            4,
            lambda step, metrics: self.logged.update({step: metrics}),
            lambda state: self.pictures.append(state.step),
            lambda state: self.saved.append(state.step),
            asked_to_stop,
        )

    def run(self, losses: list[float]) -> int:
        """The step at which training ended."""
        schedule = SimpleNamespace(get_last_lr=lambda: [0.5])
        for self.step, loss in enumerate(losses, start=1):
            state = SimpleNamespace(step=self.step, schedules={"denoiser": schedule})
            if not self.reporter.after_step(state, {"denoiser/total": loss}):
                return self.step
        raise AssertionError("training was never ended")


def test_losses_are_logged_as_the_mean_since_the_last_time():
    witness = Witness(steps=5, log_every=2, checkpoint_every=9, preview_every=9)
    assert witness.run([1.0, 3.0, 10.0, 20.0, 7.0]) == 5
    assert {step: metrics["denoiser/total"] for step, metrics in witness.logged.items()} == {2: 2.0, 4: 15.0, 5: 7.0}
    assert witness.logged[2]["learning_rate"] == 0.5


def test_speed_counts_the_examples_of_all_workers(monkeypatch):
    clock = iter([1.0, 2.0, 6.0, 6.0])  # before and after each time that is logged
    monkeypatch.setattr("medgen3d.training.step_reports.time.monotonic", lambda: next(clock))
    witness = Witness(steps=4, log_every=2, checkpoint_every=9, preview_every=9)
    witness.run([0.0] * 4)
    assert witness.logged[4]["examples_per_second"] == 2 * 4 / (6.0 - 2.0)


def test_checkpoints_and_pictures_are_made_when_they_are_due_and_after_the_last_step():
    witness = Witness(steps=7, log_every=1, checkpoint_every=3, preview_every=4)
    assert witness.run([0.0] * 9) == 7
    assert (witness.saved, witness.pictures) == ([3, 6, 7], [4, 7])


@pytest.mark.parametrize(("stop_at", "ended"), [(1, 2), (3, 4), (4, 4)])
def test_a_wish_to_stop_is_granted_with_a_checkpoint_at_the_next_logged_step(stop_at, ended):
    witness = Witness(stop_at, steps=9, log_every=2, checkpoint_every=9, preview_every=9)
    assert witness.run([0.0] * 9) == ended
    assert (witness.saved, witness.pictures) == ([ended], [])


def test_nobody_asks_after_the_last_step():
    witness = Witness(steps=4, log_every=2, checkpoint_every=9, preview_every=9)
    witness.run([0.0] * 4)
    assert witness.asked == [2]
