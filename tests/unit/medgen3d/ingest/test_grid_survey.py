"""The survey of the grid: labels that it takes away are named, and one that is gone everywhere is refused."""

import numpy as np
import pytest

from medgen3d.artifacts.intensity import Intensity
from medgen3d.core.errors import DataError
from medgen3d.ingest.grid_survey import GridSurvey, changes_grid, problem_of, survey, with_losses
from medgen3d.ingest.plan import CasePlan, IngestPlan
from medgen3d.ingest.sources import Pair
from medgen3d.ingest.verify import CaseFacts


@pytest.fixture
def surveyed(write_pair, dataset_info):
    """surveyed(mask, **changes of the set): of a case of 8 slices of 2 mm, 7 x 6 pixels of 1 mm."""

    def make(mask: np.ndarray, **changes: object) -> GridSurvey:
        image_path, mask_path = write_pair("a", mask=mask)
        case = CasePlan(
            pair=Pair(case="a", image=image_path, mask=mask_path), split="train", intensity=Intensity(low=0, high=1)
        )
        facts = CaseFacts(
            shape=(8, 7, 6),
            spacing_mm=(2.0, 1.0, 1.0),
            axis_codes="RAS",
            intensity=case.intensity,
            labels_found=tuple(np.unique(mask).tolist()),
            sha256={},
        )
        info = dataset_info.model_copy(update=changes)
        assert changes_grid(facts, info) == bool(changes)
        return survey(case, facts, info)

    return make


def test_a_lesion_between_the_points_of_a_coarser_grid_is_lost(surveyed, mask):
    mask[4, 4, 4] = 2  # one voxel; every third is taken
    found = surveyed(mask, spacing_mm=(6.0, 3.0, 3.0))
    assert (found.found, found.left) == ((1, 2), (1,))
    assert found.notes == ("label 2 (right) is lost: of its 1 voxels none is left at 6 x 3 x 3 mm",)


def test_what_lies_outside_the_plane_is_lost_or_cut(surveyed, mask):
    mask[...] = 0
    mask[:, 2:5, 3] = 1  # six pixels along x, of which four are within
    mask[5, 6, 3] = 2
    found = surveyed(mask, plane=(4, 4))
    assert (found.found, found.left) == ((1, 2), (1,))
    assert found.notes == (
        "label 1 (left) loses 33.3% of its voxels to the plane of 4 x 4",
        "label 2 (right) is lost: all of it lies outside the plane of 4 x 4",
    )
    assert problem_of(found, (2.0, 1.0, 1.0), (4, 4)) is None


def test_a_case_of_which_nothing_is_left_is_a_problem(surveyed, mask):
    mask[...] = 0
    mask[5, 6, 3] = 2
    problem = problem_of(surveyed(mask, plane=(4, 4)), (2.0, 1.0, 1.0), (4, 4))
    assert str(problem).startswith(
        "case a: lost on the grid: found no labelled voxel at 2 x 1 x 1 mm in a plane of 4 x 4"
    )


def test_an_unchanged_grid_loses_nothing(surveyed, mask):
    assert surveyed(mask) == GridSurvey(case="a", found=(1, 2), left=(1, 2))


def test_a_label_that_some_case_keeps_is_noted_and_one_that_none_keeps_is_refused(dataset_info):
    plan = IngestPlan(info=dataset_info, cases=())
    surveys = [
        GridSurvey(case="b", found=(1, 2), left=(1,), notes=("lost",)),
        GridSurvey(case="a", found=(1, 2), left=(1,), notes=("lost",)),
    ]
    with pytest.raises(DataError, match=r"the label 2 \(right\) no case has a voxel left at 2 x 1 x 1 mm"):
        with_losses(plan, surveys)
    kept = [*surveys, GridSurvey(case="c", found=(2,), left=(2,))]
    assert with_losses(plan, kept).info.notes == {"lost": ["a", "b"]}
