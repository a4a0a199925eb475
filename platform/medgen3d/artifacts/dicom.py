"""DICOM image series: a folder of files -> one volume in RAS memory order.

pydicom and not SimpleITK's series reader: the latter only warns where slices are missing or unevenly spaced and does
not say which file is at fault; here every file is checked and named.
"""

from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medgen3d.artifacts.dicom_slices import EXPECTED, DicomSlice, slices_in
from medgen3d.artifacts.nifti import SYNTHETIC, VolumeFile, in_ras
from medgen3d.core.errors import VolumeFileError
from medgen3d.core.volume import Affine

SUFFIX = ".dcm"
_TOLERANCE = 0.02
"""Largest deviation of a slice from its place in an evenly spaced series [slice distances]."""
_ROUNDING_MM = 0.06
"""The same in millimetres, since scanners write positions with one decimal; at most a fifth of the slice distance."""
_JITTER = 1e-3
"""Largest difference between the direction cosines of two slices."""
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_series(folder: Path) -> VolumeFile:
    """Read the one series in `folder`, with rescale slope and intercept applied (CT: Hounsfield units).

    Voxels come as int16 or int32 where slope and intercept are whole numbers, else as float32. Pixels outside the field
    of view, which have a padding value, get the smallest value of the others.

    Args:
        folder: Of single-frame or enhanced multi-frame files, or one multi-frame file. DICOM objects without images are
            left out.

    Raises:
        VolumeFileError: A file is not DICOM or damaged, there are several series, or slices are missing, doubled,
            or differ in size, spacing or orientation.
    """
    slices, left_out = slices_in(folder)
    if len(slices) < 2:
        remedy = "Put all slices of the series into this folder."
        raise VolumeFileError(str(folder), f"{len(slices)} DICOM slices", EXPECTED, remedy)
    _check_alike(folder, slices)
    slices.sort(key=lambda one: one.height)
    origin, step = _checked_line(folder, slices)
    notes = [f"objects without an image left out: {', '.join(left_out)}"] if left_out else []
    if any(one.is_synthetic for one in slices):
        notes.append(f"{SYNTHETIC}: Synthetic Data is YES")
    return in_ras(_stack(slices), _affine(slices[0], origin, step))._replace(notes=tuple(notes))


def _check_alike(folder: Path, slices: list[DicomSlice]) -> None:
    """All slices belong to the series of the first, and have its size, pixel spacing and orientation."""
    series = {one.series: one.description for one in slices}
    if len(series) > 1:
        named = ", ".join(repr(description) for description in series.values())
        remedy = "Put each series into a folder of its own."
        raise VolumeFileError(str(folder), f"{len(series)} series ({named})", EXPECTED, remedy)
    first = slices[0]
    for one in slices[1:]:
        for what, mine, its, tolerance in (
            ("size", one.pixels.shape, first.pixels.shape, 0.0),
            ("pixel spacing", one.pixel_spacing, first.pixel_spacing, 1e-4),
            ("orientation", one.orientation, first.orientation, _JITTER),
        ):
            if not np.allclose(mine, its, rtol=0, atol=tolerance):
                found, expected = f"{what} {mine} in {one.name}", f"{its} as in {first.name}"
                raise VolumeFileError(str(folder), found, expected, "Remove localizers and reformatted slices.")


