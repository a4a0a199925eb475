"""Which pipelines a service offers, and what a client's reference to one of them means now."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from medgen3d.artifacts.bundle import WEIGHTS, read_bundle
from medgen3d.artifacts.pipeline import Pipeline
from medgen3d.artifacts.provenance import config_hash
from medgen3d.core.errors import RegistryError
from medgen3d.core.hashing import sha256_of
from medgen3d.registry.builtin import PREFIX, describe_builtin
from medgen3d.serving.engine import Loaded

FRESH_S = 5.0
"""How long an answer of the registry is believed: a promoted champion is noticed after that [s]."""

_log = logging.getLogger(__name__)

Resolve = Callable[[str], Pipeline]
"""What a reference means now, with bundles on this machine; `medgen3d.registry.pipeline.resolve_pipeline`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """A pipeline that is offered, with its bundles on this machine."""

    loaded: Loaded
    pipeline: Pipeline


class Offers:
    """The offered pipelines. Not for an event loop: files are read and the registry may be asked.

    Args:
        references: What is offered: `NAME`, `NAME@3`, `NAME@champion` or `builtin/NAME`. `NAME` lets clients name any
            version or alias of it; an alias itself, or the version that it means now.
        resolve: Finds a pipeline.
        batch, threads, device: How the engine draws, for the manifest.
    """

    def __init__(
        self,
        references: Sequence[str],
        resolve: Resolve,
        *,
        batch: int = 1,
        threads: int = 1,
        device: Literal["cpu", "cuda"] = "cpu",
    ) -> None:
        self._references = tuple(references)
        self._resolve = resolve
        self._how = (batch, threads, device)
        self._known: dict[str, tuple[float, Offer]] = {}

    def all(self) -> list[Offer]:
        """Each offered reference, as it is meant now.

        Raises:
            RegistryError: A version is not there.
        """
        return [self._find(reference) for reference in self._references]

    def find(self, reference: str) -> Offer:
        """What a client's reference means now.

        Raises:
            RegistryError: There is no such pipeline, or it is not offered.
        """
        name, _, which = reference.partition("@")
        same_name = [offered for offered in self._references if offered.partition("@")[0] == name]
        if reference in same_name or name in same_name:
            return self._find(reference)
        if same_name and not which:
            return self._find(same_name[0])
        for offer in map(self._find, same_name):
            if offer.loaded.reference == reference:
                return offer
        offered = ", ".join(self._references)
        raise RegistryError(f"no pipeline {reference!r} is offered here; offered are {offered}")

    def accepted(self, reference: str) -> Offer:
        """One version, whether it is still offered or not: a job ends on the version that it was accepted for.

        Raises:
            RegistryError: It is gone, or the registry did not answer.
        """
        return self._find(reference)

    def _find(self, reference: str) -> Offer:
        since, offer = self._known.get(reference, (0.0, None))
        now = time.monotonic()
        if offer is not None and now - since <= FRESH_S:
            return offer
        try:
            found = self._described(self._resolve(reference), reference)
        except RegistryError as error:  # its sentence names places that are nobody's business
            _log.warning("%s: %s", reference, error)
            if offer is None:
                raise RegistryError(f"there is no pipeline {reference!r} now; see GET /v1/pipelines") from error
            found = offer  # the registry is away; what was known a moment ago still serves
        self._known[reference] = now, found
        return found

    def _described(self, pipeline: Pipeline, reference: str) -> Offer:
        pinned = reference if reference.startswith(PREFIX) else f"{pipeline.name}@{pipeline.version}"
        _, known = self._known.get(pinned, (0.0, None))
        if known is not None:  # a version never changes, so its hashes need not be made again
            return known
        batch, threads, device = self._how
        offer = Offer(loaded=describe(pipeline, pinned, batch=batch, threads=threads, device=device), pipeline=pipeline)
        self._known[pinned] = time.monotonic(), offer
        return offer


def describe(pipeline: Pipeline, reference: str, *, batch: int, threads: int, device: Literal["cpu", "cuda"]) -> Loaded:
    """What the service must know of a pipeline; its JSON files are read and its weights hashed.

    Raises:
        ArtifactError: A bundle is damaged.
    """
    bundles = {stage: read_bundle(folder) for stage, folder in pipeline.bundles.items()}
    first = bundles["mask_generator"].info
    max_depth = first.spec["max_depth"]
    assert isinstance(max_depth, int)
    return Loaded(
        reference=reference,
        version=pipeline.version,
        dataset=first.dataset,
        max_depth=max_depth,
        card=describe_builtin(reference.removeprefix(PREFIX)).card if reference.startswith(PREFIX) else "",
        config_hash=config_hash({stage: bundle.info.stage_config for stage, bundle in bundles.items()}),
        weights_sha256={stage: sha256_of(bundle.root / WEIGHTS) for stage, bundle in bundles.items()},
        batch=batch,
        threads=threads,
        device=device,
    )
