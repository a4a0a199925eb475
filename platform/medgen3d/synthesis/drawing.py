"""Drawing one stage for a batch of cases together, as a worker does; without a cluster and without files."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from medgen3d.artifacts.bundle import BundleDataset
from medgen3d.measures.targets import Target, best_candidate, parse_target, unmet
from medgen3d.synthesis.batch_codec import InFlightBatch, InFlightCase, begin
from medgen3d_stages.arrays import Mask
from medgen3d_stages.chain import TrainedStage, draw_images, draw_masks, refine

NOT_FINITE, TARGETS = "not finite", "targets"
_LAST_SHARED = "image_sequence_generator"
"""The last stage that draws several cases in one device batch, where neighbours can change the last bits of a case.

The refiner takes volume after volume, so from there on only the cases that are wanted are drawn.
"""


def advance_batch(stage: str, trained: TrainedStage, batch: InFlightBatch, dataset: BundleDataset) -> InFlightBatch:
    """Draw one stage for a batch; cases that are not wanted leave it after the last stage that they matter to."""
    cases = advance(stage, trained, batch.cases, dataset)
    if stage == _LAST_SHARED:
        cases = [case for case in cases if case.plan.number in batch.wanted]
    return replace(batch, cases=cases)


def advance(stage: str, trained: TrainedStage, cases: list[InFlightCase], dataset: BundleDataset) -> list[InFlightCase]:
    """Draw one stage for all cases; a case that fails is marked and does not stop the others.

    Args:
        stage: Name of the stage.
        trained: The stage with its networks.
        cases: As the stage before left them.
        dataset: What the stage was trained on.
    """
    sound = [case for case in cases if case.is_sound]
    drawn = {case.plan.number: case for case in _together(stage, trained, sound, dataset)}
    return [drawn.get(case.plan.number, case) for case in cases]


def _together(
    stage: str, trained: TrainedStage, cases: list[InFlightCase], dataset: BundleDataset
) -> list[InFlightCase]:
    if not cases:
        return []
    try:
        return [_checked(stage, case) for case in _DRAW[stage](trained, cases, dataset)]
    except Exception as error:  # whatever went wrong: the batch's other cases must not be lost with it
        reason = f"{stage} failed with {type(error).__name__}: {error}"
        if len(cases) == 1:
            return [replace(cases[0], failure=f"case {cases[0].plan.case_id}: {reason}")]
    note = f"drawn alone, since for its batch {reason}"
    alone = [_together(stage, trained, [case], dataset)[0] for case in cases]
    return [case if case.failure else replace(case, note=note) for case in alone]


def _draw_masks(trained: TrainedStage, cases: list[InFlightCase], dataset: BundleDataset) -> list[InFlightCase]:
    """A mask for every case that has none, or the best of several where the plan names targets."""
    unfinished = [case for case in cases if not case.plan.mask]
    targets = {
        case.plan.number: [parse_target(text, dataset.label_table) for text in case.plan.targets] for case in unfinished
    }
    candidates: dict[int, list[Mask]] = {case.plan.number: [] for case in unfinished}
    for place in range(max((case.plan.best_of for case in unfinished), default=0)):
        unfinished = [case for case in unfinished if place < case.plan.best_of]
        for case, mask in zip(unfinished, _candidates(trained, unfinished, place), strict=True):
            candidates[case.plan.number].append(mask)
        unfinished = [
            case
            for case in unfinished
            if unmet(candidates[case.plan.number][-1], targets[case.plan.number], dataset.spacing_mm)
        ]
    return [
        _chosen(case, candidates[case.plan.number], targets[case.plan.number], dataset)
        if case.plan.number in candidates
        else case
        for case in cases
    ]


def _candidates(trained: TrainedStage, cases: list[InFlightCase], place: int) -> list[Mask]:
    if not cases:
        return []
    known = [{index: case.mask[index] for index in case.plan.known_slices} for case in cases]
    shapes, seeds = [case.plan.shape for case in cases], [case.plan.mask_seed(place) for case in cases]
    return draw_masks(trained, shapes, seeds, known)


def _chosen(case: InFlightCase, masks: list[Mask], targets: list[Target], dataset: BundleDataset) -> InFlightCase:
    if not targets:
        return replace(case, mask=masks[0])
    mask = masks[best_candidate(masks, targets, dataset.spacing_mm)]
    missed = unmet(mask, targets, dataset.spacing_mm)
    case = replace(case, mask=mask)
    return case.rejected(TARGETS, f"none of {len(masks)} masks met {'; '.join(missed)}") if missed else case


def _draw_images(trained: TrainedStage, cases: list[InFlightCase], _dataset: BundleDataset) -> list[InFlightCase]:
    seeds, styles = _seeds(cases, "image_sequence_generator"), [case.plan.style for case in cases]
    images = draw_images(trained, [case.mask for case in cases], seeds, styles)
    return [replace(case, image=image) for case, image in zip(cases, images, strict=True)]


def _refine(trained: TrainedStage, cases: list[InFlightCase], _dataset: BundleDataset) -> list[InFlightCase]:
    images, masks = [case.image for case in cases], [case.mask for case in cases]
    refined = refine(trained, images, masks, _seeds(cases, "refiner"))
    return [replace(case, image=image) for case, image in zip(cases, refined, strict=True)]


_DRAW: dict[str, Callable[[TrainedStage, list[InFlightCase], BundleDataset], list[InFlightCase]]] = {
    "mask_generator": _draw_masks,
    "image_sequence_generator": _draw_images,
    "refiner": _refine,
}


def _seeds(cases: list[InFlightCase], stage: str) -> list[int]:
    return [case.plan.seeds[stage] for case in cases]


def _checked(stage: str, case: InFlightCase) -> InFlightCase:
    """The case; marked where the stage gave what nobody can use."""
    if case.mask.shape != case.plan.shape or case.image.shape != case.plan.shape:
        found = f"{stage} gave mask {case.mask.shape} and image {case.image.shape}, expected {case.plan.shape}"
        empty = begin([case.plan])[0]
        return replace(empty, earlier_rejections=case.earlier_rejections, failure=f"case {case.plan.case_id}: {found}")
    if not np.isfinite(case.image).all():
        return case.rejected(NOT_FINITE, f"{stage} gave NaN or infinite intensities; its training probably diverged")
    return case
