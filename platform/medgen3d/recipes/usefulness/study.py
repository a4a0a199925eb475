"""A study from beginning to end: generators and pairs one after the other, then all trials as Ray tasks."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray
import torch

from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.artifacts.usefulness import FILE, Trial, Usefulness, write_usefulness
from medgen3d.config.experiment import UsefulnessConfig
from medgen3d.core.errors import DataError, Medgen3dError, RegistryError
from medgen3d.evaluation.usefulness import usefulness
from medgen3d.recipes.usefulness.generator import Show, make_pairs
from medgen3d.recipes.usefulness.plan import PlannedTrial, Study, results_so_far
from medgen3d.recipes.usefulness.trial import TrialSpec, run_trial
from medgen3d.registry.tracking import RunLog, Tracking, start_run

_POLL_S = 1.0


def run_study(study: Study, show: Show) -> Usefulness:
    """Do what is missing of a study. Needs a running Ray; the configuration's `use_gpu` must be decided.

    Args:
        study: From `plan_study`.
        show: Told how far each part is.

    Returns:
        All results, which are also in the study's folder.

    Raises:
        Medgen3dError: A generator or a trial failed; what is finished is kept.
        KeyboardInterrupt: The study was stopped; the same call goes on with it.
    """
    results = results_so_far(study)
    if not study.unfinished(results):
        return results
    tracking = Tracking.of(study.config.storage)
    results = _in_mlflow(study, results, tracking)
    with _logged(RunLog(tracking.uri, str(results.mlflow_run))) as run_log:
        results = _with_pairs(study, results, show)
        for trial in _run_trials(study, study.unfinished(results), show):
            results = results.with_trials([trial])
            write_usefulness(study.out, results)
            arm = trial.arm.replace("+", "_and_")  # MLflow allows no plus in a name
            run_log.metrics(trial.seed, {f"dice/{arm}/{trial.num_cases:03d}": trial.mean_dice})
        figures = usefulness(results).section.figures
        run_log.metrics(0, {figure.name: figure.value for figure in figures if figure.value is not None})
        run_log.artifact(study.out / FILE)
    return results


def _in_mlflow(study: Study, results: Usefulness, tracking: Tracking) -> Usefulness:
    """The results with a run in MLflow, begun or opened again."""
    if results.mlflow_run is not None:
        RunLog(tracking.uri, results.mlflow_run).reopen()
        return results
    tags = {"dataset": results.dataset, "dataset_digest": results.dataset_digest}
    run_id = start_run(tracking, results.dataset, "usefulness", tags, study.config.model_dump(mode="json"))
    results = results.model_copy(update={"mlflow_run": run_id})
    try:
        write_usefulness(study.out, results)
    except OSError as error:
        raise DataError(f"cannot write to {study.out}: {error.strerror}. Choose another --out.") from error
    return results


@contextmanager
def _logged(run_log: RunLog) -> Iterator[RunLog]:
    """Says in MLflow how the block ended."""
    try:
        yield run_log
    except BaseException as error:
        with suppress(RegistryError):  # the error itself is what matters
            run_log.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    run_log.finish("FINISHED")


def _with_pairs(study: Study, results: Usefulness, show: Show) -> Usefulness:
    """The results with every size that still has trials; its pairs are there and are those of former trials."""
    source = PreparedSet(study.data)
    known = {size.num_cases: size for size in results.sizes}
    needed = {trial.size.num_cases for trial in study.unfinished(results)}
    for planned in (size for size in study.sizes if size.num_cases in needed):
        made = make_pairs(planned, source, study.num_pairs, study.config, show)
        before = known.get(planned.num_cases)
        if before is None:
            results = results.with_size(made)
            write_usefulness(study.out, results)
        elif before != made:
            raise DataError(
                f"{planned.pairs} holds other pairs than those of the trials that {study.out} has already. Restore "
                "them, or choose another --out."
            )
    return results


def _run_trials(study: Study, trials: list[PlannedTrial], show: Show) -> Iterator[Trial]:
    """Trials as they are finished, with a bounded number of them under way."""
    options, num_steps = study.config.usefulness, study.config.training.segmenter.steps * len(trials)
    num_gpus = options.gpus_per_trial if options.use_gpu else 0
    task = ray.remote(num_cpus=options.threads, num_gpus=num_gpus)(_trial)
    tally = ray.remote(num_cpus=0)(_Tally).remote()
    waiting = [_spec(study, trial) for trial in reversed(trials)]
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
                show("trials", len(trials) - len(waiting) - len(at_work), len(trials))
    finally:
        for unfinished in at_work:
            ray.cancel(unfinished, force=True)


def _spec(study: Study, planned: PlannedTrial) -> TrialSpec:
    return TrialSpec(
        arm=planned.arm,
        case_ids=planned.size.case_ids,
        data=study.data,
        pairs=planned.size.pairs,
        num_pairs=study.num_pairs,
        seed=planned.seed,
        config=study.config,
    )


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
