"""The pipelines that a service offers: what a client's reference means now, and its bundles on this machine.

The catalog is the only place of the service that asks the registry. A reference keeps the meaning it was first given
until `settle` changes it, so that a newly promoted version can be loaded and tried before anybody is served with it.
"""

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from medgen3d.artifacts.bundle import BundleDataset, read_bundle
from medgen3d.artifacts.bundle_weights import WEIGHTS
from medgen3d.artifacts.pipeline import Pipeline
from medgen3d.artifacts.provenance import drawing_hash
from medgen3d.config.experiment import StorageConfig
from medgen3d.core.errors import RegistryError
from medgen3d.core.hashing import sha256_of
from medgen3d.registry.builtin import PREFIX, describe_builtin, resolve_builtin

if TYPE_CHECKING:
    from medgen3d_stages.chain import TrainedStage

Device = Literal["cpu", "cuda"]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedPipeline:
    """One version of a pipeline, as the endpoints and the planning of jobs see it.

    reference: `NAME@3` or `builtin/NAME`.
    max_depth: Largest D of the training cases.
    card: Model card; empty if there is none.
    config_hash, weights_sha256, batch, threads, device: As in a manifest, `SyntheticSetInfo`.
    """

    reference: str
    version: int
    dataset: BundleDataset
    max_depth: int
    card: str = ""
    config_hash: str = ""
    weights_sha256: Mapping[str, str] = field(default_factory=dict)
    batch: int = 1
    threads: int = 1
    device: Device = "cpu"

    @property
    def name(self) -> str:
        """`NAME` or `builtin/NAME`, without a version."""
        return self.reference.partition("@")[0]


class Registry(Protocol):
    """Where pipelines are found; `PipelineRegistry` is the one that services use."""

    def look_up(self, reference: str) -> str:
        """The version that a reference means now: `NAME@3`, or a built-in one as it is. Raises RegistryError."""
        ...

    def resolve(self, pinned: str) -> Pipeline:
        """A version with its bundles on this machine. Raises RegistryError, ArtifactError."""
        ...


@dataclass(frozen=True, slots=True)
class PipelineRegistry:
    """The pipelines of the package, and those registered in MLflow.

    storage: Where the registry is. MLflow is loaded only for a pipeline that is not built in.
    """

    storage: StorageConfig

    def look_up(self, reference: str) -> str:
        """The version that a reference means now.

        Raises:
            RegistryError: It means nothing, or the registry did not answer.
        """
        if reference.startswith(PREFIX):
            describe_builtin(reference.removeprefix(PREFIX))
            return reference
        from medgen3d.registry.pipeline import describe
        from medgen3d.registry.tracking import Tracking

        found = describe(Tracking.of(self.storage), reference)
        return f"{found.info.dataset}@{found.version.number}"

    def resolve(self, pinned: str) -> Pipeline:
        """A version with its bundles on this machine.

        Raises:
            RegistryError: There is no such pipeline, or the registry did not answer.
            ArtifactError: A file is missing or was changed.
        """
        if pinned.startswith(PREFIX):
            return resolve_builtin(pinned)
        from medgen3d.registry.pipeline import resolve_pipeline
        from medgen3d.registry.tracking import Tracking

        return resolve_pipeline(Tracking.of(self.storage), pinned)


