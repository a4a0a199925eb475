"""The rules of the gates: a pipeline's own limits, a registered segmenter, and its training data where they are."""

from pathlib import Path

from medgen3d.artifacts.bundle import Bundle, read_bundle
from medgen3d.artifacts.pipeline import Pipeline
from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.artifacts.training_limits import prepared_at
from medgen3d.config.experiment import CHAIN, ExperimentConfig
from medgen3d.core.errors import DataError
from medgen3d.registry.builtin import PREFIX
from medgen3d.registry.pipeline import split_reference
from medgen3d.registry.tracking import Tracking
from medgen3d.registry.versions import LATEST, fetch, find_version, list_versions
from medgen3d.synthesis.gates import GateRules

AUTO, NONE = "auto", "none"


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
    bundle, prepared = _segmenter(pipeline, config, segmenter, digest), _training_data(pipeline, train, digest)
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
    if choice == NONE or (choice == AUTO and pipeline.name.startswith(PREFIX)):
        return None
    tracking = Tracking.of(config.storage)
    if choice != AUTO:
        name, which = split_reference(choice)
        return read_bundle(fetch(tracking, find_version(tracking, f"{name}.segmenter", which or LATEST)))
    known = list_versions(tracking, f"{pipeline.info.dataset}.segmenter")
    fitting = [version for version in known if version.tags.get("dataset_digest") == digest]
    return read_bundle(fetch(tracking, fitting[-1])) if fitting else None


def _training_data(pipeline: Pipeline, train: Path | None, digest: str) -> PreparedSet | None:
    place = train or pipeline.data
    found = prepared_at(Path(place).absolute(), digest) if place else None
    if train and found is None:
        raise DataError(
            f"{train} is not the prepared set that {pipeline.name} was trained on, whose digest is {digest[:12]}.... "
            "Give that one, or leave --train out."
        )
    return found
