"""The gates of a pipeline: its own limits, a registered segmenter, and its training data, if they are at hand."""

from pathlib import Path

from medgen3d.artifacts.bundle import Bundle, read_bundle
from medgen3d.artifacts.pipeline import Pipeline
from medgen3d.artifacts.training_limits import training_data
from medgen3d.config.experiment import CHAIN, ExperimentConfig
from medgen3d.registry.builtin import PREFIX
from medgen3d.registry.segmenters import AUTO, find_segmenter
from medgen3d.registry.tracking import Tracking
from medgen3d.registry.versions import fetch
from medgen3d.synthesis.gates import GateRules


def gate_rules(
    pipeline: Pipeline, config: ExperimentConfig, segmenter: str = AUTO, train: Path | None = None
) -> tuple[GateRules, dict[str, str]]:
    """The gates, and why others do not run.

    Args:
        pipeline: What draws.
        config: Whether there are gates at all, and where the registry lies.
        segmenter: `NAME@version` of a registered segmenter; `auto`: the newest that was trained on the same data, if
            there is one; or `none`.
        train: The prepared set of the training; None: where it was during training, if it is still there.

    Raises:
        DataError: `train` is another set than the pipeline was trained on.
        RegistryError: There is no such segmenter.
    """
    if not config.synthesis.gates:
        return GateRules(), {"all gates": "synthesis.gates is false"}
    digest = pipeline.info.stages[CHAIN[0]].dataset_digest
    bundle = _segmenter(pipeline, config, segmenter, digest)
    prepared = training_data(pipeline.name, digest, train, pipeline.data)
    idle = {}
    if pipeline.info.limits is None:
        idle["limits of labels"] = "the pipeline has none; create it again where its prepared set is at hand"
    if bundle is None:
        idle["alignment"] = "no segmenter is registered that was trained on the same data"
    if pipeline.info.limits is None or pipeline.info.limits.near_copy is None:
        idle["near copies"] = "the pipeline has no limits of them"
    elif prepared is None:
        idle["near copies"] = "the prepared set of the training is not at hand; name it with --train"
    rules = GateRules(
        limits=pipeline.info.limits,
        segmenter=bundle,
        min_alignment=config.synthesis.min_alignment,
        train=prepared,
    )
    return rules, idle


def _segmenter(pipeline: Pipeline, config: ExperimentConfig, choice: str, digest: str) -> Bundle | None:
    tracking, is_builtin = Tracking.of(config.storage), pipeline.name.startswith(PREFIX)
    version = find_segmenter(tracking, choice, None if is_builtin else (pipeline.info.dataset, digest))
    return read_bundle(fetch(tracking, version)) if version else None
