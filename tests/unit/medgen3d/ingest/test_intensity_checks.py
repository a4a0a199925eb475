"""Intensities of a CT: each thing that can be wrong with them, and volumes with which nothing is."""

import numpy as np
import pytest

from medgen3d.artifacts.intensity import Intensity
from medgen3d.ingest.intensity_checks import check_window

WINDOW = Intensity(low=-1000, high=400)
RNG = np.random.default_rng(0)
AIR, TISSUE = RNG.normal(-1000, 5, 600), RNG.normal(50, 30, 400)
BODY = np.concatenate([AIR, TISSUE])


def test_a_body_in_air_is_fine():
    assert check_window(BODY, TISSUE, WINDOW) is None


@pytest.mark.parametrize(
    ("image", "found"),
    [
        pytest.param(
            np.clip(BODY + 1024, 0, 4095), "no value below 0, and 40% of the voxels at 400 or above", id="0..4095"
        ),
        pytest.param((BODY - BODY.min()) / np.ptp(BODY), "values from 0 to 1", id="0..1"),
    ],
)
def test_values_that_are_no_hounsfield_units_are_refused(image, found):
    finding = check_window(np.rint(image) if image.max() > 1 else image, None, WINDOW)
    assert finding.kind == "not in Hounsfield units"
    assert found in finding.found


def test_labels_outside_the_window_are_refused_and_half_of_them_noted():
    bone = RNG.normal(900, 20, 400)
    assert check_window(np.concatenate([AIR, bone]), bone, WINDOW).kind == "outside the window"
    half = np.concatenate([bone, TISSUE[:300]])
    finding = check_window(np.concatenate([AIR, half]), half, WINDOW)
    assert (finding.kind, "more than half" in finding.found) == (None, True)
    assert check_window(np.concatenate([AIR, half]), TISSUE, WINDOW) is None


def test_a_volume_without_air_is_noted():
    finding = check_window(np.abs(TISSUE), TISSUE, WINDOW)
    assert (finding.kind, "no value lies below 0" in finding.found) == (None, True)
