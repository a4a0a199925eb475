"""Trials as Ray tasks: a bounded number of them under way, each given out as soon as it is finished."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
import torch

from medgen3d.artifacts.usefulness_results import Trial
from medgen3d.config.experiment import UsefulnessConfig
from medgen3d.core.outcome import Outcome
from medgen3d.evaluation.on_ray import num_slots
from medgen3d.recipes.usefulness_study.trial import TrialSpec, run_trial

Show = Callable[..., None]
"""(what, done, total, note=""): how far something is."""
_POLL_S = 1.0


def run_trials(specs: Sequence[TrialSpec], show: Show) -> Iterator[Trial]:
    """Run trials of one configuration, whose `use_gpu` is decided. Needs a running Ray.

    Args:
        specs: At least one; they are begun in this order.
        show: Told how many trials, and steps of all of them, are done.

    Yields:
        The trials in the order in which they are finished.

    Raises:
        Medgen3dError: One of ours ended a trial; those under way end with this process's Ray job. They are
            not cancelled, since Ray can crash when a task is cancelled just as it ends.
    """
    config = specs[0].config
    options, num_steps = config.usefulness, config.training.segmenter.steps * len(specs)
    num_gpus = options.gpus_per_trial if options.use_gpu else 0
    task = ray.remote(num_cpus=options.threads, num_gpus=num_gpus)(_trial)
    tally = ray.remote(num_cpus=0)(_Tally).remote()
    waiting = list(reversed(specs))
    at_work: list[Any] = []
    while waiting or at_work:
        while waiting and len(at_work) < _num_slots(options):
            at_work.append(task.remote(waiting.pop(), tally))
        done, at_work = ray.wait(at_work, timeout=_POLL_S)
        show("trial steps", ray.get(tally.read.remote()), num_steps)
        for each in done:
            yield ray.get(each).unwrap()
            show("trials", len(specs) - len(waiting) - len(at_work), len(specs))


def _trial(spec: TrialSpec, tally: Any) -> Outcome[Trial]:
    """The task."""
    options = spec.config.usefulness
    torch.set_num_threads(options.threads)  # Ray would derive it from the logical CPUs
    return Outcome.of(run_trial, spec, torch.device("cuda" if options.use_gpu else "cpu"), tally.add.remote)


class _Tally:
    """Counts the steps of all trials, for the progress display."""

    def __init__(self) -> None:
        self.steps = 0

    def add(self) -> None:
        self.steps += 1

    def read(self) -> int:
        return self.steps


def _num_slots(options: UsefulnessConfig) -> int:
    if options.use_gpu:
        return max(1, int(ray.cluster_resources().get("GPU", 0) / options.gpus_per_trial))
    return num_slots(options.threads)
