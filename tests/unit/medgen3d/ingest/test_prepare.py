"""Prepare: cropping and padding by hand, and a whole case from file to training grid."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medgen3d.artifacts.intensity import Intensity
from medgen3d.core.volume import Box, Volume
from medgen3d.ingest.plan import CasePlan
from medgen3d.ingest.prepare import crop, pad, prepare
from medgen3d.ingest.sources import Pair


def test_images_are_padded_by_their_mirror_without_the_edge():
    row = np.array([[[1, 2, 3]]], dtype=np.float32)
    box = Box.centred(1, 3, 1, 8)
    assert pad(row, box, (1, 8), "reflect").tolist() == [[[3, 2, 1, 2, 3, 2, 1, 2]]]


def test_a_pad_larger_than_the_image_mirrors_again():
    row = np.array([[[1, 2]]], dtype=np.float32)
    assert pad(row, Box.centred(1, 2, 1, 8), (1, 8), "reflect").tolist() == [[[2, 1, 2, 1, 2, 1, 2, 1]]]


def test_a_single_row_is_repeated():
    row = np.array([[[5]]], dtype=np.float32)
    assert pad(row, Box.centred(1, 1, 2, 3), (2, 3), "reflect").tolist() == [[[5, 5, 5], [5, 5, 5]]]


def test_masks_are_padded_with_background():
    mask = np.array([[[1, 2]]], dtype=np.uint8)
    padded = pad(mask, Box.centred(1, 2, 2, 4), (2, 4), "constant")
    assert padded.tolist() == [[[0, 1, 2, 0], [0, 0, 0, 0]]]
    assert padded.dtype == np.uint8


SIDE = st.integers(1, 12)


@given(height=SIDE, width=SIDE, more_rows=st.integers(0, 40), more_columns=st.integers(0, 40))
def test_padding_never_changes_what_lies_in_the_box(height, width, more_rows, more_columns):
    plane = (height + more_rows, width + more_columns)
    voxels = np.arange(2.0 * height * width).reshape(2, height, width)
    box = Box.centred(height, width, *plane)
    padded = pad(voxels, box, plane, "reflect")
    assert padded.shape == (2, *plane)
    assert np.array_equal(padded[:, box.rows, box.columns], voxels)
    assert set(padded.ravel()) == set(voxels.ravel())


def test_cropping_keeps_the_middle_and_the_place():
    volume = Volume(voxels=np.arange(5)[None, None, :] + np.zeros((1, 4, 5)), affine=np.diag([2.0, 3, 4, 1]))
    cropped = crop(volume, (2, 2))
    assert cropped.voxels.tolist() == [[[1, 2], [1, 2]]]  # one column is cut at the start, two at the end
    assert np.array_equal(cropped.affine @ [0, 0, 0, 1], [2, 3, 0, 1])
    assert crop(volume, (8, 8)).voxels.shape == (1, 4, 5)


@pytest.fixture
def case_plan(write_pair):
    def planned(**arrays) -> CasePlan:
        image, mask = write_pair("a", **arrays)
        pair = Pair(case="a", image=image, mask=mask)
        return CasePlan(pair=pair, split="train", intensity=Intensity(low=0, high=200))

    return planned


def test_a_case_comes_to_the_training_grid(case_plan, dataset_info, image, mask):
    case = prepare(case_plan(), dataset_info)
    assert (case.case_id, case.split) == ("a", "train")
    assert case.image.shape == case.mask.shape == (8, 8, 8)
    assert case.box == Box(top=0, bottom=7, left=1, right=7)
    inside = (slice(None), case.box.rows, case.box.columns)
    assert case.image[inside] == pytest.approx(image.transpose(2, 1, 0) / 100 - 1, abs=1e-6)
    assert np.array_equal(case.mask[inside], mask.transpose(2, 1, 0))
    assert case.mask.sum() == mask.sum()
    assert np.array_equal(case.affine, np.diag([1, 1, 2, 1]))


def test_ids_with_gaps_become_contiguous(case_plan, dataset_info, mask):
    gaps = mask.astype(np.int16) * 100  # 0, 100, 200
    info = dataset_info.model_copy(update={"labels": {0: "background", 50: "never", 100: "a", 200: "b"}})
    case = prepare(case_plan(mask=gaps), info)
    assert np.unique(case.mask).tolist() == [0, 2, 3]
    assert np.array_equal(np.unique(info.label_table.to_original(case.mask)), [0, 100, 200])


def test_image_and_mask_are_resampled_to_one_grid(case_plan, dataset_info):
    case = prepare(case_plan(), dataset_info.model_copy(update={"spacing_mm": (1.0, 1.0, 1.0)}))
    assert case.image.shape == case.mask.shape == (16, 8, 8)
    assert np.array_equal(case.affine @ [0, 0, 0, 1], [0, 0, -0.5, 1])


def test_spacings_that_differ_by_rounding_still_give_one_grid(case_plan, dataset_info):
    # 600 slices of 2.0024 mm become 601 of 2 mm; 600 of 2.0006 mm, taken alone, would stay 600
    image, mask = np.zeros((6, 7, 600), dtype=np.float32), np.ones((6, 7, 600), dtype=np.uint8)
    affines = {"affine": np.diag([1, 1, 2.0024, 1]), "mask_affine": np.diag([1, 1, 2.0006, 1])}
    case = prepare(case_plan(image=image, mask=mask, **affines), dataset_info)
    assert case.image.shape == case.mask.shape == (601, 8, 8)


def test_a_larger_case_is_cropped_about_its_centre(case_plan, dataset_info, image):
    case = prepare(case_plan(), dataset_info.model_copy(update={"plane": (4, 4)}))
    assert case.box == Box(top=0, bottom=4, left=0, right=4)
    assert case.image == pytest.approx(image.transpose(2, 1, 0)[:, 1:5, 1:5] / 100 - 1, abs=1e-6)
    assert np.array_equal(case.affine @ [0, 0, 0, 1], [1, 1, 0, 1])
