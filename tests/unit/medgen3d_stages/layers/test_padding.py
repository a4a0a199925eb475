import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medgen3d_stages.layers.padding import multiple_of, padded_side, reflected


@pytest.mark.parametrize(("size", "factor", "expected"), [(1, 4, 4), (4, 4, 4), (5, 4, 8), (18, 8, 24), (7, 1, 7)])
def test_a_size_grows_to_the_next_multiple(size, factor, expected):
    assert multiple_of(size, factor) == expected


@pytest.mark.parametrize(("side", "factor", "expected"), [(1, 4, 8), (8, 4, 8), (9, 4, 12), (1, 1, 2), (3, 1, 3)])
def test_a_side_that_a_network_halves_grows_to_at_least_two_multiples(side, factor, expected):
    assert padded_side(side, factor) == expected


@pytest.mark.parametrize(
    ("size", "padded", "expected"),
    [
        (4, 4, [0, 1, 2, 3]),
        (4, 6, [0, 1, 2, 3, 2, 1]),  # the last pixel is not repeated
        (3, 8, [0, 1, 2, 1, 0, 1, 2, 1]),  # reflected again at the other end
        (1, 4, [0, 0, 0, 0]),
    ],
)
def test_an_axis_is_continued_by_its_mirror_image(size, padded, expected):
    assert reflected(size, padded).tolist() == expected


@given(st.integers(1, 12), st.integers(0, 30))
def test_indexing_by_it_is_numpy_s_reflect_padding(size, extra):
    values = torch.arange(10, 10 + size)
    padded = np.pad(values.numpy(), (0, extra), mode="reflect")
    assert values[reflected(size, size + extra)].tolist() == padded.tolist()
