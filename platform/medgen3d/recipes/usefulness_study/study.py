"""A study from beginning to end: generators and pairs one after the other, then all trials as Ray tasks."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.artifacts.usefulness_results import FILE, UsefulnessResults, write_usefulness
from medgen3d.core.errors import DataError, RegistryError
from medgen3d.evaluation.usefulness import usefulness
from medgen3d.recipes.usefulness_study.generator import make_pairs
from medgen3d.recipes.usefulness_study.on_ray import Show, run_trials
from medgen3d.recipes.usefulness_study.plan import PlannedTrial, Study, results_so_far
from medgen3d.recipes.usefulness_study.trial import TrialSpec
from medgen3d.registry.tracking import RunLog, Tracking, start_run


def run_study(study: Study, show: Show) -> UsefulnessResults:
    """Finish a study. Needs a running Ray; the configuration's `use_gpu` must be decided.

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
        for trial in run_trials([_spec(study, trial) for trial in study.unfinished(results)], show):
            results = results.with_trials([trial])
            write_usefulness(study.out, results)
            arm = trial.arm.replace("+", "_and_")  # MLflow allows no plus in a name
            run_log.metrics(trial.seed, {f"dice/{arm}/{trial.num_cases:03d}": trial.mean_dice})
        metrics = usefulness(results).section.metrics
        run_log.metrics(0, {metric.name: metric.value for metric in metrics if metric.value is not None})
        run_log.artifact(study.out / FILE)
    return results


def _in_mlflow(study: Study, results: UsefulnessResults, tracking: Tracking) -> UsefulnessResults:
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


def _with_pairs(study: Study, results: UsefulnessResults, show: Show) -> UsefulnessResults:
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