class PipelineCatalog:
    """Offered pipelines by reference. Not for an event loop: files are read and the registry may be asked.

    A copy in another process starts empty.

    Args:
        registry: Where pipelines are found.
        offered: What clients may ask for: `NAME`, `NAME@3`, `NAME@champion` or `builtin/NAME`. `NAME` lets clients name
            any version or alias of it; an alias lets them name itself and the version that it means now.
        batch, threads, device: How the service draws, for the manifest.
    """

    def __init__(
        self, registry: Registry, offered: Sequence[str], *, batch: int = 1, threads: int = 1, device: Device = "cpu"
    ) -> None:
        self._registry, self._offered = registry, tuple(offered)
        self._batch, self._threads, self._device = batch, threads, device
        self._start_empty()

    def _start_empty(self) -> None:
        self._meanings: dict[str, str] = {}
        self._pipelines: dict[str, Pipeline] = {}
        self._served: dict[str, ServedPipeline] = {}
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in ("_registry", "_offered", "_batch", "_threads", "_device")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._start_empty()

    def offered_versions(self) -> list[str]:
        """The registry's present answer for each offered reference.

        Raises:
            RegistryError: One does not exist, or the registry did not answer.
        """
        return [self.look_up(reference) for reference in self._offered]

    def look_up(self, reference: str) -> str:
        """The registry's present answer for one reference, whatever this catalog says; see `Registry.look_up`."""
        return self._registry.look_up(reference)

    def meanings(self) -> dict[str, str]:
        """Every reference that may come to mean another version -> the version that it means here."""
        with self._lock:
            return {reference: pinned for reference, pinned in self._meanings.items() if reference != pinned}

    def settle(self, reference: str, pinned: str) -> None:
        """From now on a reference means this version."""
        with self._lock:
            self._meanings[reference] = pinned

    def pipeline(self, reference: str) -> Pipeline:
        """The version that a reference means here, with its bundles on this machine.

        Raises:
            RegistryError: There is no such pipeline.
            ArtifactError: A file is missing or was changed.
        """
        with self._lock:  # one at a time: many requests for one pipeline must not each hash its files
            pinned = self._meaning(reference)
            if pinned not in self._pipelines:
                self._pipelines[pinned] = self._registry.resolve(pinned)
            return self._pipelines[pinned]

    def all(self) -> list[ServedPipeline]:
        """Each offered reference, as it is meant here.

        Raises:
            RegistryError: A version is not there.
        """
        return [self.version(reference) for reference in self._offered]

    def find(self, reference: str) -> ServedPipeline:
        """The version that a client's reference means here.

        Raises:
            RegistryError: There is no such pipeline, or it is not offered.
        """
        name, _, which = reference.partition("@")
        same_name = [offered for offered in self._offered if offered.partition("@")[0] == name]
        if reference in same_name or name in same_name:
            return self.version(reference)
        if same_name and not which:
            return self.version(same_name[0])
        for served in map(self.version, same_name):
            if served.reference == reference:
                return served
        raise RegistryError(f"no pipeline {reference!r} is offered here; offered are {', '.join(self._offered)}")

    def version(self, reference: str) -> ServedPipeline:
        """The version that a reference means here, offered or not: a job ends on the version it was accepted for.

        Raises:
            RegistryError: It is gone, or the registry did not answer.
        """
        with self._lock:
            try:
                pinned, pipeline = self._meaning(reference), self.pipeline(reference)
            except RegistryError as error:  # its sentence names places that are nobody's business
                _log.warning("%s: %s", reference, error)
                raise RegistryError(f"there is no pipeline {reference!r} now; see GET /v1/pipelines") from error
            if pinned not in self._served:
                how = {"batch": self._batch, "threads": self._threads}
                self._served[pinned] = describe(pipeline, pinned, **how, device=self._device)
            return self._served[pinned]

    def _meaning(self, reference: str) -> str:
        if reference not in self._meanings:
            self._meanings[reference] = self.look_up(reference)
        return self._meanings[reference]


def describe(pipeline: Pipeline, reference: str, *, batch: int, threads: int, device: Device) -> ServedPipeline:
    """What the service must know of a version; its JSON files are read and its weights hashed.

    Raises:
        ArtifactError: A bundle is damaged.
    """
    bundles = {stage: read_bundle(folder) for stage, folder in pipeline.bundles.items()}
    first = bundles["mask_generator"].info
    max_depth = first.spec["max_depth"]
    assert isinstance(max_depth, int)
    return ServedPipeline(
        reference=reference,
        version=pipeline.version,
        dataset=first.dataset,
        max_depth=max_depth,
        card=describe_builtin(reference.removeprefix(PREFIX)).card if reference.startswith(PREFIX) else "",
        config_hash=drawing_hash({stage: bundle.info.stage_config for stage, bundle in bundles.items()}),
        weights_sha256={stage: sha256_of(bundle.root / WEIGHTS) for stage, bundle in bundles.items()},
        batch=batch,
        threads=threads,
        device=device,
    )


class StageLoader:
    """Loads one stage of a pipeline onto a device, in whichever process needs it."""

    def __init__(self, catalog: PipelineCatalog, stage: str, device: str) -> None:
        self._catalog, self._stage, self._device = catalog, stage, device

    def __call__(self, reference: str) -> "TrainedStage":
        """Its networks, ready to draw.

        Raises:
            RegistryError: There is no such pipeline.
            ArtifactError: A file is missing, damaged or was changed.
        """
        return read_bundle(self._catalog.pipeline(reference).bundles[self._stage]).trained_stage(self._device)
