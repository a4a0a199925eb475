import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medgen3d.artifacts.intensity import Intensity, IntensityRule


def test_intensities_are_mapped_linearly_and_clipped():
    intensity = Intensity(low=-100, high=300)
    assert intensity.to_unit(np.array([-500, -100, 100, 200, 300, 900])).tolist() == [-1, -1, 0, 0.5, 1, 1]
    assert intensity.from_unit(np.array([-1.0, 0, 0.5, 1])).tolist() == [-100, 100, 200, 300]


@given(low=st.floats(-1e6, 1e6), width=st.floats(1e-2, 1e6), share=st.floats(0, 1))
def test_scanner_units_come_back_from_the_unit_range(low, width, share):
    intensity, value = Intensity(low=low, high=low + width), low + share * width
    there_and_back = intensity.from_unit(intensity.to_unit(np.array([value])))
    assert there_and_back == pytest.approx([value], abs=1e-6 * (abs(low) + width))


def test_percentiles_are_taken_of_the_volume_itself():
    image = np.arange(101, dtype=np.int16).reshape(1, 1, 101)  # its percentile p is p
    rule = IntensityRule.of("MR", hu_window=(-7, 7), percentiles=(10, 90))
    assert rule.map_of(image) == Intensity(low=10, high=90)
    assert rule.map_of(2 * image) == Intensity(low=20, high=180)


def test_a_window_of_hounsfield_units_is_the_same_for_every_volume():
    rule = IntensityRule.of("CT", hu_window=(-100, 200), percentiles=(10, 90))
    assert rule.map_of(np.arange(101)) == rule.map_of(np.zeros((1, 1, 1))) == Intensity(low=-100, high=200)
