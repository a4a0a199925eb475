"""Survey: the labels that the training grid takes away, by resampling or the plane's cut.

Small structures fall between the points of a coarser grid, and what lies at the border is cut with it. Both are known
before anything is written.
"""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from medgen3d.artifacts import nifti
from medgen3d.artifacts.prepared_set import DatasetInfo
from medgen3d.core.errors import DataError
from medgen3d.core.resample import Sizes, grid_shape, resample
from medgen3d.core.volume import Volume, affine_from_spacing
from medgen3d.ingest.plan import CasePlan, IngestPlan
from medgen3d.ingest.prepare import crop
from medgen3d.ingest.problems import CaseProblem
from medgen3d.ingest.verify import CaseFacts, label_voxels

_NOTED_CUT = 0.001
"""Share of a label's voxels from which their loss by the plane's cut is told."""


class GridSurvey(BaseModel):
    """The labels of a case, by their original ids.

    found: In the source.
    left: On the training grid.
    notes: Sentences about those that are lost, or cut.
    """

    model_config = ConfigDict(frozen=True)

    case: str
    found: tuple[int, ...]
    left: tuple[int, ...]
    notes: tuple[str, ...] = ()


def survey(case: CasePlan, facts: CaseFacts, info: DatasetInfo) -> GridSurvey:
    """Bring the mask of a case to the training grid and see what is left.

    Raises:
        VolumeFileError: It cannot be read any more.
    """
    voxels = label_voxels(nifti.read(case.pair.mask))
    whole = resample(Volume(voxels=voxels, affine=affine_from_spacing(facts.spacing_mm)), info.spacing_mm, "nearest")
    before, after, cut = (_counts(array) for array in (voxels, whole.voxels, crop(whole, info.plane).voxels))
    found = unchanged(case, facts).found
    notes = [_sentence(label, before, after, cut, info) for label in found]
    left = tuple(label for label in found if label in cut)
    return GridSurvey(case=case.pair.case, found=found, left=left, notes=tuple(note for note in notes if note))


def unchanged(case: CasePlan, facts: CaseFacts) -> GridSurvey:
    """The survey of a case whose grid stays."""
    found = tuple(label for label in facts.labels_found if label)
    return GridSurvey(case=case.pair.case, found=found, left=found)


def changes_grid(facts: CaseFacts, info: DatasetInfo) -> bool:
    """Whether a case is resampled or cut."""
    shape = grid_shape(facts.shape, facts.spacing_mm, info.spacing_mm)
    return shape != facts.shape or shape[1] > info.plane[0] or shape[2] > info.plane[1]


def problem_of(found: GridSurvey, spacing_mm: Sizes, plane: tuple[int, int]) -> CaseProblem | None:
    """The problem of a case of which nothing is left."""
    if found.left:
        return None
    return CaseProblem(
        case=found.case,
        kind="lost on the grid",
        found=f"no labelled voxel at {_by(spacing_mm)} mm in a plane of {_by(plane)}",
        expected="at least one",
        remedy="Choose a larger ingest.plane or a smaller ingest.spacing_mm, or remove the case.",
    )


def with_losses(plan: IngestPlan, surveys: Sequence[GridSurvey]) -> IngestPlan:
    """The same plan, which notes what the grid takes away.

    Raises:
        DataError: A label that some mask has is left in none.
    """
    found = {label for each in surveys for label in each.found}
    gone = sorted(found - {label for each in surveys for label in each.left})
    if gone:
        names = ", ".join(f"{label} ({plan.info.labels[label]})" for label in gone)
        raise DataError(
            f"of the label {names} no case has a voxel left at {_by(plan.info.spacing_mm)} mm in a plane of "
            f"{_by(plan.info.plane)}. Choose a smaller ingest.spacing_mm or a larger ingest.plane, or merge the label "
            "with another one in the masks."
        )
    notes = {note: list(cases) for note, cases in plan.info.notes.items()}
    for each in sorted(surveys, key=lambda one: one.case):
        for note in each.notes:
            notes.setdefault(note, []).append(each.case)
    return plan.model_copy(update={"info": plan.info.model_copy(update={"notes": notes})})


def _sentence(
    label: int, before: dict[int, int], after: dict[int, int], cut: dict[int, int], info: DatasetInfo
) -> str | None:
    named = f"label {label} ({info.labels[label]})"
    if label not in after:
        return f"{named} is lost: of its {before[label]} voxels none is left at {_by(info.spacing_mm)} mm"
    if label not in cut:
        return f"{named} is lost: all of it lies outside the plane of {_by(info.plane)}"
    share = 1 - cut[label] / after[label]
    if share < _NOTED_CUT:
        return None
    return f"{named} loses {share:.1%} of its voxels to the plane of {_by(info.plane)}"


def _counts(mask: np.ndarray) -> dict[int, int]:
    labels, counts = np.unique(mask, return_counts=True)
    return dict(zip(labels.tolist(), counts.tolist(), strict=True))


def _by(sizes: tuple[float, ...]) -> str:
    return " x ".join(f"{size:g}" for size in sizes)
