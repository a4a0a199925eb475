"""NIfTI files: the only place that knows nibabel, and the only place where a file's orientation is turned to RAS.

nibabel interprets headers (`nifti_header`) and orientations. Voxels are read and written here, so that a header is
judged before memory is taken for them, and a damaged gzip stream is always noticed.
"""

import gzip
import io
import os
from pathlib import Path
from typing import IO, NamedTuple

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from numpy.typing import DTypeLike, NDArray

from medgen3d.artifacts.mark import Mark, mark_in
from medgen3d.artifacts.nifti_header import Layout, checked_header, layout_of, stored_header
from medgen3d.artifacts.nifti_stream import EXPECTED, RESTORE, read_bytes, readable, skip
from medgen3d.core.errors import VolumeFileError
from medgen3d.core.volume import Affine, Volume, as_type

MAX_BYTES = 4 * 2**30
_RAS = axcodes2ornt("RAS")
_MAX_TRAILING_BYTES = 2**20
SYNTHETIC = "marked as synthetic"
"""Begins the note about a file that says so."""


class VolumeFile(NamedTuple):
    """What a file (or a DICOM series) holds.

    volume: In RAS memory order [D, H, W], in the file's own voxel type (float32 where the file asks for scaling).
    axis_codes: Orientation of the file, such as "LPS".
    dtype: numpy name of the voxel type.
    is_scaled: Whether the file asked for scaling, so that numbers that were whole may be off by a rounding error.
    notes: Sentences about what is ambiguous in the file, or worth knowing.
    mark: Of a file that says that it is synthetic.
    """

    volume: Volume
    axis_codes: str
    dtype: str
    is_scaled: bool = False
    notes: tuple[str, ...] = ()
    mark: Mark | None = None


class VolumeHeader(NamedTuple):
    """What a file says of itself before any voxel is read.

    axes: Length of each axis of the file, in its own order; a single volume has three.
    shape: Voxels along (D, H, W) once it is turned to RAS, of its first three axes.
    spacing_mm: Voxel size along (D, H, W), by the affine.
    pixdim: The voxel size that the header also gives, in the file's order (x, y, z) [mm].
    mark: Of a file that says that it is synthetic.
    """

    axes: tuple[int, ...]
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    pixdim: tuple[float, float, float]
    mark: Mark | None = None


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
    with readable(path) as file:
        return _volume_of(path, file, max_bytes)


def decode(content: bytes, name: str) -> VolumeFile:
    """The volume that a file holds whose bytes are at hand; `name` stands in errors, which are those of `read`."""
    with readable(Path(name), io.BytesIO(content)) as file:
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
    with readable(path) as file:
        stored = stored_header(path, file)
        for field, found, expected in (
            ("magic", bytes(stored["magic"])[:3], stored.single_magic),
            ("sizeof_hdr", int(stored["sizeof_hdr"]), stored.sizeof_hdr),
        ):
            if found != expected:
                raise VolumeFileError(str(path), f"{field} {found!r} in the header", repr(expected), RESTORE)
        header, comments = checked_header(path, file, stored)
        layout = layout_of(path, stored, header, max_bytes)
    if np.isinf([stored["scl_slope"], stored["scl_inter"]]).any():  # NaN is how "not scaled" is said
        scaling = f"scl_slope {stored['scl_slope']} and scl_inter {stored['scl_inter']} in the header"
        raise VolumeFileError(str(path), scaling, "numbers", RESTORE)
    if stored["bitpix"] != layout.dtype.itemsize * 8:
        bits = f"bitpix {stored['bitpix']} in the header"
        raise VolumeFileError(str(path), bits, f"{layout.dtype.itemsize * 8}", RESTORE)
    affine = layout.grid.affine
    one_voxel = in_ras(np.zeros((1, 1, 1), np.uint8), affine).volume
    along = dict(zip(io_orientation(affine)[:, 0].astype(int).tolist(), layout.shape, strict=True))
    x_mm, y_mm, z_mm = (float(length) for length in stored["pixdim"][1:4])
    return VolumeHeader(
        axes=tuple(int(length) for length in stored.get_data_shape()),
        shape=(along[2], along[1], along[0]),
        spacing_mm=one_voxel.spacing_mm,
        pixdim=(x_mm, y_mm, z_mm),
        mark=mark_in(comments),
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


def encode(volume: Volume, axis_codes: str = "RAS", dtype: DTypeLike | None = None, mark: Mark | None = None) -> bytes:
    """The bytes of the `.nii.gz` file that `write` writes; the arguments and errors are the same.

    Args:
        volume: In RAS memory order.
        axis_codes: Orientation of the file.
        dtype: Voxel type of the file; that of the voxels by default.
        mark: That it is synthetic, which the header then says twice: in words, and as an extension for machines.
    """
    array = volume.voxels.transpose(2, 1, 0)
    turn = ornt_transform(io_orientation(volume.affine), axcodes2ornt(axis_codes))
    affine = volume.affine @ inv_ornt_aff(turn, array.shape)
    array = as_type(apply_orientation(array, turn), dtype or array.dtype)
    raw = io.BytesIO()
    # Neither a name nor a time in the gzip header: the file's hash is then a hash of its content.
    with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=6) as file:
        file.write(_header_bytes(array, affine, mark))
        file.write(array.tobytes(order="F"))
    return raw.getvalue()


