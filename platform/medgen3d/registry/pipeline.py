"""Pipelines: the registered model `<dataset>.pipeline`, each of whose versions pins three bundles that fit together.

A version is one file, `pipeline.json`. `candidate` is the newest, `champion` the one that was promoted.
"""

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mlflow.entities import LoggedModelInput

from medgen3d.artifacts.bundle import BundleDataset, read_bundle
from medgen3d.artifacts.bundle_weights import WEIGHTS
from medgen3d.artifacts.pipeline import FILE, PinnedBundle, Pipeline, PipelineInfo
from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.artifacts.training_limits import limits_of, training_data
from medgen3d.artifacts.versioned_json import read_versioned, write_versioned
from medgen3d.config.experiment import CHAIN
from medgen3d.core.errors import RegistryError
from medgen3d.registry.builtin import PREFIX, resolve_builtin
from medgen3d.registry.bundles import DATA_TAG, resolve_bundle
from medgen3d.registry.tracking import RunLog, Tracking, explained, start_run
from medgen3d.registry.versions import (
    LATEST,
    MODEL_ID_TAG,
    Version,
    add_version,
    check_name,
    fetch,
    find_version,
    list_models,
    list_versions,
    set_alias,
)

CANDIDATE, CHAMPION = "candidate", "champion"
_SUFFIX = ".pipeline"
_MUST_AGREE = ("name", "modality", "phantom", "labels", "spacing_mm", "plane")
_REFERENCE = re.compile(r"([^@]+)(?:@([A-Za-z0-9_.-]+))?")


@dataclass(frozen=True, kw_only=True, slots=True)
class PipelineVersion:
    """A pipeline as it is registered: what `describe` shows."""

    version: Version
    info: PipelineInfo


def create_pipeline(
    tracking: Tracking, name: str, choices: Mapping[str, str] | None = None, data: Path | None = None
) -> PipelineVersion:
    """Pin one bundle per stage as the next version of the pipeline `name`, and make it the candidate.

    The limits that drawn cases are held to are learned here, if the prepared set of the training is found.

    Args:
        tracking: Where.
        name: The data set's name.
        choices: Stage -> version number, alias or `latest`, of `name`'s own bundles, or of others' as `NAME@alias`.
            A stage that is not mentioned takes its latest bundle.
        data: The prepared set that the mask generator was trained on; None: where it was during training.

    Raises:
        RegistryError: A bundle does not exist, or two bundles differ in a field in which they must agree.
        DataError: `data` is another set.
    """
    tracking.require_answer()
    choices = choices or {}
    for stage in choices.keys() - set(CHAIN):
        raise RegistryError(f"a pipeline has no stage {stage!r}; its stages are {', '.join(CHAIN)}")
    chosen = {stage: _chosen_bundle(tracking, check_name(name), stage, choices.get(stage, LATEST)) for stage in CHAIN}
    bundles = {stage: (version, read_bundle(root).info.dataset) for stage, (version, root) in chosen.items()}
    _check_agreement(list(bundles.values()))
    info = _info({stage: version for stage, (version, _) in bundles.items()}, bundles[CHAIN[0]][1])
    if info.dataset != name:
        raise RegistryError(f"the bundles were trained on {info.dataset}, so their pipeline cannot be called {name}")
    first = bundles[CHAIN[0]][0]
    prepared = training_data(str(first), first.tags["dataset_digest"], data, first.tags.get(DATA_TAG))
    info = _with_training(info, prepared)
    version = _register(tracking, info, [version for version, _ in bundles.values()])
    set_alias(tracking, version, CANDIDATE)
    return PipelineVersion(version=find_version(tracking, version.model, str(version.number)), info=info)


def with_limits(pipeline: Pipeline, data: Path) -> Pipeline:
    """The pipeline with limits for gates that are learned anew from its training data.

    Raises:
        DataError: `data` is another set than it was trained on.
    """
    digest = pipeline.info.stages[CHAIN[0]].dataset_digest
    prepared = training_data(f"{pipeline.name} version {pipeline.version}", digest, data, None)
    return replace(pipeline, info=_with_training(pipeline.info, prepared))


def _with_training(info: PipelineInfo, prepared: PreparedSet | None) -> PipelineInfo:
    if prepared is None:
        return info
    return info.model_copy(update={"limits": limits_of(prepared), "licence": prepared.licence})


def find_pipeline(tracking: Tracking, reference: str, default: str) -> PipelineVersion:
    """A version as it is registered, without fetching its bundles.

    Args:
        tracking: Where.
        reference: `NAME` (then `default` is meant), `NAME@3` or `NAME@alias`.
        default: A number, an alias or `latest`.

    Raises:
        RegistryError: There is no such version; the sentence lists what exists.
    """
    tracking.require_answer()
    name, which = split_reference(reference)
    version = find_version(tracking, name + _SUFFIX, which or default)
    return PipelineVersion(version=version, info=_read(tracking, version))


