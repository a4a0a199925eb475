"""Resampling: hand-worked values, the centre that stays, and sizes that are right already."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medgen3d.core.resample import grid_shape, resample
from medgen3d.core.volume import Volume, affine_from_spacing

RAMP = np.array([[[0, 10, 20, 40]]], dtype=np.int16)


def volume(voxels: np.ndarray, spacing_mm: tuple[float, float, float]) -> Volume:
    return Volume(voxels=voxels, affine=affine_from_spacing(spacing_mm))


def test_half_as_many_voxels_lie_between_two_old_ones_each():
    resampled = resample(volume(RAMP, (1, 1, 1)), (1, 1, 2), "linear")
    assert resampled.voxels.tolist() == [[[5, 30]]]  # the means of (0, 10) and (20, 40)
    assert resampled.voxels.dtype == np.float32
    assert resampled.spacing_mm == (1, 1, 2)
    assert np.array_equal(resampled.affine @ [0, 0, 0, 1], [0.5, 0, 0, 1])


def test_twice_as_many_voxels_are_interpolated_and_constant_beyond_the_ends():
    resampled = resample(volume(RAMP, (1, 1, 2)), (1, 1, 1), "linear")
    # new voxel j lies at j / 2 - 0.25 on the old grid
    assert resampled.voxels.tolist() == [[[0, 2.5, 7.5, 12.5, 17.5, 25, 35, 40]]]
    assert np.array_equal(resampled.affine @ [0, 0, 0, 1], [-0.5, 0, 0, 1])


def test_nearest_keeps_labels_and_their_type():
    mask = np.array([[[0, 7, 7, 9]]], dtype=np.uint16)
    resampled = resample(volume(mask, (1, 1, 2)), (1, 1, 1), "nearest")
    assert resampled.voxels.tolist() == [[[0, 0, 7, 7, 7, 7, 9, 9]]]
    assert resampled.voxels.dtype == np.uint16


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_each_axis_follows_its_own_spacing(axis):
    spacing_mm = tuple(2.0 if index == axis else 1.0 for index in range(3))
    shape = tuple(4 if index == axis else 3 for index in range(3))
    resampled = resample(volume(np.zeros(shape), spacing_mm), (1, 1, 1), "linear")
    assert resampled.voxels.shape == tuple(8 if index == axis else 3 for index in range(3))
    assert resampled.spacing_mm == (1, 1, 1)


def test_a_right_size_is_not_touched():
    right = volume(RAMP, (1, 0.9995, 1))
    assert resample(right, (1, 1, 1), "linear") is right
    partly = resample(volume(RAMP, (1, 0.9995, 1)), (1, 1, 2), "linear")
    assert partly.spacing_mm == pytest.approx((1, 0.9995, 2))


def test_a_thin_volume_keeps_one_voxel():
    assert grid_shape((1, 4, 4), (1, 1, 1), (5, 1, 1)) == (1, 4, 4)


SIZE_MM = st.floats(0.3, 4)


@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
    old=st.tuples(SIZE_MM, SIZE_MM, SIZE_MM),
    new=st.tuples(SIZE_MM, SIZE_MM, SIZE_MM),
)
def test_the_centre_of_the_volume_stays_where_it_is(shape, old, new):
    before = volume(np.ones(shape, dtype=np.float32), old)
    after = resample(before, new, "linear")
    assert after.voxels.shape == grid_shape(shape, old, new)
    assert (after.voxels == 1).all()
    centres = [one.affine @ [*((np.array(one.voxels.shape[::-1]) - 1) / 2), 1] for one in (before, after)]
    assert centres[0] == pytest.approx(centres[1], abs=1e-6)


def test_a_turned_volume_is_resampled_along_its_own_axes():
    turned = np.array([[0, -1, 0, 5], [1, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1]], dtype=np.float64)
    resampled = resample(Volume(voxels=RAMP, affine=turned), (1, 1, 2), "linear")
    assert resampled.voxels.tolist() == [[[5, 30]]]
    assert np.array_equal(resampled.affine @ [0, 0, 0, 1], [5, 6.5, 7, 1])