def in_ras(array: NDArray[np.generic], affine: Affine) -> VolumeFile:
    """An array in a file's own (x, y, z) order -> its volume on the RAS grid; exact, nothing is interpolated."""
    view, turned = _turned(array, affine)
    return _volume_file(np.ascontiguousarray(view), turned, affine)


def _turned(array: NDArray[np.generic], affine: Affine) -> tuple[NDArray[np.generic], Affine]:
    """A view [D, H, W] of an array in a file's order, and the affine of the view."""
    turn = ornt_transform(io_orientation(affine), _RAS)
    return apply_orientation(array, turn).transpose(2, 1, 0), affine @ inv_ornt_aff(turn, array.shape)


def _volume_file(voxels: NDArray[np.generic], turned: Affine, affine: Affine) -> VolumeFile:
    return VolumeFile(Volume(voxels=voxels, affine=turned), "".join(nib.aff2axcodes(affine)), voxels.dtype.name)


def _volume_of(path: Path, file: IO[bytes], max_bytes: int) -> VolumeFile:
    stored = stored_header(path, file)
    header, comments = checked_header(path, file, stored)
    layout = layout_of(path, stored, header, max_bytes)
    view, turned = _turned(_read_voxels(path, file, layout), layout.grid.affine)
    voxels = _scaled(view, layout) if layout.is_scaled else np.ascontiguousarray(view)
    found = _volume_file(voxels, turned, layout.grid.affine)
    mark = mark_in(comments)
    notes = (*layout.grid.notes, *([f"{SYNTHETIC}: {mark.sentence}"] if mark else []))
    return found._replace(is_scaled=layout.is_scaled, notes=notes, mark=mark)


def _read_voxels(path: Path, file: IO[bytes], layout: Layout) -> NDArray[np.generic]:
    """In the file's own order and type, before any scaling."""
    content = read_bytes(file, layout.num_bytes)
    if len(content) < layout.num_bytes:
        found = f"a truncated file with {len(content)} of {layout.num_bytes} bytes of voxels"
        raise VolumeFileError(str(path), found, EXPECTED, RESTORE)
    # gzip compares the checksum only when the end of the stream is reached.
    if skip(file, _MAX_TRAILING_BYTES) == _MAX_TRAILING_BYTES:
        raise VolumeFileError(str(path), "more bytes than the header declares", EXPECTED, RESTORE)
    stored = np.frombuffer(content, dtype=layout.dtype)
    return stored.reshape(layout.shape, order="F").astype(layout.dtype.newbyteorder("="), copy=False)


def _scaled(view: NDArray[np.generic], layout: Layout) -> NDArray[np.float32]:
    """Slice by slice, so that the double precision of one slice is all the memory that it takes besides the result."""
    scaled = np.empty(view.shape, dtype=np.float32)
    for into, values in zip(scaled, view, strict=True):
        into[...] = values * layout.slope + layout.intercept
    return scaled


def _header_bytes(array: NDArray[np.generic], affine: Affine, mark: Mark | None) -> bytes:
    """Header and extension block, with the affine as sform and, without shear, as qform."""
    header = nib.Nifti1Header()
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape)
    header.set_xyzt_units("mm")
    header.set_qform(affine, code=1)
    header.set_sform(affine, code=1)
    extensions = io.BytesIO()
    if mark:
        header["descrip"] = f"SYNTHETIC, {mark.sentence}".encode("ascii", "replace")[:79]
        nib.nifti1.Nifti1Extension("comment", mark.text.encode()).write_to(extensions, byteswap=False)
    header["magic"], header["vox_offset"] = b"n+1", 352 + extensions.tell()
    header["scl_slope"], header["scl_inter"] = 1.0, 0.0
    return header.binaryblock + (b"\1\0\0\0" if mark else b"\0\0\0\0") + extensions.getvalue()
