"""Volumes: the axis order, the spacing of an affine, and the box of a case in its plane."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medgen3d.core.volume import Box, Volume, affine_from_spacing, spacing_of

SIDE = st.integers(1, 600)
SIZE_MM = st.floats(0.01, 100)


@given(spacing_mm=st.tuples(SIZE_MM, SIZE_MM, SIZE_MM))
def test_the_spacing_of_an_affine_comes_back_in_memory_order(spacing_mm):
    assert spacing_of(affine_from_spacing(spacing_mm)) == pytest.approx(spacing_mm)


def test_affines_take_x_y_z_and_spacings_are_d_h_w():
    affine = affine_from_spacing((5.0, 2.0, 1.0))
    assert np.array_equal(affine @ [1, 1, 1, 1], [1, 2, 5, 1])


def test_the_spacing_of_a_turned_volume_is_the_length_of_its_steps():
    affine = np.eye(4)
    affine[:3, :3] = [[0, -2, 0], [3, 0, 0], [0, 0, 1.5]]
    assert spacing_of(affine) == (1.5, 2.0, 3.0)
    affine[:3, 0] = [3, 4, 0]
    assert spacing_of(affine)[2] == 5.0


@pytest.mark.parametrize(("shape", "affine"), [((2, 2), np.eye(4)), ((2, 2, 2, 1), np.eye(4)), ((2, 2, 2), np.eye(3))])
def test_a_volume_has_three_axes_and_a_4_x_4_affine(shape, affine):
    with pytest.raises(ValueError, match="got shape"):
        Volume(voxels=np.zeros(shape), affine=affine)


@given(height=SIDE, width=SIDE, more_rows=st.integers(0, 99), more_columns=st.integers(0, 99))
def test_a_centred_box_has_the_size_of_the_case_and_lies_in_the_middle(height, width, more_rows, more_columns):
    box = Box.centred(height, width, height + more_rows, width + more_columns)
    plane = np.zeros((height + more_rows, width + more_columns))
    assert plane[box.rows, box.columns].shape == (box.height, box.width) == (height, width)
    assert 0 <= (plane.shape[0] - box.bottom) - box.top <= 1
    assert 0 <= (plane.shape[1] - box.right) - box.left <= 1


def test_a_case_larger_than_the_plane_has_no_box():
    with pytest.raises(ValueError, match="a 9 x 8 image does not fit a 8 x 8 plane"):
        Box.centred(9, 8, 8, 8)
