"""DICOM image series: a folder of single-frame files -> one volume in RAS memory order.

pydicom and not SimpleITK's series reader: the latter only warns where slices are missing or unevenly spaced and does
not say which file is at fault; here every file is checked and named.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError

from medgen3d.artifacts.nifti import VolumeFile, in_ras
from medgen3d.core.errors import VolumeFileError
from medgen3d.core.volume import Affine

_EXPECTED = "one complete image series"
_TOLERANCE = 0.02
"""Largest deviation of a slice from its place in an evenly spaced series [slice distances]."""
_UNREADABLE = (OSError, EOFError, ValueError, KeyError, AttributeError, NotImplementedError, RuntimeError, TypeError)
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class _Slice(NamedTuple):
    """One file. Positions and directions are DICOM's: millimetres towards left, posterior, superior."""

    name: str
    series: str
    voxels: NDArray[np.generic]
    position: NDArray[np.float64]
    orientation: tuple[float, ...]
    pixel_spacing: tuple[float, ...]
    slope: float
    intercept: float

    @property
    def row(self) -> NDArray[np.float64]:
        """Direction in which the column index grows."""
        return np.array(self.orientation[:3])

    @property
    def column(self) -> NDArray[np.float64]:
        """Direction in which the row index grows."""
        return np.array(self.orientation[3:])

    @property
    def height(self) -> float:
        """Position along the normal of the slice [mm]."""
        return float(np.cross(self.row, self.column) @ self.position)


def read_series(folder: Path) -> VolumeFile:
    """Read the one series in `folder`, with rescale slope and intercept applied (CT: Hounsfield units).

    Voxels come as int16 or int32 where slope and intercept are whole numbers, else as float32.

    Raises:
        VolumeFileError: A file is not DICOM or damaged, there are several series, or slices are missing, doubled,
            or differ in size, spacing or orientation.
    """
    slices = _read_slices(folder)
    _check_alike(folder, slices)
    slices.sort(key=lambda one: one.height)
    step = _checked_step(folder, slices)
    return in_ras(_stack(slices), _affine(slices[0], step))


def _read_slices(folder: Path) -> list[_Slice]:
    slices, foreign = [], []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        try:
            slices.append(_read_slice(path, pydicom.dcmread(path)))
        except (InvalidDicomError, IsADirectoryError):
            foreign.append(path.name)
        except _UNREADABLE as error:
            remedy = "Restore the file, or decompress it (gdcmconv --raw)."
            raise VolumeFileError(str(path), f"a slice that cannot be read ({error})", _EXPECTED, remedy) from error
    if foreign:
        remedy = "Move what is not DICOM out of the folder."
        raise VolumeFileError(str(folder), f"files that are not DICOM: {', '.join(foreign)}", _EXPECTED, remedy)
    if len(slices) < 2:
        remedy = "Put all slices of the series into this folder."
        raise VolumeFileError(str(folder), f"{len(slices)} DICOM files", _EXPECTED, remedy)
    return slices


def _read_slice(path: Path, file: pydicom.Dataset) -> _Slice:
    voxels = file.pixel_array
    if voxels.ndim != 2:
        raise ValueError(f"pixels of shape {voxels.shape}, expected one grey frame per file")
    one = _Slice(
        name=path.name,
        series=str(file.SeriesInstanceUID),
        voxels=voxels,
        position=np.array([float(value) for value in file.ImagePositionPatient]),
        orientation=tuple(float(value) for value in file.ImageOrientationPatient),
        pixel_spacing=tuple(float(value) for value in file.PixelSpacing),
        slope=float(file.get("RescaleSlope", 1.0)),
        intercept=float(file.get("RescaleIntercept", 0.0)),
    )
    numbers = (*one.position, *one.orientation, *one.pixel_spacing, one.slope, one.intercept)
    if not np.isfinite(numbers).all() or min(one.pixel_spacing) <= 0:
        raise ValueError(f"geometry that is not finite or has no size: {numbers}")
    return one


def _check_alike(folder: Path, slices: list[_Slice]) -> None:
    """All slices belong to the series of the first, and have its size, pixel spacing and orientation."""
    num_series = len({one.series for one in slices})
    if num_series > 1:
        found, remedy = f"{num_series} series", "Put each series into a folder of its own."
        raise VolumeFileError(str(folder), found, _EXPECTED, remedy)
    first = slices[0]
    for one in slices[1:]:
        for what, mine, its in (
            ("size", one.voxels.shape, first.voxels.shape),
            ("pixel spacing", one.pixel_spacing, first.pixel_spacing),
            ("orientation", one.orientation, first.orientation),
        ):
            if not np.allclose(mine, its, rtol=0, atol=1e-4):
                found, expected = f"{what} {mine} in {one.name}", f"{its} as in {first.name}"
                raise VolumeFileError(str(folder), found, expected, "Remove localizers and reformatted slices.")


def _checked_step(folder: Path, slices: list[_Slice]) -> NDArray[np.float64]:
    """The step from each slice to the next [mm, LPS]; the slices are sorted."""
    gaps = np.diff([one.height for one in slices])
    usual = float(np.median(gaps))
    if usual <= 0:
        raise VolumeFileError(str(folder), "slices at the same position", _EXPECTED, "Remove the doubled slices.")
    for gap, before, after in zip(gaps, slices[:-1], slices[1:], strict=True):
        if abs(gap - usual) > _TOLERANCE * usual:
            what = "a missing slice" if gap > usual else "a doubled or displaced slice"
            found = f"{what}: {gap:g} mm between {before.name} and {after.name}"
            remedy = "Complete the series, or resample it to even spacing."
            raise VolumeFileError(str(folder), found, f"slices every {usual:g} mm", remedy)
    step = (slices[-1].position - slices[0].position) / (len(slices) - 1)
    along_normal = np.cross(slices[0].row, slices[0].column) * usual
    if np.linalg.norm(step - along_normal) > _TOLERANCE * usual:
        found = f"tilted slices, each shifted by {np.round(step - along_normal, 3).tolist()} mm within its plane"
        raise VolumeFileError(str(folder), found, "slices at a right angle to their stack", "Undo the gantry tilt.")
    return step


def _stack(slices: list[_Slice]) -> NDArray[np.generic]:
    """Voxels in (x, y, z) order, rescaled."""
    stored = np.stack([one.voxels.T for one in slices], axis=-1)
    slope = np.array([one.slope for one in slices])
    intercept = np.array([one.intercept for one in slices])
    if not (np.array_equal(slope, slope.round()) and np.array_equal(intercept, intercept.round())):
        return (stored * slope + intercept).astype(np.float32)
    values = stored.astype(np.int32) * slope.astype(np.int32) + intercept.astype(np.int32)
    fits = np.iinfo(np.int16).min <= values.min() and values.max() <= np.iinfo(np.int16).max
    return values.astype(np.int16) if fits else values


def _affine(first: _Slice, step: NDArray[np.float64]) -> Affine:
    """(x, y, z) indices to RAS millimetres (DICOM PS3.3 C.7.6.2.1.1), rounded to what a NIfTI header holds."""
    row_distance, column_distance = first.pixel_spacing
    affine = np.eye(4)
    affine[:3, 0] = first.row * column_distance
    affine[:3, 1] = first.column * row_distance
    affine[:3, 2] = step
    affine[:3, 3] = first.position
    return (_LPS_TO_RAS @ affine).astype(np.float32).astype(np.float64)
