"""Masks that clients send: what comes in is bounded before it is kept, and checked before memory is taken for it.

A body is counted as it streams in (`api.middleware`). Its file is judged by its header alone; only a header that fits
the pipeline lets the voxels be read, and of them no more than it declares. What is kept is written anew, so that no
byte of a client's file is opened again.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medgen3d.artifacts import nifti
from medgen3d.artifacts.bundle import BundleDataset
from medgen3d.artifacts.given_mask import SPACING_TOLERANCE, check_spacing, original_labels
from medgen3d.core.errors import VolumeFileError
from medgen3d.core.hashing import sha256_of
from medgen3d.core.volume import Volume
from medgen3d.serving.errors import BadMaskError
from medgen3d.serving.schemas import PipelineLimits

_GZIP = b"\x1f\x8b"
_WIDEST_VOXEL = 8  # bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredMask:
    """A mask that was accepted and written. shape: (D, h, w)."""

    shape: tuple[int, int, int]
    digest: str


def named_by_content(path: Path) -> Path:
    """Rename an upload after what its first bytes say it is; the name that a client gave it is never used."""
    with path.open("rb") as file:
        suffix = ".nii.gz" if file.read(2) == _GZIP else ".nii"
    return path.replace(path.with_name(f"upload{suffix}"))


def store_mask(upload: Path, target: Path, dataset: BundleDataset, limits: PipelineLimits) -> StoredMask:
    """Check an upload strictly, and write it as `target` in the pipeline's terms.

    Args:
        upload: The file as it came.
        target: Where the mask is kept, `.nii.gz`: original label ids on the upload's own grid, turned to RAS.
        dataset: Whose labels and spacing it must have.
        limits: What fits the pipeline.

    Raises:
        BadMaskError: It is no single 3D NIfTI volume of labels of this pipeline, at its spacing and within its limits.
    """
    try:
        path = named_by_content(upload)
        shape = _checked_header(path, dataset, limits)
        volume = nifti.read(path, max_bytes=int(np.prod(shape)) * _WIDEST_VOXEL).volume
        labels = original_labels(str(path), volume, dataset)
    except VolumeFileError as error:
        _, found, expected, remedy = error.args
        raise BadMaskError(f"mask: found {found}, expected {expected}. {remedy}") from error
    mask = Volume(voxels=labels, affine=volume.affine)
    nifti.write(target, mask, dtype=dataset.label_table.dtype)
    return StoredMask(shape=shape, digest=sha256_of(target))


def read_mask(path: Path) -> Volume:
    """A mask that `store_mask` wrote, original label ids.

    Raises:
        VolumeFileError: It is gone or damaged.
    """
    return nifti.read(path).volume


def _checked_header(path: Path, dataset: BundleDataset, limits: PipelineLimits) -> tuple[int, int, int]:
    header = nifti.read_header(path, max_bytes=limits.max_voxels * _WIDEST_VOXEL)
    if len(header.axes) != 3:
        raise BadMaskError(f"mask: found {len(header.axes)} axes {header.axes}, expected 3. Send a single volume.")
    if not all(np.isfinite(length) and length > 0 for length in header.pixdim):
        raise BadMaskError(f"mask: found pixdim {header.pixdim} mm, expected voxel sizes above 0. Correct the header.")
    by_axis = sorted(header.pixdim)
    if not np.allclose(by_axis, sorted(header.spacing_mm), rtol=SPACING_TOLERANCE):
        raise BadMaskError(
            f"mask: found pixdim {header.pixdim} mm, but an affine with voxels of {header.spacing_mm} mm (D, H, W). "
            "Correct the header."
        )
    check_spacing(str(path), header.spacing_mm, dataset)
    depth, height, width = header.shape
    most = (limits.max_depth, *limits.plane)
    if depth > most[0] or height > most[1] or width > most[2] or depth * height * width > limits.max_voxels:
        raise BadMaskError(
            f"mask: found {header.shape} voxels (D, H, W), expected at most {most} and {limits.max_voxels} in all. "
            "Crop it."
        )
    return header.shape
