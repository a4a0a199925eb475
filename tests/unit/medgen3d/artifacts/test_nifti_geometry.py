"""Geometry of NIfTI headers: row by row of the table, against what SimpleITK reads of the same bytes."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from medgen3d.artifacts import nifti
from medgen3d.artifacts.nifti_geometry import UNKNOWN
from medgen3d.core.errors import VolumeFileError

VOXELS = np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7)
SFORM = np.array([[2.0, 0, 0, 10], [0, 3, 0, 20], [0, 0, 4, 30], [0, 0, 0, 1]])
QFORM = np.array([[-2.0, 0, 0, -1], [0, -3, 0, -2], [0, 0, 4, -3], [0, 0, 0, 1]])
SHEARED = SFORM + np.array([[0, 0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
NO_FORM = (None, 0)


def written(path: Path, sform, qform, pixdim=(2, 3, 4), unit="mm") -> Path:
    """A file whose header says just this; nibabel's own writer would make it agree with itself."""
    header = nib.Nifti1Header()
    header.set_data_dtype(VOXELS.dtype)
    header.set_data_shape(VOXELS.shape)
    header.set_xyzt_units(unit)
    for (affine, code), setter in ((qform, header.set_qform), (sform, header.set_sform)):
        if affine is not None:
            setter(affine, code)
    header["pixdim"][1:4] = pixdim
    header["magic"], header["vox_offset"], header["scl_slope"] = b"n+1", 352, 1
    path.write_bytes(header.binaryblock + bytes(4) + VOXELS.tobytes(order="F"))
    return path


def places(path: Path) -> dict[int, tuple[float, ...]]:
    """The place of every voxel in RAS millimetres, by its value, as the product reads it."""
    volume = nifti.read(path).volume
    return {
        int(volume.voxels[place]): tuple((volume.affine @ [*place[::-1], 1])[:3].round(3))
        for place in np.ndindex(volume.voxels.shape)
    }


def places_by_simpleitk(path: Path) -> dict[int, tuple[float, ...]]:
    image = SimpleITK.ReadImage(path)
    return {
        int(image[place]): tuple((np.array([-1, -1, 1]) * image.TransformIndexToPhysicalPoint(place)).round(3))
        for place in np.ndindex(image.GetSize())
    }


@pytest.mark.parametrize(
    ("sform", "qform", "options", "note"),
    [
        pytest.param((SFORM, 1), (QFORM, 1), {}, None, id="the sform of the scanner counts"),
        pytest.param((SFORM, 2), (QFORM, 1), {}, "the qform counts", id="another sform does not"),
        pytest.param((QFORM, 2), (QFORM, 1), {}, None, id="both the same"),
        pytest.param((SFORM, 4), NO_FORM, {}, None, id="sform alone"),
        pytest.param(NO_FORM, (QFORM, 2), {}, None, id="qform alone"),
        pytest.param(NO_FORM, NO_FORM, {}, UNKNOWN, id="neither"),
        pytest.param((SHEARED, 4), (QFORM, 1), {}, "the qform counts", id="a registration with shear"),
        pytest.param(
            (np.diag([1000, 1000, 1000, 1]) @ SFORM, 1),
            NO_FORM,
            {"pixdim": (2000, 3000, 4000), "unit": "micron"},
            None,
            id="micrometres",
        ),
        pytest.param(
            (np.diag([0.001, 0.001, 0.001, 1]) @ SFORM, 1),
            NO_FORM,
            {"pixdim": (0.002, 0.003, 0.004), "unit": "meter"},
            None,
            id="metres",
        ),
        pytest.param((SFORM, 1), NO_FORM, {"unit": "unknown"}, None, id="no unit"),
    ],
)
def test_voxels_lie_where_simpleitk_reads_them(tmp_path, sform, qform, options, note):
    path = written(tmp_path / "a.nii", sform, qform, **options)
    assert places(path) == places_by_simpleitk(path)
    notes = nifti.read(path).notes
    assert (note is None and notes == ()) or (len(notes) == 1 and note in notes[0])


@pytest.mark.parametrize(
    ("sform", "qform", "options", "found"),
    [
        pytest.param((SHEARED, 1), NO_FORM, {}, "not at right angles", id="gantry tilt"),
        pytest.param((SHEARED, 2), (QFORM, 1), {}, "not at right angles", id="gantry tilt and the nearest qform"),
        pytest.param((SFORM, 1), NO_FORM, {"pixdim": (2, 3, 5)}, "2 x 3 x 5 mm in pixdim", id="pixdim contradicts"),
        pytest.param((SFORM, 1), NO_FORM, {"pixdim": (2, 3, 0)}, "2 x 3 x 0 mm in pixdim", id="no slice distance"),
        pytest.param(NO_FORM, (QFORM, 1), {"pixdim": (2, 3, 0)}, "2 x 3 x 0 mm in pixdim", id="qform without one"),
        pytest.param(NO_FORM, NO_FORM, {"pixdim": (2, 3, 0)}, "not invertible", id="nothing at all"),
        pytest.param((SFORM, 1), NO_FORM, {"unit": "meter"}, "voxels of 2000 x 3000 x 4000 mm", id="voxels of metres"),
    ],
)
def test_a_place_on_which_readers_do_not_agree_is_refused(tmp_path, sform, qform, options, found):
    path = written(tmp_path / "a.nii", sform, qform, **options)
    with pytest.raises(VolumeFileError, match=found):
        nifti.read(path)
    with pytest.raises(VolumeFileError, match=found):
        nifti.read_header(path)


def test_negative_voxel_sizes_mean_their_amount(tmp_path):
    assert places(written(tmp_path / "a.nii", (SFORM, 1), NO_FORM, pixdim=(2, 3, -4))) == places(
        written(tmp_path / "b.nii", (SFORM, 1), NO_FORM)
    )


def test_rounding_of_directions_is_no_tilt(tmp_path):
    """Cosines with four digits, as scanners write them, over 7 slices."""
    oblique = np.array([[0.9397, -0.342, 0], [0.342, 0.9397, 0.0001], [0, -0.0001, 1]])
    affine = np.eye(4)
    affine[:3, :3] = oblique * [2, 3, 4]
    volume = nifti.read(written(tmp_path / "a.nii", (affine, 1), NO_FORM)).volume
    assert volume.spacing_mm == pytest.approx((4, 3, 2), 1e-3)
