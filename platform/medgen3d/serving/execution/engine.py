"""The engine: the border between jobs, which know nothing of networks, and the processes that run the chain.

The service accepts a job, pins it to a pipeline's version and hands its cases to an engine; `on_ray.engine` has the one
that draws on a cluster.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from medgen3d.serving.inference.pipeline_catalog import ServedPipeline
from medgen3d_stages.arrays import Image, Mask

Progress = Callable[[str, int, int], None]
"""(stage, units done, units in all) of one job, from the event loop; cheap."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseSpec:
    """One pair to draw.

    case_id: Name of its files.
    shape: (D, h, w) at the pipeline's spacing.
    seeds: By stage.
    style_seed: What its appearance is drawn from; None: its own stream.
    mask: A whole mask [D, h, w] of contiguous ids, for which only an image is drawn; None: a mask is drawn.
    given: Slices of the drawn mask that are known, index -> [h, w].
    """

    case_id: str
    shape: tuple[int, int, int]
    seeds: Mapping[str, int]
    style_seed: int | None = None
    mask: Mask | None = None
    given: Mapping[int, Mask] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class JobPlan:
    """The cases of a job.

    job_id: Whose.
    pipeline: Reference of one version, `NAME@3` or `builtin/NAME`; never an alias.
    cases: They may share a device with those of other jobs.
    folder: Where finished stages of this job are kept, so that a second attempt goes on from there; exists, is seen by
        every machine, and is removed when the job ends.
    """

    job_id: str
    pipeline: str
    cases: Sequence[CaseSpec]
    folder: Path


class UndrawableJobError(Exception):
    """The job itself cannot be drawn (args: a sentence); another attempt would end alike."""


class Engine(Protocol):
    """Draws the cases of jobs. Methods are called from one event loop and never block it."""

    async def pipelines(self) -> list[ServedPipeline]:
        """The pipelines that this service offers, each as its reference means it now."""
        ...

    async def find(self, reference: str) -> ServedPipeline:
        """What a client's reference means now.

        Raises:
            RegistryError: There is no such pipeline, or it is not offered.
        """
        ...

    async def accepted(self, reference: str) -> ServedPipeline:
        """The version that a job was accepted for, `NAME@3`, whether it is still offered or not.

        Raises:
            RegistryError: It is gone.
        """
        ...

    async def run(self, plan: JobPlan, progress: Progress) -> list[tuple[Image, Mask]]:
        """Draw all cases, in their order: (image float32 in [-1, 1], mask of contiguous ids), both [D, h, w].

        Cancelling the awaiting task stops the work within a second of the current denoising step. A job whose
        `folder` holds what an earlier attempt finished goes on from there and gives the same arrays.

        Raises:
            PoisonedOrderError: Another attempt would fail too.
            Exception: Anything else (a lost replica, a lost node): worth another attempt.
        """
        ...
