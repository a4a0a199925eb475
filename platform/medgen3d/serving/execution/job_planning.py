"""From what a client asks for to what an engine draws: limits, and the cases that follow from seed and count."""

from collections.abc import Sequence

import numpy as np

from medgen3d.artifacts.planned_case import Shape, plan_case
from medgen3d.config.experiment import ServingConfig
from medgen3d.core.resample import grid_shape
from medgen3d.core.volume import Volume
from medgen3d.serving.errors import RefusedError
from medgen3d.serving.execution.engine import CaseSpec
from medgen3d.serving.inference.pipeline_catalog import ServedPipeline
from medgen3d.serving.schemas import JobRequest, PipelineDetails, PipelineLimits, PipelineSummary


def limits_of(loaded: ServedPipeline, settings: ServingConfig) -> PipelineLimits:
    """What is accepted for a pipeline: no more slices than it was trained on, and no larger plane."""
    return PipelineLimits(
        max_count=settings.max_count,
        max_depth=loaded.max_depth,
        plane=loaded.dataset.plane,
        max_voxels=settings.max_voxels,
    )


def summary_of(loaded: ServedPipeline, settings: ServingConfig) -> PipelineSummary:
    """A pipeline as clients see it in the list."""
    dataset = loaded.dataset
    return PipelineSummary(
        name=loaded.name,
        version=loaded.version,
        modality=dataset.modality,
        phantom=dataset.phantom,
        labels=dataset.label_table.by_id,
        spacing_mm=dataset.spacing_mm,
        limits=limits_of(loaded, settings),
    )


def details_of(loaded: ServedPipeline, settings: ServingConfig) -> PipelineDetails:
    """A pipeline as clients see it alone, with its card."""
    return PipelineDetails(**summary_of(loaded, settings).model_dump(), card=loaded.card)


def check_request(request: JobRequest, loaded: ServedPipeline, limits: PipelineLimits, mask: Volume | None) -> None:
    """Refuse what cannot be drawn, before it is accepted.

    Args:
        request: What is asked for.
        loaded: The pipeline that it means.
        limits: Of that pipeline.
        mask: The mask beside the request, original label ids.

    Raises:
        RefusedError: A sentence for the client.
    """
    _check_mask_use(request, mask)
    if request.count > limits.max_count:
        raise RefusedError(f"count: found {request.count}, expected at most {limits.max_count}. Send several jobs.")
    if request.depth is not None and request.depth > limits.max_depth:
        raise RefusedError(
            f"depth: found {request.depth} slices, expected at most {limits.max_depth}, the most that "
            f"{loaded.reference} was trained on. Ask for fewer."
        )
    shapes = _shapes(request, loaded, mask)
    voxels = sum(_voxels(shape, request, loaded) for shape in shapes)
    if voxels > limits.max_voxels:
        raise RefusedError(
            f"the job comes to {voxels} voxels, expected at most {limits.max_voxels}. Ask for fewer pairs or a coarser "
            "spacing_mm."
        )


def plan_cases(request: JobRequest, loaded: ServedPipeline, mask: Volume | None) -> list[CaseSpec]:
    """The cases of a job. Seed S and count n mean the cases that bulk synthesis draws for them.

    Args:
        request: As accepted by `check_request`.
        loaded: The version that the job is pinned to.
        mask: As in `check_request`.
    """
    contiguous = None if mask is None else loaded.dataset.label_table.to_contiguous(mask.voxels)  # type: ignore[arg-type]
    known = known_slices(request, mask)
    orders = []
    for number, shape in enumerate(_shapes(request, loaded, mask)):
        planned = plan_case(request.seed, number, loaded.dataset.shapes)
        orders.append(
            CaseSpec(
                case_id=planned.case_id,
                shape=shape,
                seeds=planned.seeds,
                style_seed=request.style,
                mask=contiguous if request.mask_use == "full" else None,
                given={} if contiguous is None else {index: contiguous[index] for index in known},
            )
        )
    return orders


def known_slices(request: JobRequest, mask: Volume | None) -> list[int]:
    """The slices of a partial mask that are kept; none for a whole mask."""
    if mask is None or request.mask_use != "partial":
        return []
    if request.known_slices is not None:
        return sorted(set(request.known_slices))
    return [index for index, plane in enumerate(mask.voxels) if plane.any()]


def _check_mask_use(request: JobRequest, mask: Volume | None) -> None:
    if (mask is None) != (request.mask_use is None):
        found, missing = ("mask_use", "a mask") if mask is None else ("a mask", "mask_use")
        raise RefusedError(f"found {found} without {missing}. Send both, or neither.")
    if request.known_slices is not None and request.mask_use != "partial":
        raise RefusedError("found known_slices without a partial mask. Leave them out, or set mask_use to partial.")
    if mask is None:
        return
    if request.depth is not None:
        raise RefusedError("found depth beside a mask, which has a depth of its own. Leave depth out.")
    depth = mask.voxels.shape[0]
    known = known_slices(request, mask)
    if known and known[-1] >= depth:
        raise RefusedError(f"known_slices: found {known[-1]}, expected at most {depth - 1}, the mask's last slice.")
    if not known and (request.mask_use == "partial" or not mask.voxels.any()):
        raise RefusedError(
            "the mask holds no label but background, so nothing is known of the pair. Send another mask."
        )


def _shapes(request: JobRequest, loaded: ServedPipeline, mask: Volume | None) -> Sequence[Shape]:
    if mask is not None:
        depth, height, width = mask.voxels.shape
        return [(depth, height, width)] * request.count
    planned = (plan_case(request.seed, number, loaded.dataset.shapes).shape for number in range(request.count))
    return [(request.depth or depth, height, width) for depth, height, width in planned]


def _voxels(shape: Shape, request: JobRequest, loaded: ServedPipeline) -> int:
    """Voxels of a pair, drawn or resampled, whichever is more."""
    drawn = int(np.prod(shape, dtype=object))
    if request.spacing_mm is None:
        return drawn
    steps = zip(shape, loaded.dataset.spacing_mm, request.spacing_mm, strict=True)
    if any(length * old / new > 2**31 for length, old, new in steps):  # before it is rounded to a whole number
        return 2**62
    return max(drawn, int(np.prod(grid_shape(shape, loaded.dataset.spacing_mm, request.spacing_mm), dtype=object)))