def resolve_pipeline(tracking: Tracking, reference: str) -> Pipeline:
    """A pipeline with its bundles on this machine, every file being the one that was registered.

    Args:
        tracking: Where.
        reference: `NAME` (the champion; the candidate as long as there is none), `NAME@3` or `NAME@alias`; or
            `builtin/NAME`, for which MLflow is not asked.

    Raises:
        RegistryError: There is no such version, or a bundle is no longer the one that was pinned.
        ArtifactError: A file is missing or was changed.
    """
    if reference.startswith(PREFIX):
        return resolve_builtin(reference)
    version, notice = _chosen_pipeline(tracking, reference)
    info = _read(tracking, version)
    return Pipeline(
        name=info.dataset,
        version=version.number,
        notice=notice,
        info=info,
        bundles={stage: _fetch_pinned(tracking, version, pinned) for stage, pinned in info.stages.items()},
        data=_data(tracking, info),
        licence=info.licence,
    )


def describe(tracking: Tracking, reference: str) -> PipelineVersion:
    """What a version pins, without fetching the bundles; `reference` as in `resolve_pipeline`."""
    version, _ = _chosen_pipeline(tracking, reference)
    return PipelineVersion(version=version, info=_read(tracking, version))


def list_pipelines(tracking: Tracking) -> dict[str, list[Version]]:
    """Every pipeline's name with its versions, oldest first."""
    tracking.require_answer()
    models = list_models(tracking, suffix=_SUFFIX)
    return {model.removesuffix(_SUFFIX): list_versions(tracking, model) for model in models}


def split_reference(reference: str) -> tuple[str, str | None]:
    """`NAME@which` -> (NAME, which); which is None if only NAME is given.

    Raises:
        RegistryError: It is neither.
    """
    match = _REFERENCE.fullmatch(reference)
    if not match:
        raise RegistryError(f"a reference is NAME, NAME@alias or NAME@number, got {reference!r}")
    return check_name(match[1]), match[2]


def _chosen_bundle(tracking: Tracking, name: str, stage: str, choice: str) -> tuple[Version, Path]:
    if "@" not in choice:
        return resolve_bundle(tracking, name, stage, choice)
    other, which = split_reference(choice)
    return resolve_bundle(tracking, other, stage, which or LATEST)


def _check_agreement(bundles: list[tuple[Version, BundleDataset]]) -> None:
    (first, expected), *others = bundles
    for version, dataset in others:
        for field in _MUST_AGREE:
            one, other = getattr(expected, field), getattr(dataset, field)
            if one != other:
                raise RegistryError(
                    f"{first} and {version} do not fit together: {field} is {one} in the first and {other} in the "
                    "second; choose bundles that were trained on the same prepared set"
                )


def _info(versions: Mapping[str, Version], dataset: BundleDataset) -> PipelineInfo:
    pinned = {
        stage: PinnedBundle(
            model=version.model,
            version=version.number,
            weights_sha256=version.sha256[WEIGHTS],
            dataset_digest=version.tags["dataset_digest"],
        )
        for stage, version in versions.items()
    }
    common = dataset.model_dump(include=set(_MUST_AGREE) - {"name"})
    return PipelineInfo(dataset=dataset.name, stages=pinned, **common)


def _register(tracking: Tracking, info: PipelineInfo, bundles: list[Version]) -> Version:
    pinned = {stage: f"{bundle.model} version {bundle.version}" for stage, bundle in info.stages.items()}
    run_id = start_run(tracking, info.dataset, "pipeline", tags={}, params=pinned)
    with explained(tracking.uri):
        parts = [LoggedModelInput(bundle.tags[MODEL_ID_TAG]) for bundle in bundles]
        tracking.client().log_inputs(run_id, models=parts)
    with tempfile.TemporaryDirectory() as folder:
        write_versioned(Path(folder) / FILE, info)
        version = add_version(tracking, info.dataset + _SUFFIX, Path(folder), run_id, pinned, decisive=(FILE,))
    RunLog(tracking.uri, run_id).finish("FINISHED")
    return version


def _chosen_pipeline(tracking: Tracking, reference: str) -> tuple[Version, str]:
    tracking.require_answer()
    name, which = split_reference(reference)
    model = name + _SUFFIX
    if which is not None:
        return find_version(tracking, model, which), ""
    for version in list_versions(tracking, model):
        if CHAMPION in version.aliases:
            return version, ""
    candidate = find_version(tracking, model, CANDIDATE)
    return candidate, (
        f"pipeline {name} has no champion yet, so its candidate, version {candidate.number}, is used; "
        f"`medgen3d pipeline promote {name} --report DIR` makes it the champion"
    )


def _read(tracking: Tracking, version: Version) -> PipelineInfo:
    return read_versioned(fetch(tracking, version) / FILE, PipelineInfo, "Create the pipeline again.")


def _data(tracking: Tracking, info: PipelineInfo) -> str | None:
    first = info.stages[CHAIN[0]]
    return find_version(tracking, first.model, str(first.version)).tags.get(DATA_TAG)


def _fetch_pinned(tracking: Tracking, pipeline: Version, pinned: PinnedBundle) -> Path:
    bundle = find_version(tracking, pinned.model, str(pinned.version))
    found = bundle.sha256.get(WEIGHTS, "none")
    if found != pinned.weights_sha256:
        raise RegistryError(
            f"{pipeline} pins {bundle} with weights {pinned.weights_sha256[:12]}..., but the registry now has "
            f"{found[:12]}... under that number; create the pipeline again"
        )
    return fetch(tracking, bundle)