def _checked_line(folder: Path, slices: list[DicomSlice]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Position of the first slice and step from each to the next [mm, LPS]; the slices are sorted.

    Each is judged by its distance from the evenly spaced series that fits all of them best.
    """
    heights = np.array([one.height for one in slices])
    usual = float(np.median(np.diff(heights)))
    if usual <= 1e-6:
        raise VolumeFileError(str(folder), _repeated(heights), EXPECTED, "Remove the doubled slices.")
    tolerance = max(_TOLERANCE * usual, min(_ROUNDING_MM, 0.2 * usual))
    positions, places = np.array([one.position for one in slices]), np.arange(len(slices))
    origin, step = positions[0], (positions[-1] - positions[0]) / (len(slices) - 1)
    normal = np.cross(slices[0].row, slices[0].column)
    if np.abs(heights - (origin + places[:, None] * step) @ normal).max() > 1e-3 * usual:
        step, origin = np.polyfit(places, positions, 1)
    if np.abs(heights - (origin + places[:, None] * step) @ normal).max() > tolerance:
        raise _uneven(folder, slices, usual)
    if np.linalg.norm(step - normal * (normal @ step)) > _TOLERANCE * usual:
        shift = np.round(step - normal * (normal @ step), 3).tolist()
        found = f"tilted slices, each shifted by {shift} mm within its plane"
        raise VolumeFileError(str(folder), found, "slices at a right angle to their stack", "Undo the gantry tilt.")
    return origin, step


def _repeated(heights: NDArray[np.float64]) -> str:
    counts = set(Counter(heights.round(3).tolist()).values())
    if len(counts) == 1 and len(heights) > (count := counts.pop()):
        return f"{count} slices at each position, as of several time points, echoes or stacks"
    return "slices at the same position"


def _uneven(folder: Path, slices: list[DicomSlice], usual: float) -> VolumeFileError:
    """The gap that is farthest from the usual one, and what it means."""
    gaps = np.diff([one.height for one in slices])
    worst = int(np.abs(gaps - usual).argmax())
    gap, times = float(gaps[worst]), float(gaps[worst]) / usual
    if round(times) >= 2 and abs(times - round(times)) <= 0.15:
        what, remedy = "a missing slice", "Complete the series, or resample it to even spacing."
    elif times < 0.5:
        what, remedy = "a doubled or displaced slice", "Remove it, or resample the series to even spacing."
    else:
        what, remedy = "uneven spacing", "Resample the series to even spacing."
    found = f"{what}: {gap:g} mm between {slices[worst].name} and {slices[worst + 1].name}"
    return VolumeFileError(str(folder), found, f"slices every {usual:g} mm", remedy)


def _stack(slices: list[DicomSlice]) -> NDArray[np.generic]:
    """Voxels in (x, y, z) order, rescaled. One slice at a time, so that little more than the result takes memory."""
    is_whole = all(one.slope == round(one.slope) and one.intercept == round(one.intercept) for one in slices)
    inside = [one.pixels if one.padding is None else one.pixels[one.pixels != one.padding] for one in slices]
    bounds = [
        value * one.slope + one.intercept
        for one, pixels in zip(slices, inside, strict=True)
        if pixels.size
        for value in (float(pixels.min()), float(pixels.max()))
    ]
    lowest = min(bounds, default=0.0)
    fits = np.iinfo(np.int16).min <= lowest and max(bounds, default=0.0) <= np.iinfo(np.int16).max
    dtype = np.float32 if not is_whole else np.int16 if fits else np.int32
    rows, columns = slices[0].pixels.shape
    voxels = np.empty((columns, rows, len(slices)), dtype=dtype)
    for place, one in enumerate(slices):
        values = one.pixels.T * one.slope + one.intercept
        voxels[..., place] = values if one.padding is None else np.where(one.padding == one.pixels.T, lowest, values)
    return voxels


def _affine(first: DicomSlice, origin: NDArray[np.float64], step: NDArray[np.float64]) -> Affine:
    """(x, y, z) indices to RAS millimetres (DICOM PS3.3 C.7.6.2.1.1), rounded to what a NIfTI header holds."""
    row_distance, column_distance = first.pixel_spacing
    affine = np.eye(4)
    affine[:3, 0] = first.row * column_distance
    affine[:3, 1] = first.column * row_distance
    affine[:3, 2] = step
    affine[:3, 3] = origin
    return (_LPS_TO_RAS @ affine).astype(np.float32).astype(np.float64)
