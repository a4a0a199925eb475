"""The place of a NIfTI file's voxels: a header can give it three times over, and readers disagree about what counts.

Here it is what SimpleITK reads, and nnU-Net with it. Where nibabel or others read something else, a note says so or the
file is refused:

| the header has | what counts |
| --- | --- |
| an sform of code 1 (scanner) | the sform |
| an sform of another code and a qform | the qform, with a note if the two differ |
| one of them | that one |
| neither | pixdim, axes towards left, posterior, superior, with a note: the orientation is unknown |
| an oblique-angled sform of code 1 or 2, or no qform beside it | refused: gantry tilt |
| an oblique-angled sform of code 3 to 5 (registered) and a qform | the qform, with a note |
| voxel sizes in pixdim that are 0 or contradict what counts | refused |
| units of micrometres or metres | millimetres; no unit counts as millimetres |
| voxels larger than 100 mm or smaller than 0.1 micrometre | refused |
"""

from typing import NamedTuple

import numpy as np

from medgen3d.core.volume import Affine, spacing_of

_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""Millimetres of each unit of length that a header can name."""
_SCANNER, _ALIGNED = 1, 2
_PIXDIM_TOLERANCE = 0.01
"""Largest relative difference between pixdim and the voxel sizes of the affine."""
_PLACE_TOLERANCE = 0.05
"""Largest distance of a voxel from its place on a right-angled grid, and of a form from another [voxels]."""
_LARGEST_MM, _SMALLEST_MM = 100.0, 1e-4
_SIGNS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
UNKNOWN = "no sform and no qform: the orientation is unknown, taken as left, posterior, superior"


class HeaderForms(NamedTuple):
    """What a header says of the place of its voxels, as it stands in the file.

    shape: Voxels along the file's axes (x, y, z).
    sform, qform: 4 x 4 in the file's units, with their codes; of code 0 a form does not count.
    pixdim: Voxel sizes along the file's axes, in its units.
    unit: Code of the unit of length.
    """

    shape: tuple[int, int, int]
    sform: Affine
    sform_code: int
    qform: Affine
    qform_code: int
    pixdim: tuple[float, float, float]
    unit: int


class FileGrid(NamedTuple):
    """affine: 4 x 4, (x, y, z) of the file to RAS millimetres. notes: Sentences about what is ambiguous."""

    affine: Affine
    notes: tuple[str, ...] = ()


class GeometryError(ValueError):
    """args: (found, expected, remedy)."""


def grid_of(forms: HeaderForms) -> FileGrid:
    """The place of a file's voxels by the table above.

    Raises:
        GeometryError: It has none, or one that readers do not agree on.
    """
    grid = _chosen(forms)
    to_mm = _MM.get(forms.unit, 1.0)
    affine = grid.affine.astype(np.float64)
    affine[:3] *= to_mm
    affine = affine.astype(np.float32).astype(np.float64)  # the precision in which a header holds it
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        found = f"an affine that is not finite or not invertible, {affine.tolist()}"
        raise GeometryError(found, "voxels of a size and a place", "Correct sform, qform and pixdim.")
    _check_sizes(spacing_of(affine)[::-1], tuple(to_mm * abs(size) for size in forms.pixdim))
    return FileGrid(affine, grid.notes)


def _chosen(forms: HeaderForms) -> FileGrid:
    has_sform, has_qform = forms.sform_code > 0, forms.qform_code > 0
    if not (has_sform or has_qform):
        x, y, z = (abs(size) for size in forms.pixdim)
        return FileGrid(np.diag([-x, -y, z, 1.0]), (UNKNOWN,))
    if not has_sform:
        return FileGrid(forms.qform)
    tilt = skew(forms.sform, forms.shape)
    if tilt > _PLACE_TOLERANCE:
        if has_qform and forms.sform_code > _ALIGNED:
            return FileGrid(forms.qform, ("the sform is a registration with shear, so the qform counts",))
        raise GeometryError(
            f"axes that are not at right angles: voxels lie up to {tilt:.2g} voxels off a right-angled grid",
            "a right-angled grid",
            "Undo the gantry tilt, or resample the volume.",
        )
    if not has_qform or forms.sform_code == _SCANNER:
        return FileGrid(forms.sform)
    apart = _apart(forms.sform, forms.qform, forms.shape)
    if not apart > _PLACE_TOLERANCE:
        return FileGrid(forms.sform)
    note = f"sform (code {forms.sform_code}) and qform lie up to {apart:.3g} voxels apart, and the qform counts"
    return FileGrid(forms.qform, (note,))


def _check_sizes(sizes: tuple[float, ...], pixdim: tuple[float, ...]) -> None:
    """Both along the file's axes [mm]."""
    if any(not abs(said - size) <= _PIXDIM_TOLERANCE * size for said, size in zip(pixdim, sizes, strict=True)):
        raise GeometryError(
            f"voxel sizes {_by(pixdim)} mm in pixdim and {_by(sizes)} mm in the affine",
            "the same twice, since some programs read the one and some the other",
            "Correct pixdim, or sform and qform.",
        )
    if max(sizes) > _LARGEST_MM or min(sizes) < _SMALLEST_MM:
        expected = f"from {_SMALLEST_MM:g} to {_LARGEST_MM:g} mm"
        raise GeometryError(f"voxels of {_by(sizes)} mm", expected, "Correct the unit (xyzt_units) or the voxel size.")


def skew(affine: Affine, shape: tuple[int, int, int]) -> float:
    """The farthest that a corner lies from its place on the nearest right-angled grid [smallest voxel sides]."""
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not (sides > 0).all():
        return 0.0  # no place at all, which is said elsewhere
    left, _, right = np.linalg.svd(affine[:3, :3] / sides)
    off = affine[:3, :3] - left @ right * sides
    ends = (np.array(shape) - 1) / 2  # from the centre, about which both grids are the same
    corners = np.array([ends * corner for corner in _SIGNS])
    return float(np.linalg.norm(corners @ off.T, axis=1).max() / sides.min())


def _apart(one: Affine, other: Affine, shape: tuple[int, int, int]) -> float:
    """The largest distance of a corner voxel from the same voxel by the other affine [smallest voxel sides]."""
    ends = np.array(shape) - 1
    corners = np.array([[*(ends * corner), 1.0] for corner in np.ndindex(2, 2, 2)])
    sides = np.linalg.norm(one[:3, :3], axis=0)
    return float(np.linalg.norm(corners @ (one - other)[:3].T, axis=1).max() / sides.min())


def _by(sizes: tuple[float, ...]) -> str:
    return " x ".join(f"{size:g}" for size in sizes)
