import numpy as np
import pytest

from medgen3d.artifacts.bundle import BundleDataset, read_bundle
from medgen3d.artifacts.given_mask import check_plane, check_spacing, original_labels
from medgen3d.core.errors import VolumeFileError
from medgen3d.core.volume import Volume, affine_from_spacing

SPACING_MM = (3.0, 0.5, 0.75)


@pytest.fixture(scope="module")
def dataset(tiny_pipeline) -> BundleDataset:
    """Labels 0, 7 and 300, planes of at most 16 x 24."""
    return read_bundle(tiny_pipeline["refiner"]).info.dataset


def volume(voxels: np.ndarray) -> Volume:
    return Volume(voxels=voxels, affine=affine_from_spacing(SPACING_MM))


def test_labels_of_the_pipeline_pass_in_any_voxel_type(dataset):
    expected = np.array([[[0, 7, 300]]])
    for dtype in (np.uint16, np.int64, np.float32):
        np.testing.assert_array_equal(original_labels("m", volume(expected.astype(dtype)), dataset), expected)
    scaled = expected * 1.0000001  # as a header's slope leaves them
    np.testing.assert_array_equal(original_labels("m", volume(scaled), dataset), expected)


@pytest.mark.parametrize(
    ("voxel", "words"),
    [(np.nan, "NaN"), (np.inf, "NaN or infinite"), (7.5, "fractional"), (8, "the labels 8, expected only"), (-1, "-1")],
)
def test_what_is_no_label_is_refused_and_named(dataset, voxel, words):
    with pytest.raises(VolumeFileError, match=f"^m: found .*{words}"):
        original_labels("m", volume(np.array([[[0, 7, voxel]]])), dataset)


def test_a_spacing_may_differ_by_one_percent_and_no_more(dataset):
    check_spacing("m", (3.02, 0.5, 0.75), dataset)
    with pytest.raises(VolumeFileError, match=r"found voxels of 3\.1 x 0\.5 x 0\.75 mm .*expected 3 x 0\.5 x 0\.75"):
        check_spacing("m", (3.1, 0.5, 0.75), dataset)


def test_a_slice_may_be_as_large_as_the_plane_and_no_larger(dataset):
    check_plane("m", (16, 24), dataset)
    with pytest.raises(VolumeFileError, match="Crop it"):
        check_plane("m", (16, 25), dataset)
