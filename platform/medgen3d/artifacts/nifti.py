"""NIfTI files: the only module that knows nibabel, and the only place where a file's orientation is turned to RAS.

nibabel interprets headers and orientations. Voxels are read and written here, so that a header is judged before memory
is taken for them, and a damaged gzip stream is always noticed.
"""

import contextlib
import gzip
import io
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, cast

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import DTypeLike, NDArray

from medgen3d.core.errors import VolumeFileError
from medgen3d.core.volume import Affine, Volume, as_type

MAX_BYTES = 4 * 2**30
SUFFIXES = (".nii.gz", ".nii")
_RAS = axcodes2ornt("RAS")
_EXPECTED = "one three-dimensional NIfTI volume"
_RESTORE = "Restore or export the file again."
_MAX_TRAILING_BYTES = 2**20


class VolumeFile(NamedTuple):
    """What a file (or a DICOM series) holds.

    volume: In RAS memory order [D, H, W], in the file's own voxel type (float32 where the file asks for scaling).
    axis_codes: Orientation of the file, such as "LPS".
    dtype: numpy name of the voxel type.
    """

    volume: Volume
    axis_codes: str
    dtype: str


class VolumeHeader(NamedTuple):
    """What a file says of itself before any voxel is read.

    axes: Length of each axis of the file, in its own order; a single volume has three.
    shape: Voxels along (D, H, W) once it is turned to RAS, of its first three axes.
    spacing_mm: Voxel size along (D, H, W), by the affine.
    pixdim: The voxel size that the header also gives, in the file's order (x, y, z) [mm].
    """

    axes: tuple[int, ...]
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    pixdim: tuple[float, float, float]


class _Layout(NamedTuple):
    """What the header says about the voxels that follow; shape and affine are the file's (x, y, z)."""

    shape: tuple[int, int, int]
    dtype: np.dtype[np.generic]
    offset: int
    affine: Affine
    slope: float
    intercept: float

    @property
    def num_bytes(self) -> int:
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize

    @property
    def is_scaled(self) -> bool:
        return (self.slope, self.intercept) != (1.0, 0.0)


def read(path: Path, max_bytes: int = MAX_BYTES) -> VolumeFile:
    """Read one volume and turn it to RAS.

    The affine is rounded to float32, the precision in which a NIfTI header holds it, so that a volume written in the
    orientation of its file and read again has exactly the same affine.

    Args:
        path: A `.nii` or `.nii.gz` file of three axes; further axes of length 1 are dropped.
        max_bytes: Largest size of the uncompressed voxels [bytes]; a larger file is refused unread.

    Raises:
        VolumeFileError: The file is missing, damaged, truncated, too large or no single 3D volume.
    """
    with _readable(path) as file:
        return _volume_of(path, file, max_bytes)


def decode(content: bytes, name: str) -> VolumeFile:
    """The volume that a file holds whose bytes are at hand; `name` stands in errors, which are those of `read`."""
    with _readable(Path(name), io.BytesIO(content)) as file:
        return _volume_of(Path(name), file, MAX_BYTES)


def read_header(path: Path, max_bytes: int = MAX_BYTES) -> VolumeHeader:
    """What a file says of itself; no memory is taken for its voxels.

    Args:
        path: A `.nii` or `.nii.gz` file.
        max_bytes: Largest size of the uncompressed voxels [bytes].

    Raises:
        VolumeFileError: As `read`, as far as the header tells; also a header whose magic, size or bits per voxel
            contradict its format.
    """
    with _readable(path) as file:
        stored = _stored_header(path, file)
        for field, found, expected in (
            ("magic", bytes(stored["magic"])[:3], stored.single_magic),
            ("sizeof_hdr", int(stored["sizeof_hdr"]), stored.sizeof_hdr),
        ):
            if found != expected:
                raise VolumeFileError(str(path), f"{field} {found!r} in the header", repr(expected), _RESTORE)
        layout = _layout_of(path, _checked_header(path, file, stored), max_bytes)
    if np.isinf([stored["scl_slope"], stored["scl_inter"]]).any():  # NaN is how "not scaled" is said
        scaling = f"scl_slope {stored['scl_slope']} and scl_inter {stored['scl_inter']} in the header"
        raise VolumeFileError(str(path), scaling, "numbers", _RESTORE)
    if stored["bitpix"] != layout.dtype.itemsize * 8:
        bits = f"bitpix {stored['bitpix']} in the header"
        raise VolumeFileError(str(path), bits, f"{layout.dtype.itemsize * 8}", _RESTORE)
    one_voxel = in_ras(np.zeros((1, 1, 1), np.uint8), layout.affine).volume
    along = dict(zip(io_orientation(layout.affine)[:, 0].astype(int).tolist(), layout.shape, strict=True))
    x_mm, y_mm, z_mm = (float(length) for length in stored["pixdim"][1:4])
    return VolumeHeader(
        axes=tuple(int(length) for length in stored.get_data_shape()),
        shape=(along[2], along[1], along[0]),
        spacing_mm=one_voxel.spacing_mm,
        pixdim=(x_mm, y_mm, z_mm),
    )


