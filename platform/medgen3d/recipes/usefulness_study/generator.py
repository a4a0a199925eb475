"""The synthetic pairs of one size: the cases are cut out, the three stages trained on them, the pairs drawn."""

from collections.abc import Mapping

from medgen3d.artifacts.manifest import SyntheticSetInfo
from medgen3d.artifacts.pipeline import Pipeline
from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.artifacts.report import EvaluatedPipeline
from medgen3d.artifacts.subset import write_subset
from medgen3d.artifacts.synthetic_set import SyntheticSet
from medgen3d.artifacts.usefulness_results import Size
from medgen3d.config.experiment import CHAIN, ExperimentConfig
from medgen3d.core.errors import DataError
from medgen3d.recipes.train import plan_runs, train_stages
from medgen3d.recipes.usefulness_study.on_ray import Show
from medgen3d.recipes.usefulness_study.plan import PlannedSize
from medgen3d.registry.pipeline import create_pipeline, list_pipelines, resolve_pipeline
from medgen3d.registry.tracking import Tracking
from medgen3d.synthesis.on_ray import synthesize

_RUN = "generator"


def make_pairs(size: PlannedSize, source: PreparedSet, num_pairs: int, config: ExperimentConfig, show: Show) -> Size:
    """Make the pairs of a size, as far as they are not there. Needs a running Ray unless they are.

    Args:
        size: Which cases the generator may see.
        source: The prepared set that they are cases of.
        num_pairs: How many pairs there shall be.
        config: Of the stages, their training and synthesis; `use_gpu` must be decided.
        show: Told how far training and synthesis are.

    Returns:
        What was used, for the results.

    Raises:
        DataError: Pairs that are there come from other cases or another generator; or pairs cannot be drawn.
        KeyboardInterrupt: Training was stopped; the same call goes on.
    """
    prepared = source if size.whole else write_subset(source, size.prepared, size.case_ids)
    chosen = _chosen_pipeline(size, prepared, config)
    num_there = size.num_pairs_there
    if num_there:
        _check_pairs(size, prepared, chosen)
    if num_there < num_pairs:
        if chosen is None:
            _check_own(size, num_there, num_pairs)
            chosen = _trained_pipeline(size, prepared, config, show)
        _draw(size, chosen, num_pairs, config, show)
    info = SyntheticSet(size.pairs).info
    return Size(
        num_cases=size.num_cases,
        dataset_digest=prepared.digest,
        num_pairs=num_pairs,
        pairs_seed=info.seed,
        pipeline=EvaluatedPipeline.of(info),
    )


def _chosen_pipeline(size: PlannedSize, prepared: PreparedSet, config: ExperimentConfig) -> Pipeline | None:
    """The pipeline that the user named; it must have been trained on these very cases."""
    if size.pipeline is None:
        return None
    found = resolve_pipeline(Tracking.of(config.storage), size.pipeline)
    others = {stage: pinned.dataset_digest for stage, pinned in found.info.stages.items()}
    for stage, digest in others.items():
        if digest != prepared.digest:
            raise DataError(
                f"--pipeline {size.pipeline}: its {stage} was trained on a data set with digest {digest[:12]}, "
                f"expected {prepared.digest[:12]} of {prepared.root}. Name a pipeline that was trained on that."
            )
    return found


def _check_pairs(size: PlannedSize, prepared: PreparedSet, chosen: Pipeline | None) -> None:
    info = SyntheticSet(size.pairs).info
    if info.dataset_digest != prepared.digest:
        raise DataError(
            f"{size.pairs} holds pairs of a generator that was trained on a data set with digest "
            f"{info.dataset_digest[:12]}, expected {prepared.digest[:12]} of {prepared.root}. Remove the folder, or "
            "choose another --out."
        )
    if chosen and not _drawn_by(chosen, info):
        raise DataError(
            f"{size.pairs} holds pairs of another generator than {chosen.name}@{chosen.version}. Remove the folder, or "
            "choose another --out."
        )


def _drawn_by(pipeline: Pipeline, info: SyntheticSetInfo) -> bool:
    """True where its weights are those that drew the pairs; a stage that was left out is listed in neither."""
    return all(pipeline.info.stages[stage].weights_sha256 == used for stage, used in info.weights_sha256.items())


def _check_own(size: PlannedSize, num_there: int, num_pairs: int) -> None:
    """Before hours of training: pairs that were drawn elsewhere cannot be continued."""
    begun = size.storage.training_dir / f"{_RUN}.{CHAIN[0]}"
    if num_there and not begun.exists():
        raise DataError(
            f"{size.pairs} holds {num_there} pairs of a generator that is not in {size.folder}, but {num_pairs} are "
            f"needed. Draw more of them with `medgen3d synthesize`, or set --synthetic {num_there}."
        )


def _trained_pipeline(size: PlannedSize, prepared: PreparedSet, config: ExperimentConfig, show: Show) -> Pipeline:
    own = config.model_copy(update={"storage": size.storage})
    results = train_stages(
        plan_runs(CHAIN, prepared.root, own, _RUN),
        prepared.root,
        own,
        lambda stage, step, steps, _metrics: show(f"{size.num_cases} cases, train {stage}", step, steps),
    )
    if results[-1].version is None:
        raise KeyboardInterrupt
    tracking, name = Tracking.of(own.storage), prepared.info.name
    if name not in list_pipelines(tracking):
        create_pipeline(tracking, name)
    return resolve_pipeline(tracking, name)


def _draw(size: PlannedSize, pipeline: Pipeline, num_pairs: int, config: ExperimentConfig, show: Show) -> None:
    def show_stages(counts: Mapping[str, int], total: int, notes: Mapping[str, str]) -> None:
        for stage, done in counts.items():
            show(f"{size.num_cases} cases, pairs {stage}", done, total, notes.get(stage, ""))

    summary = synthesize(
        pipeline,
        count=num_pairs,
        seed=config.seed,
        out=size.pairs,
        config=config.synthesis,
        progress=show_stages,
    )
    if summary.failures:
        first = next(iter(summary.failures.values()))
        raise DataError(f"{size.pairs}: {len(summary.failures)} of {num_pairs} pairs could not be drawn: {first}")
