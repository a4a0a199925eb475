"""The header of a NIfTI file: read before any voxel is, and judged before memory is taken for them."""

import logging
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, cast

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from medgen3d.artifacts.nifti_geometry import FileGrid, GeometryError, HeaderForms, grid_of
from medgen3d.artifacts.nifti_stream import EXPECTED, RESTORE, read_bytes, skip
from medgen3d.core.errors import VolumeFileError

_MAX_EXTENSION_BYTES = 2**28
_MAX_COMMENT_BYTES = 2**16
_COMMENT = 6
"""The code of an extension that is a text."""
_SILENT = logging.getLogger(f"{__name__}.corrections")
_SILENT.disabled = True  # what nibabel corrects is no news: what counts here is judged by `nifti_geometry`


class Layout(NamedTuple):
    """What the header says about the voxels that follow; shape and affine are the file's (x, y, z)."""

    shape: tuple[int, int, int]
    dtype: np.dtype[np.generic]
    grid: FileGrid
    slope: float
    intercept: float

    @property
    def num_bytes(self) -> int:
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize

    @property
    def is_scaled(self) -> bool:
        return (self.slope, self.intercept) != (1.0, 0.0)


def stored_header(path: Path, file: IO[bytes]) -> nib.Nifti1Header:
    """The header as it stands in the file, which nibabel would correct where it can; `file` is left behind it."""
    block = file.read(nib.Nifti1Header.sizeof_hdr)
    kind = nib.Nifti1Header
    if int.from_bytes(block[:4], "little") == 540 or int.from_bytes(block[:4], "big") == 540:
        kind = nib.Nifti2Header
        block += file.read(kind.sizeof_hdr - len(block))
    try:
        return kind(block, check=False)
    except (HeaderDataError, WrapStructError) as error:
        raise _no_header(path, error) from error


def checked_header(path: Path, file: IO[bytes], stored: nib.Nifti1Header) -> tuple[nib.Nifti1Header, list[str]]:
    """The header as nibabel understands it, and the comments behind it; `file` is left where the voxels begin."""
    header = stored.copy()
    try:
        header.check_fix(logger=_SILENT)
    except (HeaderDataError, WrapStructError, OverflowError, ValueError) as error:  # the last two: infinite numbers
        raise _no_header(path, error) from error
    if not bytes(header["magic"]).startswith(b"n+"):
        raise VolumeFileError(str(path), "no single NIfTI file", EXPECTED, "Convert .hdr/.img pairs to .nii.gz.")
    if not header.sizeof_hdr <= header["vox_offset"] <= _MAX_EXTENSION_BYTES:
        raise VolumeFileError(str(path), f"voxels that begin at byte {header['vox_offset']}", EXPECTED, RESTORE)
    behind = int(header["vox_offset"]) - header.sizeof_hdr
    block = read_bytes(file, min(behind, _MAX_COMMENT_BYTES))
    skip(file, behind - len(block))
    return header, list(_comments_in(block, header.endianness))


def _comments_in(block: bytearray, endianness: str) -> Iterator[str]:
    """The texts among the extensions that follow a header: 4 bytes, then (size, code, content) each."""
    place = 4
    while block[:1] != b"\0" and place + 8 <= len(block):
        size, code = struct.unpack_from(f"{endianness}ii", block, place)
        if size < 8:
            return
        if code == _COMMENT:
            yield bytes(block[place + 8 : place + size]).rstrip(b"\0").decode("utf-8", "replace")
        place += size


def _no_header(path: Path, error: Exception) -> VolumeFileError:
    return VolumeFileError(str(path), f"no valid NIfTI header ({error})", EXPECTED, RESTORE)


def layout_of(path: Path, stored: nib.Nifti1Header, header: nib.Nifti1Header, max_bytes: int) -> Layout:
    """Where and how the voxels are stored, and where they lie.

    Args:
        path: Stands in errors.
        stored: The header as it stands in the file.
        header: As nibabel understands it.
        max_bytes: Largest size of the voxels [bytes].

    Raises:
        VolumeFileError: They are no single 3D volume of numbers with a place, or too large.
    """
    shape = tuple(int(length) for length in header.get_data_shape())
    if len(shape) < 3 or min(shape) < 1 or max(shape[3:], default=1) > 1:
        remedy = "Extract a single volume or channel." if len(shape) > 3 else RESTORE
        raise VolumeFileError(str(path), f"{len(shape)} axes of lengths {shape}", EXPECTED, remedy)
    try:
        with np.errstate(all="ignore"):  # numbers that are none are found at the end
            grid = grid_of(_forms_of(stored, header))
        slope, intercept = header.get_slope_inter()
        dtype = header.get_data_dtype()
    except GeometryError as error:
        raise VolumeFileError(str(path), *error.args) from error
    except (HeaderDataError, ValueError) as error:  # the latter: a quaternion that is none
        raise VolumeFileError(str(path), f"an invalid header ({error})", EXPECTED, RESTORE) from error
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise VolumeFileError(str(path), f"voxels of type {dtype}", "integers or floats", "Convert the voxel type.")
    layout = Layout(
        shape=cast("tuple[int, int, int]", shape[:3]),
        dtype=dtype,
        grid=grid,
        slope=1.0 if slope is None else slope,
        intercept=0.0 if intercept is None else intercept,
    )
    if layout.num_bytes > max_bytes:
        found, expected = f"{layout.num_bytes} bytes of voxels {shape}", f"at most {max_bytes} bytes"
        raise VolumeFileError(str(path), found, expected, "Crop or resample the volume.")
    return layout


def _forms_of(stored: nib.Nifti1Header, header: nib.Nifti1Header) -> HeaderForms:
    """Of three axes; what nibabel has corrected in pixdim is taken as it stands in the file."""
    x, y, z = (float(size) for size in stored["pixdim"][1:4])
    columns, rows, slices = (int(length) for length in header.get_data_shape()[:3])
    qform_code = int(header["qform_code"])
    return HeaderForms(
        shape=(columns, rows, slices),
        sform=header.get_sform(),
        sform_code=int(header["sform_code"]),
        qform=header.get_qform() if qform_code else np.eye(4),
        qform_code=qform_code,
        pixdim=(x, y, z),
        unit=int(header["xyzt_units"]) & 7,
    )