def write(path: Path, volume: Volume, axis_codes: str = "RAS", dtype: DTypeLike | None = None) -> None:
    """Write a volume in a given orientation; the same volume always gives the same bytes.

    The file appears whole or not at all. Values written as an integer type are rounded and clipped to its range;
    labels must fit exactly.

    Args:
        path: Ends in `.nii.gz`; its folder exists.
        volume: In RAS memory order.
        axis_codes: Orientation of the file, such as "LPS".
        dtype: Voxel type of the file; that of the voxels by default.

    Raises:
        ValueError: Integer voxels do not fit `dtype`, or `path` or `axis_codes` is not valid.
    """
    if not path.name.endswith(".nii.gz"):
        raise ValueError(f"a NIfTI file is written as .nii.gz, got {path.name}")
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    unfinished.write_bytes(encode(volume, axis_codes, dtype))
    unfinished.replace(path)


def encode(volume: Volume, axis_codes: str = "RAS", dtype: DTypeLike | None = None) -> bytes:
    """The bytes of the `.nii.gz` file that `write` writes; the arguments and errors are the same."""
    array = volume.voxels.transpose(2, 1, 0)
    turn = ornt_transform(io_orientation(volume.affine), axcodes2ornt(axis_codes))
    affine = volume.affine @ inv_ornt_aff(turn, array.shape)
    array = as_type(apply_orientation(array, turn), dtype or array.dtype)
    raw = io.BytesIO()
    # Neither a name nor a time in the gzip header: the file's hash is then a hash of its content.
    with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=6) as file:
        file.write(_header_bytes(array, affine))
        file.write(array.tobytes(order="F"))
    return raw.getvalue()


def in_ras(array: NDArray[np.generic], affine: Affine) -> VolumeFile:
    """An array in a file's own (x, y, z) order -> its volume on the RAS grid; exact, nothing is interpolated."""
    turn = ornt_transform(io_orientation(affine), _RAS)
    volume = Volume(
        voxels=np.ascontiguousarray(apply_orientation(array, turn).transpose(2, 1, 0)),
        affine=affine @ inv_ornt_aff(turn, array.shape),
    )
    return VolumeFile(volume, "".join(nib.aff2axcodes(affine)), array.dtype.name)


@contextlib.contextmanager
def _readable(path: Path, content: IO[bytes] | None = None) -> Iterator[IO[bytes]]:
    """The uncompressed file, or content of one; every way in which a file can be damaged becomes a VolumeFileError."""
    if not path.name.endswith(SUFFIXES):
        raise VolumeFileError(str(path), "another file type", _EXPECTED, "Give a .nii or .nii.gz file.")
    try:
        with content or path.open("rb") as stored:
            yield cast("IO[bytes]", gzip.GzipFile(fileobj=stored)) if path.suffix == ".gz" else stored
    except FileNotFoundError as error:
        raise VolumeFileError(str(path), "no such file", _EXPECTED, "Check the name, or restore the file.") from error
    except EOFError as error:
        raise VolumeFileError(str(path), "a truncated gzip file", _EXPECTED, _RESTORE) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise VolumeFileError(str(path), f"a damaged gzip file ({error})", _EXPECTED, _RESTORE) from error
    except OSError as error:
        raise VolumeFileError(str(path), str(error), _EXPECTED, "Make the file readable.") from error


def _volume_of(path: Path, file: IO[bytes], max_bytes: int) -> VolumeFile:
    layout = _layout_of(path, _checked_header(path, file, _stored_header(path, file)), max_bytes)
    return in_ras(_read_voxels(path, file, layout), layout.affine)


