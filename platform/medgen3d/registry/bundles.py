"""Bundles as versions of the registered model `<dataset>.<stage>`."""

from pathlib import Path

from mlflow.entities import Dataset, DatasetInput

from medgen3d.artifacts.bundle import CONFIG, read_bundle
from medgen3d.artifacts.bundle_weights import WEIGHTS
from medgen3d.core.errors import RegistryError
from medgen3d.registry.tracking import Tracking, explained
from medgen3d.registry.versions import Version, add_version, check_name, fetch, find_version

DATA_TAG = "dataset_location"
_DIGEST_LENGTH = 36  # of a data set's digest in MLflow; the whole one is a tag


def register_bundle(tracking: Tracking, root: Path, data: Path | None = None) -> Version:
    """Register a bundle; the run that it belongs to is its provenance's `parent_run`.

    The same weights and config of the same run are registered once, however often it is tried.

    Args:
        tracking: Where.
        root: The bundle.
        data: Where the prepared set lies that it was trained on, so that it is found again.

    Raises:
        RegistryError: The data set's name cannot be registered, no run is named, or MLflow refused.
        ArtifactError: `root` is no sound bundle.
    """
    bundle = read_bundle(root)
    dataset, provenance = bundle.info.dataset, bundle.provenance
    model = f"{check_name(dataset.name)}.{bundle.info.stage}"
    if provenance.parent_run is None:
        raise RegistryError(f"the bundle {root} names no tracking run; register bundles that `medgen3d train` made")
    tags = {
        "dataset_digest": dataset.digest,
        "config_hash": provenance.config_hash,
        "code_version": provenance.code_version,
        "parent_run": provenance.parent_run,
    } | ({DATA_TAG: str(data.absolute())} if data else {})
    with explained(tracking.uri):
        made_from = Dataset(dataset.name, dataset.digest[:_DIGEST_LENGTH], source_type="prepared set", source="{}")
        tracking.client().log_inputs(provenance.parent_run, [DatasetInput(made_from, tags=[])])
    return add_version(tracking, model, root, provenance.parent_run, tags, decisive=(CONFIG, WEIGHTS))


def resolve_bundle(tracking: Tracking, dataset: str, stage: str, which: str) -> tuple[Version, Path]:
    """A bundle's version and its folder on this machine, whose files are those that were registered.

    Args:
        tracking: Where.
        dataset: The data set's name.
        stage: The stage's name.
        which: A version number, an alias, or `latest`.

    Raises:
        RegistryError: There is no such version; the sentence lists what exists.
        ArtifactError: A file is missing or was changed.
    """
    version = find_version(tracking, f"{check_name(dataset)}.{stage}", which)
    return version, fetch(tracking, version)
