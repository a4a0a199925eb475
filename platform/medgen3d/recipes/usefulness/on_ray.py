"""Trials as Ray tasks: a bounded number of them under way, each given out as soon as it is finished."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
import torch

from medgen3d.artifacts.usefulness import Trial
from medgen3d.config.experiment import UsefulnessConfig
from medgen3d.core.errors import Medgen3dError
from medgen3d.recipes.usefulness.trial import TrialSpec, run_trial

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
        Medgen3dError: One of ours ended a trial; the others under way are given up.
    """
    config = specs[0].config
    options, num_steps = config.usefulness, config.training.segmenter.steps * len(specs)
    num_gpus = options.gpus_per_trial if options.use_gpu else 0
    task = ray.remote(num_cpus=options.threads, num_gpus=num_gpus)(_trial)
    tally = ray.remote(num_cpus=0)(_Tally).remote()
    waiting = list(reversed(specs))
    at_work: list[Any] = []
    try:
        while waiting or at_work:
            while waiting and len(at_work) < _num_slots(options):
                at_work.append(task.remote(waiting.pop(), tally))
            done, at_work = ray.wait(at_work, timeout=_POLL_S)
            show("trial steps", ray.get(tally.read.remote()), num_steps)
            for each in done:
                trial, error = ray.get(each)
                if error is not None:
                    raise error
                yield trial
                show("trials", len(specs) - len(waiting) - len(at_work), len(specs))
    finally:
        for unfinished in at_work:
            ray.cancel(unfinished, force=True)


def _trial(spec: TrialSpec, tally: Any) -> tuple[Trial | None, Medgen3dError | None]:
    """The task: a trial, or the error of ours that ended it, which Ray would wrap into errors of its own."""
    options = spec.config.usefulness
    torch.set_num_threads(options.threads)  # Ray would derive it from the logical CPUs
    try:
        return run_trial(spec, torch.device("cuda" if options.use_gpu else "cpu"), tally.add.remote), None
    except Medgen3dError as error:
        return None, error


class _Tally:
    """Counts the steps of all trials, for the progress display."""

    def __init__(self) -> None:
        self.steps = 0

    def add(self) -> None:
        self.steps += 1

    def read(self) -> int:
        return self.steps


def _num_slots(options: UsefulnessConfig) -> int:
    """Trials at a time. A local Ray has more logical CPUs than its machine has real ones."""
    have = ray.cluster_resources()
    if options.use_gpu:
        return max(1, int(have.get("GPU", 0) / options.gpus_per_trial))
    num_cpus = (os.cpu_count() or 1) if len(ray.nodes()) == 1 else int(have.get("CPU", 1))
    return max(1, num_cpus // options.threads)
