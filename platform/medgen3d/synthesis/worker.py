"""What a worker does with a batch of cases: draw one stage for all of them in lock-step. No cluster, no files."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from medgen3d.synthesis.work import CaseInWork
from medgen3d_stages.chain import TrainedStage, draw_images, draw_masks, refine


def advance(stage: str, trained: TrainedStage, cases: list[CaseInWork]) -> list[CaseInWork]:
    """Draw one stage for all cases; a case that fails is marked and does not stop the others.

    Args:
        stage: Name of the stage.
        trained: The stage with its networks.
        cases: As the stage before left them.
    """
    sound = [case for case in cases if not case.failure]
    drawn = {case.plan.number: case for case in _together(stage, trained, sound)}
    return [drawn.get(case.plan.number, case) for case in cases]


def _together(stage: str, trained: TrainedStage, cases: list[CaseInWork]) -> list[CaseInWork]:
    if not cases:
        return []
    try:
        return [_checked(stage, case) for case in _DRAW[stage](trained, cases)]
    except Exception as error:  # whatever went wrong: the batch's other cases must not be lost with it
        reason = f"{stage} failed with {type(error).__name__}: {error}"
        if len(cases) == 1:
            return [replace(cases[0], failure=f"case {cases[0].plan.case_id}: {reason}")]
    note = f"drawn alone, since for its batch {reason}"
    alone = [_together(stage, trained, [case])[0] for case in cases]
    return [case if case.failure else replace(case, note=note) for case in alone]


def _masks(trained: TrainedStage, cases: list[CaseInWork]) -> list[CaseInWork]:
    masks = draw_masks(trained, [case.plan.shape for case in cases], _seeds(cases, "mask_generator"))
    return [replace(case, mask=mask) for case, mask in zip(cases, masks, strict=True)]


def _images(trained: TrainedStage, cases: list[CaseInWork]) -> list[CaseInWork]:
    images = draw_images(trained, [case.mask for case in cases], _seeds(cases, "image_sequence_generator"))
    return [replace(case, image=image) for case, image in zip(cases, images, strict=True)]


def _refined(trained: TrainedStage, cases: list[CaseInWork]) -> list[CaseInWork]:
    images, masks = [case.image for case in cases], [case.mask for case in cases]
    refined = refine(trained, images, masks, _seeds(cases, "refiner"))
    return [replace(case, image=image) for case, image in zip(cases, refined, strict=True)]


_DRAW: dict[str, Callable[[TrainedStage, list[CaseInWork]], list[CaseInWork]]] = {
    "mask_generator": _masks,
    "image_sequence_generator": _images,
    "refiner": _refined,
}


def _seeds(cases: list[CaseInWork], stage: str) -> list[int]:
    return [case.plan.seeds[stage] for case in cases]


def _checked(stage: str, case: CaseInWork) -> CaseInWork:
    """The case, or marked as failed where the stage gave what nobody can use."""
    failure = ""
    if case.mask.shape != case.plan.shape or case.image.shape != case.plan.shape:
        failure = f"{stage} gave mask {case.mask.shape} and image {case.image.shape}, expected {case.plan.shape}"
    elif not np.isfinite(case.image).all():
        failure = f"{stage} gave NaN or infinite intensities; its training probably diverged"
    return replace(case, failure=f"case {case.plan.case_id}: {failure}") if failure else case
