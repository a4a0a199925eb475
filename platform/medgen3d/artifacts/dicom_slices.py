"""The slices of a DICOM series: what each file, or each frame of a multi-frame file, says and holds.

A file is read as a whole and then parsed: memory is taken for what is there, and not for what a length field says.
"""

import io
import warnings
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError

from medgen3d.artifacts.mark import Mark, mark_in
from medgen3d.artifacts.nifti import MAX_BYTES
from medgen3d.core.errors import VolumeFileError

EXPECTED = "one complete image series"
_RESTORE = "Restore the file, or export it again."
_DECOMPRESS = "Install medgen3d[dicom], or decompress the file (gdcmconv --raw)."
_NO_IMAGES = frozenset({"PR", "SR", "KO", "DOC", "SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "REG", "FID", "RWV", "PLAN"})
"""Modalities of objects that lie beside images and are none."""
_REASON_LENGTH = 200
"""Characters of a parser's own words that are told."""
_DIRECTORY = "1.2.840.10008.1.3.10"
_RIGHT_ANGLE = 0.01
"""Largest deviation of a direction's length from 1, and of the cosine between rows and columns from 0."""


class DicomSlice(NamedTuple):
    """A slice. Positions and directions are DICOM's: millimetres towards left, posterior, superior.

    pixels: [rows, columns], as stored.
    padding: Stored value of pixels outside the field of view; None if the file names none.
    is_synthetic: Whether the file says so.
    """

    name: str
    series: str
    description: str
    pixels: NDArray[np.integer]
    position: NDArray[np.float64]
    orientation: tuple[float, ...]
    pixel_spacing: tuple[float, ...]
    slope: float
    intercept: float
    padding: int | None
    is_synthetic: bool = False

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


class SliceError(ValueError):
    """args: (found, expected, remedy)."""


def slices_in(folder: Path) -> tuple[list[DicomSlice], list[str]]:
    """The slices of all image files, in the order of their names, and the names of files that hold no image.

    Args:
        folder: A folder, or a single multi-frame file.

    Raises:
        VolumeFileError: A file is not DICOM, is damaged, or holds an image that is no grey slice with a place; or they
            are too large together.
    """
    slices, left_out, foreign, taken = [], [], [], 0
    for path in [folder] if folder.is_file() else sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if not path.is_file():
            foreign.append(path.name)
            continue
        try:
            found = _slices_of(path)
        except InvalidDicomError:
            foreign.append(path.name)
            continue
        if found is None:
            left_out.append(path.name)
            continue
        slices += found
        taken += sum(one.pixels.nbytes for one in found)
        if taken > MAX_BYTES:
            found_bytes, remedy = f"more than {MAX_BYTES} bytes of pixels", "Crop or resample the series."
            raise VolumeFileError(str(folder), found_bytes, f"at most {MAX_BYTES} bytes", remedy)
    if foreign:
        remedy = "Move what is not DICOM out of the folder."
        raise VolumeFileError(str(folder), f"files that are not DICOM: {', '.join(foreign)}", EXPECTED, remedy)
    return slices, left_out


def marked_pixels(path: Path) -> tuple[Mark | None, str]:
    """The mark of a DICOM file, and the SHA-256 of its pixels.

    Raises:
        VolumeFileError: It is no DICOM file, or has no pixels.
    """
    try:
        with warnings.catch_warnings(), pydicom.config.disable_value_validation():
            warnings.simplefilter("ignore")
            file = pydicom.dcmread(io.BytesIO(path.read_bytes()))
            equipment = file.get("ContributingEquipmentSequence", [])
            texts = [str(one.get("ContributionDescription", "")) for one in equipment]
            return mark_in(texts), sha256(file.PixelData).hexdigest()
    except Exception as error:  # a parser of damaged bytes may raise anything
        reason = " ".join(str(error).split())[:_REASON_LENGTH]
        raise VolumeFileError(
            str(path), f"no image or segmentation ({reason})", "NIfTI, Parquet or DICOM", _RESTORE
        ) from error


def _slices_of(path: Path) -> list[DicomSlice] | None:
    """The slices of a file; None if it is a DICOM object without images."""
    try:
        # Values that break a rule and can be read nevertheless are no news to the user.
        with warnings.catch_warnings(), pydicom.config.disable_value_validation():
            warnings.simplefilter("ignore")
            file = pydicom.dcmread(io.BytesIO(path.read_bytes()))
            return None if _is_no_image(file) else list(_frames_of(path.name, file))
    except InvalidDicomError:
        raise
    except SliceError as error:
        raise VolumeFileError(str(path), *error.args) from error
    except Exception as error:  # a parser of damaged bytes may raise anything
        reason = " ".join(str(error).split())[:_REASON_LENGTH]
        raise VolumeFileError(str(path), f"a slice that cannot be read ({reason})", EXPECTED, _RESTORE) from error


def _is_no_image(file: pydicom.Dataset) -> bool:
    is_directory = file.get("file_meta", {}).get("MediaStorageSOPClassUID") == _DIRECTORY
    return is_directory or file.get("Modality") in _NO_IMAGES or "Rows" not in file


def _frames_of(name: str, file: pydicom.Dataset) -> Iterator[DicomSlice]:
    if file.get("SamplesPerPixel", 1) != 1:
        found = f"an image in colours ({file.get('PhotometricInterpretation')})"
        raise SliceError(found, "grey slices", "Move it out of the folder.")
    if file.PhotometricInterpretation != "MONOCHROME2":
        raise SliceError(
            f"the photometric interpretation {file.PhotometricInterpretation}, in which larger numbers are darker",
            "MONOCHROME2: programs disagree whether such numbers are to be inverted",
            "Export the series as MONOCHROME2.",
        )
    pixels = _pixels_of(file)
    if "PerFrameFunctionalGroupsSequence" not in file:
        if pixels.ndim != 2:
            found = f"{len(pixels)} frames without a place each"
            raise SliceError(found, "one slice per file, or an enhanced multi-frame image", "Export single frames.")
        yield _checked(name, file, file, pixels)
        return
    groups = file.PerFrameFunctionalGroupsSequence
    frames = pixels[None] if pixels.ndim == 2 else pixels
    if len(groups) != len(frames):
        raise SliceError(f"{len(frames)} frames and the places of {len(groups)}", "as many of both", _RESTORE)
    shared = file.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()]
    for number, (group, frame) in enumerate(zip(groups, frames, strict=True), start=1):
        yield _checked(f"{name} frame {number}", file, _flat(shared[0], group), frame)


def _pixels_of(file: pydicom.Dataset) -> NDArray[np.integer]:
    """Stored pixels; their size is compared with the file's before anything is decoded into it."""
    declared = int(file.Rows) * int(file.Columns) * int(file.get("NumberOfFrames", 1) or 1) * int(file.BitsAllocated)
    if declared > 8 * MAX_BYTES:
        raise SliceError(
            f"{declared // 8} bytes of pixels", f"at most {MAX_BYTES} bytes", "Crop or resample the series."
        )
    syntax = file.file_meta.TransferSyntaxUID
    try:
        pixels: NDArray[np.integer] = file.pixel_array
    except RuntimeError as error:
        if not syntax.is_compressed:
            raise
        found = f"pixels compressed as {syntax.name}, which cannot be decompressed here"
        raise SliceError(found, "pixels that can be read", _DECOMPRESS) from error
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _flat(shared: pydicom.Dataset, own: pydicom.Dataset) -> pydicom.Dataset:
    """What the functional groups of a multi-frame image say of one frame, as a single-frame file would say it."""
    flat = pydicom.Dataset()
    for groups in (shared, own):
        for element in groups:
            if element.VR == "SQ" and len(element.value) == 1:
                flat.update(element.value[0])
    return flat


def _checked(name: str, file: pydicom.Dataset, place: pydicom.Dataset, pixels: NDArray[np.integer]) -> DicomSlice:
    """A slice whose numbers are numbers. `place` says where it lies and how it is scaled."""
    padding = file.get("PixelPaddingValue")
    one = DicomSlice(
        name=name,
        series=str(file.SeriesInstanceUID),
        description=str(file.get("SeriesDescription", "")),
        pixels=pixels,
        position=np.array([float(value) for value in place.ImagePositionPatient]),
        orientation=tuple(float(value) for value in place.ImageOrientationPatient),
        pixel_spacing=tuple(float(value) for value in place.PixelSpacing),
        slope=_number(place.get("RescaleSlope"), 1.0),
        intercept=_number(place.get("RescaleIntercept"), 0.0),
        padding=None if padding is None else int(padding),
        is_synthetic=file.get("SyntheticData") == "YES",
    )
    numbers: tuple[Any, ...] = (*one.position, *one.orientation, *one.pixel_spacing, one.slope, one.intercept)
    if len(numbers) != 13 or not np.isfinite(numbers).all() or min(one.pixel_spacing) <= 0 or one.slope == 0:
        found = f"in {name} a geometry or scale that is not finite or has no size: {[float(each) for each in numbers]}"
        raise SliceError(found, "a place, a size and a scale", _RESTORE)
    lengths = np.linalg.norm([one.row, one.column], axis=1)
    if np.abs(lengths - 1).max() > _RIGHT_ANGLE or abs(one.row @ one.column) > _RIGHT_ANGLE:
        found = f"in {name} directions of rows and columns that are not at right angles: {list(one.orientation)}"
        raise SliceError(found, "two unit vectors at a right angle", _RESTORE)
    return one


def _number(value: object, default: float) -> float:
    return default if value is None or value == "" else float(value)  # type: ignore[arg-type]
