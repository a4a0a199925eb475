"""Prepare: one pair of files becomes one case on the training grid."""

from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from medgen3d.artifacts import nifti
from medgen3d.artifacts.prepared_set import DatasetInfo, PreparedCase
from medgen3d.core.resample import resample
from medgen3d.core.volume import Box, Volume
from medgen3d.ingest.plan import CasePlan
from medgen3d.ingest.verify import label_voxels, read_image

Voxel = TypeVar("Voxel", bound=np.generic)


def prepare(case: CasePlan, info: DatasetInfo) -> PreparedCase:
    """Read a pair, and bring it to the data set's orientation, voxel size, intensity range, labels and plane.

    Raises:
        DataError: A file cannot be read any more.
    """
    raw = read_image(case.pair.image).volume
    # Verified to lie where the image lies; with the very same affine both are resampled to the very same grid.
    raw_mask = Volume(voxels=label_voxels(nifti.read(case.pair.mask)).astype(np.uint16), affine=raw.affine)
    image = crop(resample(raw, info.spacing_mm, "linear"), info.plane)
    mask = crop(resample(raw_mask, info.spacing_mm, "nearest"), info.plane)
    labels = info.label_table.to_contiguous(np.asarray(mask.voxels, dtype=np.uint16))
    _, height, width = labels.shape
    box = Box.centred(height, width, *info.plane)
    return PreparedCase(
        case_id=case.pair.case,
        split=case.split,
        image=pad(case.intensity.to_unit(image.voxels), box, info.plane, "reflect"),
        mask=pad(labels, box, info.plane, "constant"),
        box=box,
        affine=image.affine,
        intensity=case.intensity,
    )


def crop(volume: Volume, plane: tuple[int, int]) -> Volume:
    """Cut what exceeds `plane` (H, W) off both sides alike; an odd row or column more at the end."""
    top, left = (max(0, (size - limit) // 2) for size, limit in zip(volume.voxels.shape[1:], plane, strict=True))
    voxels = volume.voxels[:, top : top + plane[0], left : left + plane[1]]
    shift = np.eye(4)
    shift[:3, 3] = left, top, 0  # affines take (x, y, z)
    return Volume(voxels=voxels, affine=volume.affine @ shift)


def pad(
    voxels: NDArray[Voxel], box: Box, plane: tuple[int, int], mode: Literal["reflect", "constant"]
) -> NDArray[Voxel]:
    """Place [D, h, w] in `box` of the plane: images reflected, again and again if need be, masks with background."""
    widths = ((0, 0), (box.top, plane[0] - box.bottom), (box.left, plane[1] - box.right))
    return np.pad(voxels, widths, mode=mode)
