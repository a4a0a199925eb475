"""An evaluation from beginning to end: the sets are opened, the judge found or trained, the report written."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from medgen3d.artifacts.bundle import read_bundle
from medgen3d.artifacts.dataset_card import CARD, with_quality
from medgen3d.artifacts.goals import Goal, default_goals, read_goals
from medgen3d.artifacts.report import EvaluatedPipeline, Report
from medgen3d.artifacts.usefulness_results import UsefulnessResults, read_usefulness
from medgen3d.config.experiment import ExperimentConfig
from medgen3d.core.errors import ConfigError
from medgen3d.evaluation.case_measurements import Instruments
from medgen3d.evaluation.extractors import Extractor, pretrained_extractor
from medgen3d.evaluation.judge import SegmenterJudge
from medgen3d.evaluation.on_ray import Progress, map_on_ray
from medgen3d.evaluation.sets import Sets, open_sets
from medgen3d.evaluation.suite import TITLES, evaluate, missing
from medgen3d.recipes.segmenter import judge_for
from medgen3d.registry.pipeline import resolve_pipeline
from medgen3d.registry.segmenters import AUTO
from medgen3d.registry.tracking import Tracking

NO_SEGMENTER = "none"


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """A planned evaluation, in which everything that a user can have got wrong has been checked.

    synthetic: Folder of the synthetic set.
    segmenter: `auto`, `none` or NAME@version.
    """

    sets: Sets
    synthetic: Path
    goals: list[Goal]
    out: Path
    segmenter: str
    extractor: Extractor | None
    bundles: Mapping[str, Path]
    usefulness: UsefulnessResults | None


def plan_evaluation(
    real: Path,
    synthetic: Path,
    out: Path,
    config: ExperimentConfig,
    *,
    train: Path | None = None,
    pipeline: str | None = None,
    segmenter: str = AUTO,
    usefulness: Path | None = None,
    extractor: str | None = None,
    weights: Path | None = None,
    goals: Path | None = None,
) -> Evaluation:
    """Open what is compared; nothing is written and Ray is not needed.

    Args:
        real: A prepared set, of which the test split is compared, or a Decathlon folder.
        synthetic: A synthetic set.
        out: The report's folder.
        config: Where the registry is.
        train: What the pipeline was trained on; by default the training split of `real`.
        pipeline: NAME@3 of the pipeline that drew the set, for membership inference.
        segmenter: The judge: `auto`, `none` or NAME@version.
        usefulness: Folder of a usefulness study of the pipeline.
        extractor: Kind of a pretrained network, to be given with `weights`.
        weights: Its file.
        goals: YAML file of goals; by default those that every report is held to.

    Raises:
        ConfigError: Choices do not go together.
        DataError: A set or file cannot be used.
        RegistryError: There is no such pipeline.
    """
    judged_by = read_goals(goals) if goals else default_goals()  # first: it costs nothing, and may be misspelt
    sets = open_sets(real, synthetic, train)
    if segmenter == AUTO and not (sets.train and sets.train.prepared):
        raise ConfigError(
            "--segmenter auto trains on a prepared set: give it with --train, or choose NAME@version of a registered "
            "segmenter, or none"
        )
    if (extractor is None) != (weights is None):
        raise ConfigError("--extractor and --weights go together: the kind of the network and its file")
    return Evaluation(
        sets=sets,
        synthetic=synthetic,
        goals=judged_by,
        out=out,
        segmenter=segmenter,
        extractor=pretrained_extractor(extractor, weights) if extractor and weights else None,
        bundles=_bundles(pipeline, sets, config) if pipeline else {},
        usefulness=_usefulness(usefulness, sets) if usefulness else None,
    )


def sections_of(planned: Evaluation) -> dict[str, str]:
    """{title of a section: the cases that it will be made of, or the reason why it will not be made}."""
    sets = planned.sets
    reasons = missing(sets, Instruments(usefulness=planned.usefulness))
    if planned.segmenter != NO_SEGMENTER:
        reasons.pop("agreement")
    cases = f"{len(sets.real.case_ids)} real and {len(sets.synthetic.case_ids)} synthetic cases"
    return {title: f"not run: {reasons[name]}" if name in reasons else cases for name, title in TITLES.items()}


def run_evaluation(planned: Evaluation, config: ExperimentConfig, progress: Progress) -> Report:
    """Measure and write the report. Needs a running Ray; the configuration's `use_gpu` must be decided.

    Raises:
        Medgen3dError: A case cannot be read, or the segmenter cannot be had.
        KeyboardInterrupt: Its training was stopped; the same call goes on with it.
    """
    stages = {stage: read_bundle(root).trained_stage() for stage, root in planned.bundles.items()}
    instruments = Instruments(
        judge=None if planned.segmenter == NO_SEGMENTER else _judge(planned, config, progress),
        extractor=planned.extractor,
        stages=stages,
        usefulness=planned.usefulness,
    )
    report = evaluate(planned.sets, instruments, planned.goals, planned.out, map_on_ray(progress))
    _write_card(planned, report)
    return report


def _write_card(planned: Evaluation, report: Report) -> None:
    """The set's card with the report's figures, beside the report: the set itself is left as it is."""
    card = planned.synthetic / CARD
    if card.is_file():
        (planned.out / CARD).write_text(with_quality(card.read_text(encoding="utf-8"), report), encoding="utf-8")


def _judge(planned: Evaluation, config: ExperimentConfig, progress: Progress) -> SegmenterJudge:
    train = planned.sets.train
    root = train.prepared.root if train and train.prepared else Path()  # only `auto` looks at it
    judge = judge_for(
        root, config, planned.segmenter, lambda stage, step, steps, _metrics: progress(f"train {stage}", step, steps)
    )
    found, expected = judge.trained.stage.spec.num_labels, len(planned.sets.real.labels)
    if found != expected:
        raise ConfigError(
            f"{judge.name} tells {found} labels apart, the cases have {expected}; choose a segmenter that was trained "
            "on the same data set, or auto"
        )
    return judge


def _bundles(reference: str, sets: Sets, config: ExperimentConfig) -> Mapping[str, Path]:
    """The folders of the pipeline's bundles, if they drew the set."""
    found = resolve_pipeline(Tracking.of(config.storage), reference)
    for stage, used in sets.info.weights_sha256.items():
        pinned = found.info.stages[stage].weights_sha256
        if pinned != used:
            raise ConfigError(
                f"--pipeline {reference}: its {stage} has the weights {pinned[:12]}..., but the synthetic set was "
                f"drawn with {used[:12]}... by {sets.info.pipeline_name}@{sets.info.pipeline_version}; name that one"
            )
    return found.bundles


def _usefulness(root: Path, sets: Sets) -> UsefulnessResults:
    """A study, if it is one of this pipeline: of its training set, and of its weights where all cases are used."""
    results, evaluated = read_usefulness(root), EvaluatedPipeline.of(sets.info)
    if results.dataset_digest != evaluated.dataset_digest:
        raise ConfigError(
            f"--usefulness {root} is about the prepared set with digest {results.dataset_digest[:12]}, but the "
            f"pipeline was trained on {evaluated.dataset_digest[:12]}; repeat the study with that set"
        )
    for size in results.sizes:
        if size.num_cases == results.num_train and size.pipeline.weights_sha256 != evaluated.weights_sha256:
            raise ConfigError(
                f"--usefulness {root} is about another pipeline than {evaluated.name}@{evaluated.version}; repeat the "
                f"study with --pipeline {evaluated.name}@{evaluated.version}"
            )
    return results