def _layout_of(path: Path, header: nib.Nifti1Header, max_bytes: int) -> _Layout:
    shape = tuple(int(length) for length in header.get_data_shape())
    if len(shape) < 3 or min(shape) < 1 or max(shape[3:], default=1) > 1:
        remedy = "Extract a single volume or channel." if len(shape) > 3 else _RESTORE
        raise VolumeFileError(str(path), f"{len(shape)} axes of lengths {shape}", _EXPECTED, remedy)
    try:
        affine = np.asarray(header.get_best_affine(), dtype=np.float32).astype(np.float64)
        slope, intercept = header.get_slope_inter()
        dtype = header.get_data_dtype()
    except HeaderDataError as error:
        raise VolumeFileError(str(path), f"an invalid header ({error})", _EXPECTED, _RESTORE) from error
    if not np.isfinite(affine).all() or not _gives_place(affine):
        found = f"an affine that is not finite or not invertible, {affine.tolist()}"
        raise VolumeFileError(str(path), found, "voxels of a size and a place", "Correct sform, qform and pixdim.")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise VolumeFileError(str(path), f"voxels of type {dtype}", "integers or floats", "Convert the voxel type.")
    layout = _Layout(
        shape=cast("tuple[int, int, int]", shape[:3]),
        dtype=dtype,
        offset=int(header["vox_offset"]),
        affine=affine,
        slope=1.0 if slope is None else slope,
        intercept=0.0 if intercept is None else intercept,
    )
    if layout.num_bytes > max_bytes:
        found, expected = f"{layout.num_bytes} bytes of voxels {shape}", f"at most {max_bytes} bytes"
        raise VolumeFileError(str(path), found, expected, "Crop or resample the volume.")
    return layout


def _gives_place(affine: Affine) -> bool:
    return abs(np.linalg.det(affine[:3, :3])) >= 1e-12 and not np.isnan(io_orientation(affine)).any()


def _stored_header(path: Path, file: IO[bytes]) -> nib.Nifti1Header:
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


def _checked_header(path: Path, file: IO[bytes], stored: nib.Nifti1Header) -> nib.Nifti1Header:
    """The header as nibabel understands it; `file` is left where the voxels begin."""
    header = stored.copy()
    try:
        header.check_fix()
    except (HeaderDataError, WrapStructError, OverflowError, ValueError) as error:  # the last two: infinite numbers
        raise _no_header(path, error) from error
    if not bytes(header["magic"]).startswith(b"n+"):
        raise VolumeFileError(str(path), "no single NIfTI file", _EXPECTED, "Convert .hdr/.img pairs to .nii.gz.")
    if not header.sizeof_hdr <= header["vox_offset"] <= _MAX_TRAILING_BYTES:
        raise VolumeFileError(str(path), f"voxels that begin at byte {header['vox_offset']}", _EXPECTED, _RESTORE)
    file.read(int(header["vox_offset"]) - header.sizeof_hdr)
    return header


def _no_header(path: Path, error: Exception) -> VolumeFileError:
    return VolumeFileError(str(path), f"no valid NIfTI header ({error})", _EXPECTED, _RESTORE)


def _read_voxels(path: Path, file: IO[bytes], layout: _Layout) -> NDArray[np.generic]:
    content = file.read(layout.num_bytes)
    if len(content) < layout.num_bytes:
        found = f"a truncated file with {len(content)} of {layout.num_bytes} bytes of voxels"
        raise VolumeFileError(str(path), found, _EXPECTED, _RESTORE)
    # gzip compares the checksum only when the end of the stream is reached.
    if len(file.read(_MAX_TRAILING_BYTES)) == _MAX_TRAILING_BYTES:
        raise VolumeFileError(str(path), "more bytes than the header declares", _EXPECTED, _RESTORE)
    stored = np.frombuffer(content, dtype=layout.dtype).astype(layout.dtype.newbyteorder("="), copy=False)
    stored = stored.reshape(layout.shape, order="F")
    return (stored * layout.slope + layout.intercept).astype(np.float32) if layout.is_scaled else stored


def _header_bytes(array: NDArray[np.generic], affine: Affine) -> bytes:
    """Header and empty extension block, with the affine as sform and, without shear, as qform."""
    header = nib.Nifti1Header()
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape)
    header.set_xyzt_units("mm")
    header.set_qform(affine, code=1)
    header.set_sform(affine, code=1)
    header["magic"], header["vox_offset"] = b"n+1", 352
    header["scl_slope"], header["scl_inter"] = 1.0, 0.0
    return header.binaryblock + b"\0\0\0\0"
