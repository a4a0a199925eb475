"""Where the service's processes find pipelines: those of the package, and those of the registry."""

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from medgen3d.artifacts.bundle import read_bundle
from medgen3d.artifacts.pipeline import Pipeline
from medgen3d.config.experiment import StorageConfig
from medgen3d.registry.builtin import PREFIX, describe_builtin, resolve_builtin

if TYPE_CHECKING:
    from medgen3d_stages.chain import TrainedStage


class Source:
    """Pipelines by reference. Not for an event loop: files are read and the registry may be asked.

    A reference that was looked up once keeps its meaning until `settle` gives it another one, so that a new version
    can be made ready before anybody is given it. It goes into other processes as it is, without what it has found.

    Args:
        storage: Where the registry is.
        offered: References that the service offers.
    """

    def __init__(self, storage: StorageConfig, offered: Sequence[str]) -> None:
        self._storage, self._offered = storage, tuple(offered)
        self._forget()

    def _forget(self) -> None:
        self._meanings: dict[str, str] = {}
        self._pipelines: dict[str, Pipeline] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, object]:
        return {"_storage": self._storage, "_offered": self._offered}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._forget()

    def offered(self) -> list[str]:
        """The versions that are offered now, each as the reference that means it for ever.

        Raises:
            RegistryError: One does not exist, or the registry did not answer.
        """
        return [self.look_up(reference) for reference in self._offered]

    def look_up(self, reference: str) -> str:
        """Ask what a reference means now: `NAME@3`, or a built-in one as it is.

        Raises:
            RegistryError: It means nothing, or the registry did not answer.
        """
        if reference.startswith(PREFIX):
            describe_builtin(reference.removeprefix(PREFIX))
            return reference
        from medgen3d.registry.pipeline import describe  # loads MLflow, which built-in pipelines do not need
        from medgen3d.registry.tracking import Tracking

        found = describe(Tracking.of(self._storage), reference)
        return f"{found.info.dataset}@{found.version.number}"

    def meanings(self) -> dict[str, str]:
        """Every reference that may come to mean another version -> the one that it means here."""
        with self._lock:
            return {reference: pinned for reference, pinned in self._meanings.items() if reference != pinned}

    def settle(self, reference: str, pinned: str) -> None:
        """From now on a reference means this version."""
        with self._lock:
            self._meanings[reference] = pinned

    def pipeline(self, reference: str) -> Pipeline:
        """The pipeline that a reference means here, with its bundles on this machine.

        Raises:
            RegistryError: There is no such pipeline.
            ArtifactError: A file is missing or was changed.
        """
        with self._lock:  # one at a time: many requests for one pipeline must not each hash its files
            if reference not in self._meanings:
                self._meanings[reference] = self.look_up(reference)
            pinned = self._meanings[reference]
            if pinned not in self._pipelines:
                self._pipelines[pinned] = self._resolve(pinned)
            return self._pipelines[pinned]

    def _resolve(self, pinned: str) -> Pipeline:
        if pinned.startswith(PREFIX):
            return resolve_builtin(pinned)
        from medgen3d.registry.pipeline import resolve_pipeline
        from medgen3d.registry.tracking import Tracking

        return resolve_pipeline(Tracking.of(self._storage), pinned)


class StageLoader:
    """Loads one stage of a pipeline onto a device, in whichever process needs it."""

    def __init__(self, source: Source, stage: str, device: str) -> None:
        self._source, self._stage, self._device = source, stage, device

    def __call__(self, reference: str) -> "TrainedStage":
        """Its networks, ready to draw.

        Raises:
            RegistryError: There is no such pipeline.
            ArtifactError: A file is missing, damaged or was changed.
        """
        return read_bundle(self._source.pipeline(reference).bundles[self._stage]).trained_stage(self._device)
